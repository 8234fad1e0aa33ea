"""Models for Triton's Python backend: copied into a model repository and run by the server, never imported here."""
