"""Tests of `gateway/launch`."""
