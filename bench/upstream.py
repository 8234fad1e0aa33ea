"""The scripted model server of the soak: chat-completions streams whose bytes were made before the first request.

Run as a process of its own (`python -m bench.upstream`); prints "ready on http://HOST:PORT". The model name of a
request chooses the script, so one server plays every case of a run. One event per delta of 200-260 bytes, each in an
HTTP chunk of its own, as servers on uvicorn send them. Embeddings are always the same. Nothing is parsed but the head,
the model's name and whether a stream was asked for. It counts what it sees: `GET /counts` answers connections and
streams that are open, `GET /closings` who left and when.
"""

from __future__ import annotations

import asyncio
import collections
import re
import time
from dataclasses import dataclass
from enum import Enum
from typing import cast

import orjson

from bench.loop import run, serve_until_stopped

# Stands in the first delta of every stream and nowhere else, so that a client finds the first token without parsing.
FIRST_WORD = "qwzx"
WORDS = (
    " the",
    " court",
    " reads",
    " a",
    " letter",
    "\n",
    ' "and',
    ' answers"',
    " in",
    " détente",
    ",",
    " quickly",
    ".",
)
_MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_MARK = re.compile(rb"soak-(\d+)-")
# Deltas of a burst that leave in one write. With one, a plain proxy keeps up with this server, its reads are small and
# its cost is twice that of full reads, so that every ratio to it flatters; from four on the server is the faster one.
TOGETHER = 4
_LARGEST_BODY = 64 * 1024 * 1024
_EMBEDDING = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25] * 64}],
    "model": "answer",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}


class End(Enum):
    """What comes after the last delta."""

    WHOLE = "finish reason, usage, [DONE]"
    HOLD = "nothing: the stream stays open"
    CUT = "the connection breaks"
    MUTE = "the body ends without a finish reason"
    ERROR = "an error object in the stream"
    GARBAGE = "an event that is no JSON"


@dataclass(frozen=True)
class Script:
    """`deltas` at `gap` seconds (0: all at once), then `end`; or, when `status` is not 200, only that refusal."""

    deltas: int
    gap: float = 0.0
    end: End = End.WHOLE
    status: int = 200


SCRIPTS = {
    "burst": Script(500),
    "burst-short": Script(100),
    "paced": Script(200, 0.02),
    "paced-short": Script(60, 0.02),
    "first": Script(1),
    "answer": Script(16),
    "held": Script(1, 0.02, End.HOLD),
    "steady": Script(60, 0.05),
    "cut": Script(20, 0.02, End.CUT),
    "mute": Script(20, 0.02, End.MUTE),
    "error": Script(20, 0.02, End.ERROR),
    "garbage": Script(20, 0.02, End.GARBAGE),
    "hang": Script(5, 0.02, End.HOLD),
    "silent": Script(0, 0.02, End.HOLD),
    "busy": Script(0, status=429),
    "broken": Script(0, status=500),
}


def text_of(deltas: int) -> str:
    """What a whole stream of so many deltas says."""
    return "".join(_word(place) for place in range(deltas))


def _word(place: int) -> str:
    return FIRST_WORD if place == 0 else WORDS[place % len(WORDS)]


def _frame(payload: object) -> bytes:
    event = b"data: " + (payload if isinstance(payload, bytes) else orjson.dumps(payload)) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _chunk(model: str, delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
    return {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": model,
        "choices": [
            {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "stop_reason": None},
        ],
        "usage": None,
    }


def _usage(deltas: int) -> dict[str, int]:
    return {"prompt_tokens": 100, "completion_tokens": deltas, "total_tokens": 100 + deltas}


class Recording:
    """The bytes of one script as they are written: the opening with the first deltas, more of them, the end."""

    HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"

    def __init__(self, name: str, script: Script) -> None:
        self.script = script
        role = _frame(_chunk(name, {"role": "assistant", "content": ""}))
        frames = [_frame(_chunk(name, {"content": _word(place)})) for place in range(script.deltas)]
        size = TOGETHER if script.gap == 0 else 1
        groups = [b"".join(frames[place : place + size]) for place in range(0, len(frames), size)]
        self.opening = self.HEAD + role + b"".join(groups[:1])
        self.writes = groups[1:]
        self.end = self._end(name)
        self.whole = self._whole(name)

    def _end(self, name: str) -> bytes:
        last = b"0\r\n\r\n"
        match self.script.end:
            case End.WHOLE:
                usage = {**_chunk(name, {}), "choices": [], "usage": _usage(self.script.deltas)}
                return _frame(_chunk(name, {}, "stop")) + _frame(usage) + _frame(b"[DONE]") + last
            case End.ERROR:
                return _frame({"error": {"message": "engine failed", "type": "server_error", "code": 500}}) + last
            case End.GARBAGE:
                return _frame(b'{"id": "chatcmpl-1", "choices": [') + last
            case End.MUTE:
                return last
            case End.HOLD | End.CUT:
                return b""

    def _whole(self, name: str) -> bytes:
        if self.script.status != 200:
            error = {"error": {"message": "refused by the script", "type": "server_error", "code": self.script.status}}
            return _response(self.script.status, orjson.dumps(error))
        message = {"role": "assistant", "content": text_of(self.script.deltas)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        answer = {**_chunk(name, {}), "object": "chat.completion", "choices": [choice]}
        return _response(200, orjson.dumps({**answer, "usage": _usage(self.script.deltas)}))


def _response(status: int, body: bytes) -> bytes:
    head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % (status, b"OK" if status == 200 else b"Refused", len(body)) + body


@dataclass(slots=True)
class Counts:
    connections: int = 0
    streams: int = 0
    started: int = 0
    abandoned: int = 0


class Server:
    """What all connections share. `closings` keeps the newest abandoned streams: their mark, and the monotonic time."""

    def __init__(self) -> None:
        self.recordings = {name.encode(): Recording(name, script) for name, script in SCRIPTS.items()}
        self.counts = Counts()
        self.closings: collections.deque[tuple[int, float]] = collections.deque(maxlen=20_000)
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "bench"} for name in SCRIPTS]
        self.models = _response(200, orjson.dumps({"object": "list", "data": models}))
        self.embedding = _response(200, orjson.dumps(_EMBEDDING))

    def get(self, path: bytes) -> bytes:
        path = path.rstrip(b"/")
        if path.endswith(b"/models"):
            return self.models
        if path == b"/health":
            return _response(200, b"{}")
        if path == b"/counts":
            counts = {name: getattr(self.counts, name) for name in Counts.__slots__}
            return _response(200, orjson.dumps(counts))
        if path == b"/closings":
            return _response(200, orjson.dumps(list(self.closings)))
        return _response(404, b'{"error":{"message":"not found","type":"invalid_request_error"}}')


class Connection(asyncio.Protocol):
    """One client connection; requests one after the other. `_playing` is the stream that goes out now, if any."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._input = bytearray()
        self._needed = 0  # the length of head and body, once the head is known
        self._playing: Recording | None = None
        self._mark: int | None = None
        self._place = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but inheritance
        self._server.counts.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.counts.connections -= 1
        if self._timer is not None:
            self._timer.cancel()
        if self._playing is not None:
            self._server.counts.abandoned += 1
            if self._mark is not None:
                self._server.closings.append((self._mark, time.monotonic()))
            self._ended()

    def data_received(self, data: bytes) -> None:
        self._input += data
        if self._needed == 0:
            head_end = self._input.find(b"\r\n\r\n")
            if head_end < 0:
                return
            found = _LENGTH.search(self._input, 0, head_end)
            self._needed = head_end + 4 + (int(found.group(1)) if found else 0)
            if self._needed > _LARGEST_BODY:
                self._transport.abort()
                return
        if len(self._input) >= self._needed and self._playing is None:
            request = bytes(self._input[: self._needed])
            del self._input[: self._needed]
            self._needed = 0
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        method, path, _ = request.split(b" ", 2)
        if method != b"POST":
            self._transport.write(self._server.get(path))
            return
        found = _MODEL.search(request)
        recording = self._server.recordings.get(found.group(1)) if found else None
        if (
            path.endswith((b"/embeddings", b"/embeddings/"))
            and recording is not None
            and recording.script.status == 200
        ):
            self._transport.write(self._server.embedding)
        elif recording is None:
            self._transport.write(_response(404, b'{"error":{"message":"no such model","code":"model_not_found"}}'))
        elif recording.script.status != 200 or not _STREAM.search(request):
            self._transport.write(recording.whole)
        else:
            marked = _MARK.search(request)
            self._mark = int(marked.group(1)) if marked else None
            self._play(recording)

    def _play(self, recording: Recording) -> None:
        self._server.counts.streams += 1
        self._server.counts.started += 1
        self._playing = recording
        self._place = 0
        if recording.script.gap == 0 and not recording.writes:
            self._transport.write(recording.opening + recording.end)
            self._close(recording.script.end)
            return
        self._transport.write(recording.opening)
        if recording.script.gap == 0:
            self._loop.call_soon(self._burst)
            return
        # Streams that start together drift apart, as those of a real server do.
        self._due = self._loop.time() + recording.script.gap * (1 + self._server.counts.started * 0.618 % 1)
        self._timer = self._loop.call_at(self._due, self._tick)

    def _burst(self) -> None:
        """One write a turn of the loop, so that streams take turns."""
        recording = self._playing
        if recording is None:
            return  # the client left between two turns
        data = recording.writes[self._place]
        self._place += 1
        if self._place < len(recording.writes):
            self._transport.write(data)
            self._loop.call_soon(self._burst)
        else:
            self._transport.write(data + recording.end)
            self._close(recording.script.end)

    def _tick(self) -> None:
        recording = self._playing
        assert recording is not None
        if self._place < len(recording.writes):
            self._transport.write(recording.writes[self._place])
            self._place += 1
            self._due += recording.script.gap
            self._timer = self._loop.call_at(self._due, self._tick)
            return
        self._timer = None
        if recording.end:
            self._transport.write(recording.end)
        self._close(recording.script.end)

    def _close(self, end: End) -> None:
        if end is End.HOLD:
            return
        self._ended()
        if end is End.CUT:
            self._transport.abort()

    def _ended(self) -> None:
        self._playing = None
        self._mark = None
        self._server.counts.streams -= 1


async def main() -> None:
    server = Server()
    listener = await asyncio.get_running_loop().create_server(lambda: Connection(server), "127.0.0.1", 0, backlog=1024)
    async with listener:
        await serve_until_stopped(listener.sockets[0].getsockname()[1])


if __name__ == "__main__":
    run(main())
