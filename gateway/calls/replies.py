"""Answers as HTTP: JSON bodies, the headers that every answer carries, and errors in a protocol's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Note
from dragoman.translators.protocol import ErrorReply, Protocol

HEADER_BUDGET = 1024


def id_headers(request_id: str) -> dict[str, str]:
    """The request id under both names that clients look for."""
    return {"x-request-id": request_id, "request-id": request_id}


def note_headers(notes: Sequence[Note]) -> dict[str, str]:
    headers: dict[str, str] = {}
    if not notes:
        return headers
    if ignored := note_list(f"{note.kind}:{note.name}" for note in notes if note.kind != "unenforced"):
        headers["x-dragoman-ignored"] = ignored
    if unenforced := note_list(note.name for note in notes if note.kind == "unenforced"):
        headers["x-dragoman-unenforced"] = unenforced
    return headers


def json_response(status: int, body: Any, headers: Mapping[str, str]) -> web.Response:
    response = web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
    response.headers.update(headers)
    return response


def error_reply(protocol: Protocol, error: GatewayError, request_id: str) -> ErrorReply:
    """The protocol's own words, with the headers that errors of every protocol carry."""
    reply = protocol.error(error, request_id)
    present = {name.lower() for name in reply.headers}
    common = {name: value for name, value in common_headers(error).items() if name.lower() not in present}
    return replace(reply, headers={**common, **reply.headers})


def common_headers(error: GatewayError) -> dict[str, str]:
    """Who refuses, and when to come back; a 503 always says when."""
    headers: dict[str, str] = {"x-dragoman-error-source": error.source}
    if error.wait is not None:
        headers["Retry-After"] = str(error.wait)
    return headers


def note_list(names: Iterable[str]) -> str:
    """A comma-separated list for a header: each name once, at most 1 kB, then how many more there are."""
    unique = list(dict.fromkeys("".join(c if "!" <= c <= "~" and c != "," else "_" for c in name) for name in names))
    kept: list[str] = []
    size = 0
    for name in unique:
        more = f"+{len(unique) - len(kept)}"
        size += len(name) + 2
        if size + len(more) > HEADER_BUDGET:
            return ", ".join([*kept, more])
        kept.append(name)
    return ", ".join(kept)
