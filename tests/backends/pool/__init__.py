"""Tests of `backends/pool`."""
