"""Tests of `translators/constraints`."""
