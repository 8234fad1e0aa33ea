"""Answers that clients may come back to: what they were, and the conversations that they belong to."""
