"""Tests of `gateway/keys`."""
