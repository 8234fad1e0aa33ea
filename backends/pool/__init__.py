"""Several servers of one model as one backend: which one is asked, and what becomes of those that fail."""
