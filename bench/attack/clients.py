"""What a client sends that means harm, and what an honest client sends to a model server that does.

`ATTACKS` is the table. Each row makes its bytes before anything is measured, plays them and says how each answer ended
(`ended`), in one line: a status and a code, or the last event of a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson

from bench.attack.hostile import MIB
from bench.client import post

PATIENCE = 60.0  # seconds for one answer
UNREAD = 8.0  # seconds; more than the gateway's own patience in a run
KEY = "attack-key-of-the-bench"
_CODE = re.compile(rb'"(?:code|type)"\s*:\s*"([a-z_]+)"')
_EVENT = re.compile(rb"\nevent: ([a-z._]+)\n")
_TERMINAL = re.compile(rb"response\.(completed|failed|incomplete)")
RESPONSES, MESSAGES, CHAT = "/v1/responses", "/v1/messages", "/v1/chat/completions"

Json = dict[str, object]


@dataclass(frozen=True)
class Attack:
    """`requests` are played at once, each on a connection of its own; `right` must match how each ends. `reads`:
    whether the clients read their answers. `settings` are those of the backend."""

    what: str
    right: str
    requests: Callable[[str], list[bytes]]
    reads: bool = True
    leaves: float | None = None  # seconds after which the clients go
    answers: int = 0  # bytes of whole answers that are in flight at once
    settings: Json = field(default_factory=dict)


async def play(attack: Attack, url: str, requests: list[bytes]) -> list[str]:
    return list(await asyncio.gather(*(_play(attack, url, request) for request in requests)))


async def _play(attack: Attack, url: str, request: bytes) -> str:
    reader, writer = await _connection(url, attack.reads)
    try:
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                writer.write(request)
                await writer.drain()
            if attack.leaves is not None:
                await asyncio.sleep(attack.leaves)
                return "left"
            if not attack.reads:
                return await _given_up(reader)
            return await ended(reader)
    except TimeoutError:
        return f"no end within {PATIENCE:.0f} s"
    finally:
        writer.transport.abort()


async def _connection(url: str, reads: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(url)
    sock = socket.socket()
    if not reads:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))
    return await asyncio.open_connection(sock=sock, limit=4096)


async def _given_up(reader: asyncio.StreamReader) -> str:
    """Reads nothing for `UNREAD` seconds, then what the kernel still holds. An answer that was given up has no end."""
    await asyncio.sleep(UNREAD)
    size = 0
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            size += len(data)
            if size >= 12 * MIB:
                return "held for a client that did not read"
    return "given up"


async def ended(reader: asyncio.StreamReader) -> str:
    """The status with a refusal's code, or the last event of a stream: its terminal event, with what wrongly follows
    it. Reads to the end, keeps the last bytes."""
    head = tail = last = b""
    ends: list[bytes] = []  # from the terminal event on
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        while data := await reader.read(65_536):
            before = tail[-64:]
            for found in _EVENT.finditer(before + data):
                if found.end() <= len(before):
                    continue  # it was found before
                last = found[1]
                if len(ends) < 3 and (ends or _TERMINAL.fullmatch(last)):
                    ends.append(last)
            tail = (tail + data)[-4096:]
    if not head:
        return "no answer"
    status = head[9:12].decode()
    if b"text/event-stream" in head:
        return f"{status} {b' '.join(ends).decode() or last.decode() or 'no event'}"
    codes = _CODE.findall(tail) if status != "200" else []
    return " ".join([status, *dict.fromkeys(code.decode() for code in codes)])


# ------------------------------------------------------------------------------------------------------------ requests


def sent(path: str, body: object, *, gzipped: bool = False) -> Callable[[str], list[bytes]]:
    return times(1, path, body, gzipped=gzipped)


def times(count: int, path: str, body: object, *, gzipped: bool = False) -> Callable[[str], list[bytes]]:
    """`body` is JSON, its bytes, or a function that makes either; it is made when the attack begins and not before."""

    def made(url: str) -> list[bytes]:
        raw = body() if callable(body) else body
        data = raw if isinstance(raw, bytes) else orjson.dumps(raw)
        request = post(url, path, gzip.compress(data) if gzipped else data)
        lines = f"authorization: Bearer {KEY}\r\nconnection: close\r\n{'content-encoding: gzip' * gzipped}".strip()
        return [request.replace(b"\r\n\r\n", b"\r\n" + lines.encode() + b"\r\n\r\n", 1)] * count

    return made


def items(count: int, item: object) -> Callable[[], bytes]:
    """A Responses request whose input is that item so many times, without as many objects in this process."""
    return lambda: b'{"model":"fine","input":[' + b",".join([orjson.dumps(item)] * count) + b"]}"


def content(count: int, part: object) -> Callable[[], bytes]:
    opening = b'{"model":"fine","max_tokens":9,"messages":[{"role":"user","content":['
    return lambda: opening + b",".join([orjson.dumps(part)] * count) + b"]}]}"


MESSAGE = {"role": "user", "content": "x"}
CALL = {"type": "function_call", "call_id": "c", "name": "t", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "o"}
WRITE = {"type": "custom", "name": "write"}
RUN = {"type": "function", "name": "write", "parameters": {"type": "object"}}
REFUSED = r"4\d\d .*"
FAILED = r"(200 response\.failed|50[0-9] .*|200 response\.incomplete)"
SOUND = r"200 response\.completed"


def asks(model: str, *, stream: bool = True, **more: object) -> Json:
    return {"model": model, "stream": stream, "input": "hi", **more}


def schema(count: int) -> Json:
    """A schema whose check takes time, not space: choices among choices that all must be tried."""
    choice: Json = {"anyOf": [{"type": "object", "required": [f"k{number}"]} for number in range(count)]}
    for _ in range(4):
        choice = {"allOf": [choice, choice], "not": {"not": choice}}
    return {"type": "object", "properties": {"a": choice}, "uniqueItems": True}


def wants(shape: Json) -> Json:
    return asks("fine", stream=False, text={"format": {"type": "json_schema", "name": "s", "schema": shape}})


ASKS_FIRST = b"expect: 100-continue\r\nconnection: close"
PROMPTED: Json = {"json_schema": "prompt"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000}

ATTACKS: dict[str, Attack] = {
    "items": Attack("a million input items", REFUSED, sent(RESPONSES, items(1_000_000, MESSAGE))),
    "items-allowed": Attack("100,000 input items", rf"({REFUSED}|200.*)", sent(RESPONSES, items(100_000, MESSAGE))),
    "calls": Attack("300,000 calls with one id", REFUSED, sent(RESPONSES, items(300_000, CALL))),
    "outputs": Attack(
        "20,000 results of one call", rf"({REFUSED}|200.*)", sent(RESPONSES, items(20_000, OUTPUT))
    ),
    "parts": Attack(
        "a million text parts", REFUSED, sent(MESSAGES, content(1_000_000, {"type": "text", "text": "x"}))
    ),
    "images": Attack(
        "150 images of 100 kB", rf"({REFUSED}|200.*)",
        sent(RESPONSES, {"model": "fine", "input": [{"role": "user", "content": [IMAGE] * 150}]}),
    ),
    "unknown-keys": Attack(
        "50,000 items with keys that nobody knows", rf"({REFUSED}|200.*)",
        sent(RESPONSES, items(50_000, {**MESSAGE, "x": 1, "y": 2})),
    ),
    "tools": Attack(
        "1,000 tools with large schemas", rf"({REFUSED}|200.*)",
        sent(RESPONSES, asks("fine", stream=False, tools=[
            {**RUN, "name": f"t{number}", "parameters": {"type": "object", "properties": {
                f"p{each}": {"type": "string", "description": "d" * 50} for each in range(40)}}}
            for number in range(1_000)])),
    ),
    "deep": Attack("a million brackets", REFUSED, sent(RESPONSES, b'{"model":"fine","input":' + b"[" * MIB)),
    "bomb": Attack(
        "a gigabyte in a megabyte of gzip", REFUSED,
        sent(RESPONSES, lambda: b"0" * (1024 * MIB), gzipped=True),
    ),
    "bodies": Attack("eight bodies of 60 MB", REFUSED, times(8, RESPONSES, lambda: b'["' + b"x" * (60 * MIB) + b'"]')),
    "no-key": Attack(
        "100 clients without a key", "401 .*",
        lambda url: [each.replace(KEY.encode(), b"x" * 20) for each in times(100, RESPONSES, asks("fine"))(url)],
    ),
    "invited": Attack(
        "a client without a key asks whether it may send 60 MB", "401 .*",
        lambda url: [post(url, RESPONSES, b"").replace(b"length: 0", b"length: 60000000\r\n" + ASKS_FIRST)],
    ),
    "pipelined": Attack(
        "20 clients that send ten requests each at once, and leave", "left",
        lambda url: [
            request.replace(b"\r\nconnection: close", b"") * 10
            for request in times(20, RESPONSES, asks("endless_tokens"))(url)
        ], leaves=0.5,
    ),
    "names": Attack(
        "a model's name of a megabyte of terminal escapes", rf"({REFUSED}|200.*)",
        sent(RESPONSES, {"model": "\x1b[2J\r\nlevel=error " * 50_000, "input": "hi"}),
    ),
    "keys": Attack(
        "50,000 keys that nobody knows in one object", rf"({REFUSED}|200.*)",
        sent(RESPONSES, asks("fine", stream=False, **{f"key{number}": number for number in range(50_000)})),
    ),
    "schema": Attack(
        "a schema that takes seconds to check", rf"({REFUSED}|50\d .*|200.*)", sent(RESPONSES, wants(schema(60))),
        settings=PROMPTED,
    ),
    "unread": Attack(
        "eight whole answers of 12 MiB that nobody reads", "given up",
        times(8, RESPONSES, asks("large_answer", stream=False)), reads=False, answers=8 * 12 * MIB,
    ),
    "unread-stream": Attack(
        "eight endless streams that nobody reads", "given up", times(8, RESPONSES, asks("endless_text")), reads=False
    ),
    "leaving": Attack(
        "32 clients that leave at once", "left", times(32, RESPONSES, asks("endless_tokens")), leaves=0.5
    ),
    "data-lines": Attack("an event of a million lines", rf"{FAILED}|{SOUND}", sent(RESPONSES, asks("data_lines"))),
    "no-line-end": Attack("a line without end", FAILED, sent(RESPONSES, asks("no_line_end"))),
    "open-quote": Attack(
        "a free-form call that never begins", rf"{FAILED}|{SOUND}", sent(RESPONSES, asks("open_quote", tools=[WRITE]))
    ),
    "open-arguments": Attack(
        "arguments that never close", rf"{FAILED}|{SOUND}", sent(RESPONSES, asks("open_arguments", tools=[RUN]))
    ),
    "answer-calls": Attack("20,000 calls in one answer", FAILED, sent(RESPONSES, asks("calls", tools=[RUN]))),
    "endless": Attack("a stream without end", FAILED, sent(RESPONSES, asks("endless_text"))),
    "endless-eight": Attack(
        "eight streams of 200,000 tokens at once", SOUND, times(8, RESPONSES, asks("endless_tokens"))
    ),
    "endless-thought": Attack("a thought without end", FAILED, sent(RESPONSES, asks("endless_thought"))),
    "endless-arguments": Attack(
        "arguments without end", FAILED, sent(RESPONSES, asks("endless_arguments", tools=[RUN]))
    ),
    "values": Attack("an event of four million values", FAILED, sent(RESPONSES, asks("many_values"))),
    "deep-event": Attack("an event of deep JSON", FAILED, sent(RESPONSES, asks("deep_event"))),
    "markup": Attack(
        "text that is forever about to be a call", rf"{FAILED}|{SOUND}",
        sent(RESPONSES, asks("open_markup", tools=[RUN])),
        settings={"markup": "hermes"},
    ),
    "endless-whole": Attack(
        "a whole answer without end", FAILED, sent(RESPONSES, asks("endless_answer", stream=False))
    ),
    "answer-bomb": Attack("an answer of 300 MB in gzip", FAILED, sent(RESPONSES, asks("bomb", stream=False))),
    "stalled-refusal": Attack("a 503 whose body stops", "503 .*", sent(RESPONSES, asks("stalled_refusal"))),
    "large-refusal": Attack("a refusal without end", r"[45]\d\d .*", sent(RESPONSES, asks("large_refusal"))),
    "endless-head": Attack("a head without end", r"50\d .*", sent(RESPONSES, asks("endless_head"))),
    "continues": Attack("four million interim answers", r"50\d .*", sent(RESPONSES, asks("continues"))),
}  # fmt: skip
WARM_UP = Attack("an honest request", "200", sent(RESPONSES, asks("fine", stream=False)))
