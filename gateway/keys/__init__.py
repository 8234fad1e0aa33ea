"""Secrets: clients' keys and their limits, the servers' keys, the seal of reasoning."""
