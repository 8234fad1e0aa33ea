"""Golden transcripts: every upstream stream through every client protocol, every client request to the upstream body.

`tests/golden_files.py` says what the files look like. A golden freezes what is; what must be is said by the grammar of
each protocol and by the table that tests/test_transcripts.py reads. What every answer of a protocol repeats (the echo
of the request, the head of a chunk) is frozen once, in `<protocol>.frozen.json`, and stands as `"<frozen>"` in the
cases; a whole answer has a section of its own only where it is not what the stream amounts to.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from dragoman.backends.chat.encode import encode, final
from dragoman.backends.chat.settings import resolve
from dragoman.translators.errors import GatewayError
from tests.golden_files import GOLDEN, TRANSCRIPTS, compare, pretty, request, requests, upstream
from tests.replay import CONTEXT, PROTOCOL, pieces, replay

REQUESTS = [path for name in PROTOCOL for path in requests(name)]
TEXT = next(path for path in TRANSCRIPTS if path.stem == "text")
every_stream = pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
every_protocol = pytest.mark.parametrize("name", PROTOCOL)

Json = dict[str, Any]
# A response's fields that change while it runs; the others echo the request.
_LIVING = ("id", "object", "created_at", "completed_at", "status", "error", "incomplete_details", "output", "usage")


def _echo(event: Json) -> Json:
    return {key: value for key, value in event["response"].items() if key not in _LIVING}


def _empty_message(event: Json) -> Json:
    message: Json = event["message"]
    return message


def _chunk_head(event: Json) -> Json:
    return {key: event[key] for key in ("id", "object", "created", "model")}


# What of a protocol's first event is frozen; a protocol that repeats little needs no line here.
_FROZEN: dict[str, Callable[[Json], Json]] = {
    "responses": _echo,
    "messages": _empty_message,
    "chat_completions": _chunk_head,
}


def without_frozen(name: str, stream: bytes, rewrite: bool) -> bytes:
    """The stream with `"<frozen>"` where it repeats what is frozen once."""
    if name not in _FROZEN:
        return stream
    path = GOLDEN / "streams" / f"{name}.frozen.json"
    if rewrite:
        plain = replay(PROTOCOL[name], [upstream(TEXT)]).stream
        first = next(line for line in plain.split(b"\n") if line.startswith(b"data: "))
        path.write_bytes(pretty(_FROZEN[name](orjson.loads(first.removeprefix(b"data: ")))))
    members = orjson.dumps(orjson.loads(path.read_bytes()))[1:-1]
    return stream.replace(members, b'"<frozen>"')


def folded(name: str, stream: bytes) -> object:
    """What a stream amounts to, by the grammar of its protocol."""
    return importlib.import_module(f"tests.grammar.{name}").check_stream(stream)


@every_protocol
@every_stream
def test_stream(path: Path, name: str, rewrite_golden: bool) -> None:
    answer = replay(PROTOCOL[name], [upstream(path)])
    whole = None
    if answer.status != 200 or answer.whole != folded(name, answer.stream):
        whole = pretty({"status": answer.status, "body": answer.whole})
    compare(path, f"{name}.sse", without_frozen(name, answer.stream, rewrite_golden), rewrite_golden)
    compare(path, f"{name}.json", whole, rewrite_golden)


@every_protocol
@every_stream
def test_stream_obeys_the_grammar(path: Path, name: str) -> None:
    grammar = importlib.import_module(f"tests.grammar.{name}")
    for parallel in (True, False):
        answer = replay(PROTOCOL[name], [upstream(path)], parallel=parallel)
        grammar.check_stream(answer.stream)
        if answer.status == 200:
            grammar.check_response(answer.whole)
        else:
            grammar.check_error(answer.status, answer.whole)


@every_protocol
@every_stream
def test_cutting_the_bytes_changes_nothing(path: Path, name: str) -> None:
    data = upstream(path)
    whole = replay(PROTOCOL[name], [data])
    places = random.Random(path.stem)
    for count in (1, 2, 5, 20, 80):
        cuts = [places.randrange(len(data) + 1) for _ in range(count)] if data else []
        assert replay(PROTOCOL[name], pieces(data, cuts)) == whole
    if len(data) < 20_000:
        assert replay(PROTOCOL[name], pieces(data, range(1, len(data)))) == whole


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_request(path: Path, rewrite_golden: bool) -> None:
    """What a chat server gets for a client's request, or the error that the client gets."""
    protocol = PROTOCOL[path.parent.name]
    try:
        turn = protocol.parse(request(path), CONTEXT)
        settings = resolve("vllm")
        body, notes = encode(turn.request, settings)
        sent = final(body, settings, "upstream-model")
    except GatewayError as error:
        reply = protocol.error(error, f"req_{CONTEXT.id}")
        result: Json = {"status": reply.status, "error": reply.body}
    else:
        result = {"notes": [f"{n.kind}:{n.name}" for n in (*turn.notes, *notes)], "body": orjson.loads(sent)}
    compare(path, "chat_completions.json", pretty(result), rewrite_golden)
