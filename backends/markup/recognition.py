"""The family of calls that no marker tells: by what a template prints for an earlier call.

Calls that stand bare leave no trace in a template's text. But the template prints them, and the family that reads a
call back out of what was printed is the model's. An object by itself proves nothing: it is also what stands in the
prompt where a template prints no calls.
"""

from __future__ import annotations

import orjson

from dragoman.backends.markup.detection import FAMILIES
from dragoman.backends.markup.messages import Messages
from dragoman.backends.markup.scanner import Markup
from dragoman.translators.fold import Fold
from dragoman.translators.ir import Request, StopReason, Tool, ToolCall
from dragoman.translators.parts import Parts

_CANDIDATES = ("xlam", "pythonic")
_BEGINS = ("[", "```")


def recognise(printed: str, call: ToolCall) -> str | None:
    """The family that reads `call` out of what a template printed for it, as an answer to the prompt before it."""
    if not printed.lstrip().startswith(_BEGINS):
        return None
    return next((family for family in _CANDIDATES if _reads(family, printed, call)), None)


def read_answer(family: str, text: str, request: Request) -> Fold:
    """A whole answer to the request, as the family reads it."""
    parts = Parts.of(request)
    found = FAMILIES[family]
    markup = (Markup if found.headers is None else Messages)(found, parts, request=request)
    markup.feed(text)
    markup.finish()
    parts.finish(StopReason.STOP, None)
    fold = Fold()
    fold.feed(parts.take())
    return fold


def _reads(family: str, text: str, call: ToolCall) -> bool:
    request = Request(id="probe", model="", messages=(), tools=(Tool(call.name, "", {}),))
    found = read_answer(family, text, request).parts[0]
    return (
        isinstance(found, ToolCall)
        and found.name == call.name
        and orjson.loads(found.arguments) == orjson.loads(call.arguments)
    )
