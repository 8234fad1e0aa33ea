"""Clients: what a user of each library and agent gets through the gateway, and the tables that say so."""
