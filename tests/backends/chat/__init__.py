"""Tests of `backends/chat`."""
