"""Golden transcripts: every upstream stream through every client protocol, every client request to the upstream body.

The sources (`<case>.sse`, `<case>.json`) are written by hand; the results beside them (`<case>.to_<protocol>.sse` and
`.json`, `<case>.to_chat_completions.json`) are written by `make golden` and read as a diff. A golden freezes what is;
what must be is said by the grammar of each protocol and by the table that tests/test_transcripts.py reads.
"""

from __future__ import annotations

import importlib
import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from dragoman.backends.chat.encode import encode
from dragoman.backends.chat.settings import resolve
from dragoman.translators.errors import GatewayError
from tests.replay import CONTEXT, GOLDEN, PROTOCOL, TRANSCRIPTS, pieces, replay

REQUESTS = sorted(
    path for name in PROTOCOL for path in (GOLDEN / "requests" / name).glob("*.json") if ".to_" not in path.name
)
every_stream = pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
every_protocol = pytest.mark.parametrize("name", PROTOCOL)


def compare(path: Path, data: bytes, rewrite: bool) -> None:
    if rewrite:
        path.write_bytes(data)
    assert path.exists(), f"no golden {path.name}: `make golden` writes it"
    assert data == path.read_bytes(), f"{path.name} differs: if that is meant, `make golden` and read the diff"


def pretty(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@every_protocol
@every_stream
def test_stream(path: Path, name: str, rewrite_golden: bool) -> None:
    answer = replay(PROTOCOL[name], [path.read_bytes()])
    compare(path.with_suffix(f".to_{name}.sse"), answer.stream, rewrite_golden)
    compare(
        path.with_suffix(f".to_{name}.json"), pretty({"status": answer.status, "body": answer.whole}), rewrite_golden
    )


@every_protocol
@every_stream
def test_stream_obeys_the_grammar(path: Path, name: str) -> None:
    grammar = importlib.import_module(f"tests.grammar.{name}")
    for parallel in (True, False):
        answer = replay(PROTOCOL[name], [path.read_bytes()], parallel=parallel)
        grammar.check_stream(answer.stream)
        if answer.status == 200:
            grammar.check_response(answer.whole)
        else:
            grammar.check_error(answer.status, answer.whole)


@every_protocol
@every_stream
def test_cutting_the_bytes_changes_nothing(path: Path, name: str) -> None:
    data = path.read_bytes()
    whole = replay(PROTOCOL[name], [data])
    places = random.Random(path.stem)
    for count in (1, 2, 5, 20, 80):
        cuts = [places.randrange(len(data) + 1) for _ in range(count)] if data else []
        assert replay(PROTOCOL[name], pieces(data, cuts)) == whole
    if len(data) < 20_000:
        assert replay(PROTOCOL[name], pieces(data, range(1, len(data)))) == whole


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_request(path: Path, rewrite_golden: bool) -> None:
    """What a chat server gets for a client's request, or what the client gets where the server is not asked."""
    protocol = PROTOCOL[path.parent.name]
    try:
        turn = protocol.parse(orjson.loads(path.read_bytes()), CONTEXT)
        sent, notes = encode(turn.request, resolve("vllm"), model="upstream-model") if not turn.events else (b"", ())
    except GatewayError as error:
        reply = protocol.error(error, f"req_{CONTEXT.id}")
        result: dict[str, Any] = {"status": reply.status, "error": reply.body}
    else:
        result = {"notes": [f"{n.kind}:{n.name}" for n in (*turn.notes, *notes)]}
        if turn.events:
            turn.stream.feed(turn.events)
            result["answer"] = turn.stream.body()
        else:
            result["body"] = orjson.loads(sent)
    compare(path.with_suffix(".to_chat_completions.json"), pretty(result), rewrite_golden)
