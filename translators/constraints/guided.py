"""Constraints on plain text (a choice, a regular expression, a grammar), and where a format has no place."""

from __future__ import annotations

import re
from dataclasses import replace

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Guided, Named, Note, Request

_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]()|]")


def regex_of(guided: Guided) -> str:
    """A choice as a regular expression, for servers that take no list: `yes|no\\.`; a regular expression itself."""
    if isinstance(guided.rule, str):
        return guided.rule
    return "|".join(_SPECIAL.sub(r"\\\g<0>", option) for option in guided.rule)


def unenforceable(guided: Guided) -> GatewayError:
    """For a server that cannot: an answer without the constraint would be a wrong answer."""
    words = {"choice": "choice of texts", "regex": "regular expression"}.get(guided.kind, guided.kind)
    message = f"This model's server cannot hold its answer to a {words}."
    return GatewayError(Kind.UNSUPPORTED, f"'{guided.path}': {message}", guided.path or None, code="unsupported_value")


def is_forced(request: Request) -> bool:
    """Whether a tool must be called."""
    return bool(request.tools) and (request.tool_choice == "required" or isinstance(request.tool_choice, Named))


def without_idle_format(request: Request) -> tuple[Request, tuple[Note, ...]]:
    """A forced call leaves no room for text. A server that is given a format too may obey that, and not call."""
    if request.format is None or not is_forced(request):
        return request, ()
    return replace(request, format=None), (Note("field", "format"),)
