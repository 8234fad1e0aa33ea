"""Tests of `gateway/config`."""
