"""Tests of the gateway as a whole."""
