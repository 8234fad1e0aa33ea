"""The life of one model call, from its arrival to its line in the log."""
