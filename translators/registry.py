"""The client protocols that this gateway speaks. A new one is a module that ends in `PROTOCOL = …`, and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from dragoman.translators import chat_completions, messages, responses
from dragoman.translators.protocol import Protocol

PROTOCOLS: tuple[Protocol, ...] = (responses.PROTOCOL, messages.PROTOCOL, chat_completions.PROTOCOL)


def claimant(path: str, headers: Mapping[str, str]) -> Protocol:
    """Who words the answer to a request that is no protocol's call: the first that claims it, else the first."""
    return next((each for each in PROTOCOLS if each.claims(path, headers)), PROTOCOLS[0])
