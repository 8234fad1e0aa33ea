"""The life of one model call, from its body to its line in the log."""
