"""`make comparison`: what agents depend on, asked of this gateway and of others over the same faulty server."""
