"""The model servers: their wire formats, their connections, and how each of them wants a conversation rendered."""
