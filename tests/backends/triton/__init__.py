"""Tests of `backends/triton`."""
