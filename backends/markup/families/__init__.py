"""The families: each a short file of markers and forms that ends in `FAMILY`."""
