"""Secrets: clients' keys and their limits, the keys sent to servers, the seal of reasoning."""
