"""Tests of `backends/markup`."""
