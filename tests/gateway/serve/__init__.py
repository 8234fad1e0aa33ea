"""Tests of `gateway/serve`."""
