"""The process: sockets, workers, the application and its routes."""
