"""A body that goes to a server as it is: what the gateway must know of it all the same.

It is valid JSON within the limits, and one object. Rules beyond that:

* `model` stands in it once, since two readers of a name that is given twice may take different ones, and a key's rights
  hang on it.
* A server must not be made to fetch what a client names. A text is what stands at a key of `TEXTS`. Any other string
  that is an address is refused, and at a key for media every string but a `data:` URL or plain base64.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from dragoman.translators.errors import GatewayError, Kind, invalid
from dragoman.translators.ir import Note
from dragoman.translators.protocol import Json
from dragoman.translators.steps import Steps

TEXTS = frozenset({
    "content", "document", "documents", "echo_text", "input", "inputs", "instruction", "model", "passage",
    "passages", "prompt", "prompt_cache_key", "queries", "query", "request_id", "role", "stop", "suffix", "system",
    "text", "text_1", "text_2", "texts", "title", "user",
})  # fmt: skip
CONSTRAINTS = frozenset({
    "ebnf", "grammar", "guided_choice", "guided_grammar", "guided_json", "guided_regex", "json_schema", "regex",
    "response_format", "structured_outputs",
})  # fmt: skip
REFERENCES = frozenset({"$dynamicRef", "$recursiveRef", "$ref"})
MEDIA = re.compile(r"image|video|audio|media|file|url|uri", re.IGNORECASE)
ADDRESS = re.compile(r"[\s\x00-\x1f]*[a-z][a-z0-9+.\-]*:[\s\x00-\x1f]*[/\\]", re.IGNORECASE)
INLINE = re.compile(r"[\s\x00-\x1f]*data:", re.IGNORECASE)
STEP = 2000  # values in one step
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\]]', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*+:[ \t\r\n]*+")
_MODEL = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]++|\\.)*+")', re.DOTALL)


@dataclass(frozen=True, slots=True)
class RawBody:
    """`model_at` is where the model's name stands in `raw`, with its quotes."""

    raw: bytes
    value: Json
    notes: tuple[Note, ...]
    model: str
    model_at: tuple[int, int]


def checked(raw: bytes, value: Json, notes: tuple[Note, ...]) -> Steps[RawBody]:
    """Raises INVALID for a body that must not be passed through."""
    model = value.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("The field 'model' must name a model.", "model", code="missing_required_parameter")
    place = yield from _model_at(raw)
    yield from _refuse_addresses(value)
    return RawBody(raw, value, notes, model, place)


def _model_at(raw: bytes) -> Steps[tuple[int, int]]:
    """Letters of a name may be written as escapes; without any, a name that occurs once need not be looked for."""
    if rb"\u" not in raw and raw.count(b'"model"') == 1 and (found := _MODEL.search(raw)) is not None:
        return found.span(1)
    places: list[tuple[int, int]] = []
    depth = 0
    name = False  # the next string at the top is the value of `model`
    yield
    for number, token in enumerate(_TOKENS.finditer(raw)):
        if number % STEP == STEP - 1:
            yield
        match token[0][:1]:
            case b"{" | b"[":
                depth += 1
            case b"}" | b"]":
                depth -= 1
            case _ if depth == 1:
                if name:
                    places.append(token.span())
                    name = False
                elif (colon := _COLON.match(raw, token.end())) is not None and _is_model(token[0]):
                    name = raw[colon.end() : colon.end() + 1] == b'"'
                    if not name:
                        places.append((0, 0))  # it is no text
    if len(places) != 1:
        raise invalid("The field 'model' must stand in the request once, as text.", "model")
    return places[0]


def _is_model(token: bytes) -> bool:
    return len(token) <= 64 and orjson.loads(token) == "model"


def _refuse_addresses(value: Json) -> Steps[None]:
    rules = {name: each for name, each in value.items() if name in CONSTRAINTS}
    rest = {name: each for name, each in value.items() if name not in CONSTRAINTS}
    references = ((path, key, text if key in REFERENCES else None) for path, key, text in _strings(rules, "", ""))
    for number, (path, key, text) in enumerate(chain(_strings(rest, "", ""), references)):
        if number % STEP == STEP - 1:
            yield
        if text is not None and key not in TEXTS and _leads_elsewhere(key, text):
            raise _fetching(path)
    yield


def _strings(value: Any, path: str, key: str) -> Iterator[tuple[str, str, str | None]]:
    """Every string with its path and the key that it stands at; None for what is no string, to be counted. A list's
    strings stand at the list's key."""
    levels: list[tuple[Any, str, str]] = [(value, path, key)]
    while levels:
        container, path, key = levels.pop()
        members: Iterator[tuple[Any, str, str]]
        if type(container) is dict:
            members = ((each, f"{path}.{name}" if path else name, name) for name, each in container.items())
        else:
            members = ((each, f"{path}[{place}]", key) for place, each in enumerate(container))
        for each, inner, name in members:
            if type(each) is dict or type(each) is list:
                levels.append((each, inner, name))
            yield inner, name, each if type(each) is str else None


def _leads_elsewhere(key: str, text: str) -> bool:
    if INLINE.match(text):
        return False
    of_media = MEDIA.search(key) is not None and any(mark in text for mark in ".:~\\")
    return of_media or ADDRESS.match(text) is not None


def _fetching(path: str) -> GatewayError:
    shown = path if len(path) <= 200 else f"{path[:200]}…"
    return GatewayError(
        Kind.INVALID,
        "A model server is not made to fetch what a request names: send the content itself as a data: URL.",
        shown,
        code="invalid_value",
        content="media",
    )
