"""`python -m bench.attack.hostile`: a model server that means harm.

The model name of a request chooses what is sent. Each script is a generator of writes, bounded by `MOST` so that a run
ends by itself; a client that stops reading holds the generator, one that leaves ends it. Prints "ready on
http://HOST:PORT".
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import itertools
import re
from collections.abc import Callable, Iterator

import orjson

from bench.loop import run, serve_until_stopped

MIB = 1024 * 1024
MOST = 300 * MIB  # bytes of an answer "without end"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
_MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)

Script = Callable[[], Iterator[bytes]]


def event(delta: object, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


END = event({}, "stop") + b"data: [DONE]\n\n"


def call(arguments: str, *, name: str | None = None, index: int | None = 0) -> bytes:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    place = {} if index is None else {"index": index}
    identity = {} if name is None else {"id": f"call_{name}", "type": "function"}
    return event({"tool_calls": [{**place, **identity, "function": function}]})


# ------------------------------------------------------------------------------------------------------------- streams


def fine() -> Iterator[bytes]:
    yield SSE + event({"role": "assistant", "content": "fine"}) + END


def data_lines() -> Iterator[bytes]:
    """One event of very many lines, which ends after 8 MiB."""
    yield SSE
    for _ in range(8192):
        yield b"data: \n" * 146
    yield b"\n" + END


def no_line_end() -> Iterator[bytes]:
    yield SSE + b"data: "
    yield from itertools.repeat(b"x" * 65_536, MOST // 65_536)


def open_quote() -> Iterator[bytes]:
    """The input of a free-form tool whose JSON string never begins."""
    yield SSE + call('{"', name="write")
    for _ in range(50_000):
        yield call("a" * 50)
    yield END


def open_arguments() -> Iterator[bytes]:
    yield SSE + call('{"command": "', name="write")
    for _ in range(50_000):
        yield call("{[\\\\" * 12)
    yield END


def calls() -> Iterator[bytes]:
    """More calls than anybody wants, without the index that tells them apart."""
    yield SSE
    for number in range(20_000):
        yield call("{}", name=f"t{number}", index=None)
    yield END


def endless_text() -> Iterator[bytes]:
    yield SSE
    yield from itertools.repeat(event({"content": "word " * 10_000}), MOST // 50_000)


def endless_tokens() -> Iterator[bytes]:
    """Deltas as small as tokens are: what counts is how many there are."""
    yield SSE
    yield from itertools.repeat(event({"content": "word"}) * 50, 4_000)
    yield END


def endless_thought() -> Iterator[bytes]:
    yield SSE
    yield from itertools.repeat(event({"reasoning_content": "hm " * 10_000}), MOST // 30_000)


def endless_arguments() -> Iterator[bytes]:
    yield SSE + call('{"command": "', name="write")
    yield from itertools.repeat(call("word " * 10_000), MOST // 50_000)


def many_values() -> Iterator[bytes]:
    """One event of 20 MB whose JSON is five million values."""
    yield SSE + b'data: {"choices": [' + b'{"a":[]},' * 2_000_000 + b"0]}\n\n" + END


def deep_event() -> Iterator[bytes]:
    yield SSE + b"data: " + b'{"choices":[' * 500_000 + b"\n\n" + END


def open_markup() -> Iterator[bytes]:
    """Text that is forever about to become a tool call."""
    yield SSE + event({"content": "<tool_call>\n{"})
    for _ in range(40_000):
        yield event({"content": "<tool_call><<</tool_cal {{" * 4})
    yield END


# ------------------------------------------------------------------------------------------------------- whole answers


def _answer(text: bytes) -> bytes:
    opening = (
        b'{"id":"c","object":"chat.completion","created":0,"model":"m","choices":[{"index":0,"finish_reason":"stop",'
    )
    return opening + b'"message":{"role":"assistant","content":"' + text


def large_answer() -> Iterator[bytes]:
    yield WHOLE + _answer(b"")
    yield from itertools.repeat(b"word " * 12_800, 12 * MIB // 64_000)
    yield b'"}}]}'


def endless_answer() -> Iterator[bytes]:
    yield WHOLE + _answer(b"")
    yield from itertools.repeat(b"x" * 65_536, MOST // 65_536)


def bomb() -> Iterator[bytes]:
    """300 MiB of text in 300 kB, though nobody asked for a compressed answer."""
    yield WHOLE.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n") + _bomb()


@functools.cache
def _bomb() -> bytes:
    """Made when it is first asked for: that takes a second, which no other run has to wait for."""
    return gzip.compress(_answer(b"x" * MOST) + b'"}}]}', 9)


# -------------------------------------------------------------------------------------------------- refusals and heads


def stalled_refusal() -> Iterator[bytes]:
    """The body of an error that never comes."""
    yield b"HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
    yield b""


def large_refusal() -> Iterator[bytes]:
    yield b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n" + b'{"error":{"message":"'
    yield from itertools.repeat(b"x" * 65_536, MOST // 65_536)


def endless_head() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    yield from itertools.repeat(b"x-header: value\r\n" * 4_000, MOST // 64_000)


def continues() -> Iterator[bytes]:
    yield from itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000, 4_000)


SCRIPTS: dict[str, Script] = {
    each.__name__: each
    for each in (
        fine, data_lines, no_line_end, open_quote, open_arguments, calls, endless_text, endless_tokens, endless_thought,
        endless_arguments, many_values, deep_event, open_markup, large_answer, endless_answer, bomb, stalled_refusal,
        large_refusal, endless_head, continues,
    )
}  # fmt: skip


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            found = _LENGTH.search(head)
            body = await reader.readexactly(int(found.group(1)) if found else 0)
            if not head.startswith(b"POST"):
                writer.write(_model_list() if b"/models" in head else b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")
                continue
            named = _MODEL.search(body)
            for data in SCRIPTS[named.group(1).decode() if named else "fine"]():
                writer.write(data)
                await writer.drain()
                if not data:
                    await reader.read()  # until the client leaves
            break
    writer.close()


def _model_list() -> bytes:
    body = orjson.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in SCRIPTS]})
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=MIB)
    async with server:
        await serve_until_stopped(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    run(main())
