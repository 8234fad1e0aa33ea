"""One reader for each form in which calls are written."""
