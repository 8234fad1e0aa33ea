"""`local:`, a small real model on the CPU: a child process, and our own chat backend in front of it."""
