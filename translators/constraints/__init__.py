"""What some servers cannot enforce: forced tools, schemas, one call at a time."""
