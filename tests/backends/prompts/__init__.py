"""Tests of `backends/prompts`."""
