"""A model without calls of its own: text, and reasoning in `<think>…</think>`."""

from __future__ import annotations

from backends.markup.scanner import Markup


class Plain(Markup):
    pass
