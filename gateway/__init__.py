"""HTTP and operations: the only package that listens, and the one that knows no protocol by name."""
