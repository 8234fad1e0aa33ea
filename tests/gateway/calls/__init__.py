"""Tests of `gateway/calls`."""
