"""Libraries as clients: what a user of each gets through the gateway, and the table of docs/clients.md."""
