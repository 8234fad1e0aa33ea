"""Tests of `translators/messages`."""
