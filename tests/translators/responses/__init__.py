"""Tests of `translators/responses`."""
