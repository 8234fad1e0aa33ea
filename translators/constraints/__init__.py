"""What a server cannot enforce by itself: forced tools, schemas, one call at a time."""
