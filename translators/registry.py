"""The client protocols that this gateway speaks. A new one is a module that ends in `PROTOCOL = …`, and one line
here."""

from __future__ import annotations

from dragoman.translators import chat_completions, messages, responses
from dragoman.translators.protocol import Protocol

PROTOCOLS: tuple[Protocol, ...] = (responses.PROTOCOL, messages.PROTOCOL, chat_completions.PROTOCOL)
