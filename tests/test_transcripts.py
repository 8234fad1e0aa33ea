"""The table beside the chat-completions transcripts says how each has to end; here it is held to its word.

The table says what the servers mean, which golden files cannot: they freeze what is. Every answer must also pass the
grammar of Responses, with its transcript cut at several places and keepalives between the pieces.
"""

import re

import pytest

from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.protocol import Context
from dragoman.translators.responses import PROTOCOL
from tests.golden_files import TRANSCRIPTS, upstream
from tests.grammar.responses import check_response, check_stream

ROW = re.compile(r"^\| `(?P<case>[^`]+)` \|.*\| (?P<ends>[^|]+) \|$", re.MULTILINE)
TABLE = {row["case"]: row["ends"] for row in ROW.finditer((TRANSCRIPTS[0].parent / "README.md").read_text("utf-8"))}
STREAMS = {path.stem: upstream(path) for path in TRANSCRIPTS}
TOOLS = ("list_files", "read_file", "write", "nest", "get_goal", "one", "two", "three")
BODY = {
    "model": "m",
    "input": "Hello",
    "stream": True,
    "tools": [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in TOOLS],
}


def classify(status: int, error: object) -> GatewayError:
    return GatewayError(Kind.BACKEND_FAILED, "The model server failed during the answer.", source="backend")


def answer(transcript: bytes, step: int) -> tuple[bytes, object]:
    """What a client of Responses gets, and the fold, where the transcript arrives in pieces of `step` bytes."""
    turn = PROTOCOL.parse(dict(BODY), Context(id="0123456789abcdef01234567", clock=lambda: 1700000000))
    decoder = ChatDecoder(turn.request, classify)
    sent = turn.stream.start()
    try:
        for start in range(0, len(transcript), step):
            sent += turn.stream.feed(decoder.feed(transcript[start : start + step]))
            if not decoder.done:
                sent += turn.stream.keepalive()
        sent += turn.stream.feed(decoder.finish())
    except GatewayError as error:
        sent += turn.stream.feed(decoder.abort()) + turn.stream.fail(error)
        return b"".join(sent), None
    return b"".join(sent), turn.stream.body()


def test_every_transcript_has_its_line_and_every_line_its_transcript() -> None:
    assert STREAMS.keys() == TABLE.keys()
    assert len(STREAMS) > 100


@pytest.mark.parametrize("case", TABLE)
def test_a_transcript_ends_as_the_table_says(case: str) -> None:
    transcript = STREAMS[case]
    finals = []
    for step in (len(transcript) or 1, 97, 1009):
        sent, whole = answer(transcript, step)
        final = check_stream(sent)
        if whole is not None:
            assert whole == final
        check_response(final)
        finals.append(final)
    assert finals[0] == finals[1] == finals[2]
    assert TABLE[case].startswith(finals[0]["status"])


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        ("call-between-texts", ["message", "function_call", "message"]),
        ("call-blank-text-around", ["function_call"]),
        ("calls-interleaved", ["function_call", "function_call"]),
        ("calls-same-index-no-ids", ["function_call", "function_call"]),
        ("call-index-one-only", ["function_call"]),
        ("call-new-id-on-each-continuation", ["function_call"]),
        ("reasoning-text-reasoning-text", ["reasoning", "message", "reasoning", "message"]),
        ("length-in-second-call", ["function_call", "function_call"]),
        ("only-done", []),
    ],
)
def test_the_items_of_an_answer(case: str, kinds: list[str]) -> None:
    sent, _ = answer(STREAMS[case], 64)
    assert [item["type"] for item in check_stream(sent)["output"]] == kinds
