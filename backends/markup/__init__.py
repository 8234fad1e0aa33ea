"""Tool calls and reasoning as model families write them: raw text into parts, for any backend.

`open_markup` gives the parser of one answer. The family is configured, or found by `detect` from the markers of the
chat template. `scanner` says how an answer is read; each form of calls has one reader in `readers`, and a family in
`families` is a short file that names its markers, its forms and the tags of its thoughts.
"""

from __future__ import annotations

from dragoman.backends.markup.detection import FAMILIES, detect
from dragoman.backends.markup.family import Family
from dragoman.backends.markup.messages import Messages
from dragoman.backends.markup.recognition import recognise
from dragoman.backends.markup.scanner import Markup
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Request
from dragoman.translators.parts import Parts


def open_markup(family: str | None, parts: Parts, *, prompt: str = "", request: Request | None = None) -> Markup:
    """The parser of one answer; an unknown family (None) is read for its thoughts only. `prompt` is the rendered prompt
    or its end, which may have opened the reasoning; `request` declares the tools. Raises `GatewayError` INVALID for a
    name that no family has."""
    name = family or "plain"
    if name not in FAMILIES:
        raise GatewayError(Kind.INVALID, f"unknown markup {name!r}; there are {', '.join(FAMILIES)}", "markup")
    found = FAMILIES[name]
    scanner = Markup if found.headers is None else Messages
    return scanner(found, parts, prompt=prompt, request=request)


__all__ = ["FAMILIES", "Family", "Markup", "detect", "open_markup", "recognise"]
