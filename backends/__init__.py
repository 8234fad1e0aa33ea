"""The model servers: their wire formats, their connections, and the rendering that each of them wants."""
