"""A model without calls of its own: text, and reasoning in `<think>…</think>`."""

from __future__ import annotations

from dragoman.backends.markup.scanner import Markup


class Plain(Markup):
    pass
