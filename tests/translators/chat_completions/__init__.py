"""Tests of `translators/chat_completions`."""
