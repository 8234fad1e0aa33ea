"""A chat-completions server that plays transcripts, over real sockets.

It stands for every server that we cannot install: each request takes the next `Script` of the queue, which says the
bytes and how they arrive (cut anywhere, delayed, hung, broken off), or a function that looks at the request and returns
one (a scripted model). What was asked and what became of it is recorded in `requests`; waiting for it is `until`, never
a sleep. A request for which no script is left gets a 500 that says so.

It does not check what it is asked: strictness is the tests' affair. As a process it plays one transcript to every
request: `python -m tests.scripted --transcript FILE --port 0` prints its URL.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import signal
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from aiohttp import web

from tests.waiting import LIMIT

Json = dict[str, Any]
Outcome = Literal["open", "completed", "client_gone", "cut", "dropped"]

CHAT = "/v1/chat/completions"
FOREVER = 3600.0


@dataclass(frozen=True, slots=True)
class Script:
    """One answer. Times in seconds, offsets in bytes of the body.

    `split` says how the body is cut into writes: "given" (a list's own elements, or whole), "bytes", "frames" (at each
    blank line), a tuple of offsets, or an int that seeds random cuts. After `cut_at` bytes the connection is closed
    without the end of the body (`reset`: by a TCP reset, which may also destroy what the reader has not read yet);
    `unterminated` does so after the last byte; after `hang_at` bytes nothing more is sent. `drop_reused` closes a
    connection that has served before without a byte, as a server does whose keep-alive ran out; the script stays next.
    With `turns`, each write after the first waits until the test releases one.
    """

    body: bytes | Sequence[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    split: Literal["given", "bytes", "frames"] | tuple[int, ...] | int = "given"
    head_delay: float = 0.0
    first_delay: float = 0.0
    gap: float = 0.0
    cut_at: int | None = None
    reset: bool = False
    unterminated: bool = False
    hang_at: int | None = None
    drop_reused: bool = False
    turns: asyncio.Semaphore | None = None

    @classmethod
    def json(cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Self:
        """A plain JSON answer, for errors and for the other endpoints."""
        return cls(json.dumps(value).encode(), status, {"content-type": "application/json", **(headers or {})})

    def pieces(self) -> list[bytes]:
        """The writes, before `cut_at` and `hang_at`; none is empty."""
        whole = self.body if isinstance(self.body, bytes) else b"".join(self.body)
        if self.split == "given":
            return [whole] if isinstance(self.body, bytes) else [bytes(piece) for piece in self.body if piece]
        if self.split == "bytes":
            return [whole[at : at + 1] for at in range(len(whole))]
        if self.split == "frames":
            return frames(whole)
        if isinstance(self.split, int):
            chance = random.Random(self.split)
            offsets = sorted(chance.sample(range(1, max(len(whole), 2)), min(8, max(len(whole) - 1, 1))))
        else:
            offsets = sorted(self.split)
        edges = [0, *offsets, len(whole)]
        return [whole[start:end] for start, end in itertools.pairwise(edges) if whole[start:end]]


Play = Script | Callable[[Json], Script]


@dataclass(slots=True, eq=False)
class Seen:
    """A request and what became of it. Times are the loop's; `body` is None where it was not a JSON object."""

    method: str
    path: str
    headers: Mapping[str, str]
    raw: bytes
    body: Json | None
    connection: int
    reused: bool
    arrived: float
    outcome: Outcome = "open"
    ended: float | None = None
    chunks: int = 0
    sent: int = 0


class ScriptedServer:
    """`async with ScriptedServer(script, ...) as server:` then ask `server.url`; `server.add` queues more."""

    def __init__(
        self,
        *scripts: Play,
        default: Play | None = None,
        port: int = 0,
        models: Sequence[str] = ("m",),
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.queue: deque[Play] = deque(scripts)
        self.default = default
        self.requests: list[Seen] = []
        self.port = port
        self.host = host
        self.tls = tls
        self.routes: dict[tuple[str, str], Play] = {("GET", "/health"): Script()}
        self.on("GET", "/v1/models", model_list(*models))
        self.on("GET", "/is_sleeping", Script.json({"is_sleeping": False}))
        self._connections: dict[int, asyncio.Transport] = {}
        self._changed = asyncio.Event()
        self._closing = False
        self._runner: web.AppRunner | None = None

    @property
    def root(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def chats(self) -> list[Seen]:
        """The requests for chat completions, without probes of health or models."""
        return [seen for seen in self.requests if seen.path == CHAT]

    @property
    def connections(self) -> int:
        """How many connections were ever made."""
        return len(self._connections)

    def add(self, *scripts: Play) -> None:
        self.queue.extend(scripts)

    def on(self, method: str, path: str, play: Play) -> None:
        """Answer this path (from the root: `/health`, `/tokenize`, `/v1/models`) always with `play`."""
        self.routes[method, path] = play

    async def until(self, happened: Callable[[], bool], within: float = LIMIT) -> None:
        """Wait for a condition on `requests`; TimeoutError when it does not come true."""
        async with asyncio.timeout(within):
            while not happened():
                await self._changed.wait()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=256 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        self.port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener, ssl_context=self.tls).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing = True
        if self._runner is not None:
            await self._runner.cleanup()

    def _change(self) -> None:
        # whoever waits now is woken; whoever looks later waits for the next change
        self._changed.set()
        self._changed = asyncio.Event()

    def _end(self, seen: Seen, outcome: Outcome) -> None:
        seen.outcome, seen.ended = outcome, asyncio.get_running_loop().time()
        self._change()

    async def _record(self, request: web.Request) -> Seen:
        transport = request.transport
        assert transport is not None
        reused = id(transport) in self._connections
        # kept for the server's life, so that no later connection can have the same id
        self._connections[id(transport)] = transport
        number = list(self._connections).index(id(transport))
        raw = await request.read()
        body: object = None
        with contextlib.suppress(ValueError):
            body = json.loads(raw)
        parsed = body if isinstance(body, dict) else None
        now = asyncio.get_running_loop().time()
        seen = Seen(request.method, request.path, request.headers.copy(), raw, parsed, number, reused, now)
        self.requests.append(seen)
        self._change()
        return seen

    def _next(self, seen: Seen) -> Script:
        play = self.routes.get((seen.method, seen.path))
        if play is None and seen.path != CHAT:
            return Script.json({"detail": "Not Found"}, 404)
        if play is None and self.queue:
            first = self.queue[0]
            if not (isinstance(first, Script) and first.drop_reused and seen.reused):
                self.queue.popleft()
            play = first
        play = play or self.default
        if play is None:
            return Script.json({"error": {"message": "the scripted server has no script left"}}, 500)
        return play if isinstance(play, Script) else play(seen.body or {})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        seen = await self._record(request)
        response = web.StreamResponse()
        try:
            script = self._next(seen)
            if script.drop_reused and seen.reused:
                self._end(seen, "dropped")
                _break(request, reset=False)
                return response
            response.set_status(script.status)
            return await self._play(request, response, script, seen)
        except (asyncio.CancelledError, ConnectionResetError):
            if not self._closing and seen.outcome == "open":
                self._end(seen, "client_gone")
            raise

    async def _play(
        self, request: web.Request, response: web.StreamResponse, script: Script, seen: Seen
    ) -> web.StreamResponse:
        pieces = script.pieces()
        response.headers["content-type"] = "text/event-stream"
        response.headers.update(script.headers)
        if response.headers["content-type"] == "application/json" and "transfer-encoding" not in response.headers:
            response.content_length = sum(map(len, pieces))
        await _pause(script.head_delay)
        await response.prepare(request)
        await _pause(script.first_delay)
        for piece in pieces:
            if seen.chunks:
                await asyncio.sleep(script.gap)
                if script.turns is not None:
                    await script.turns.acquire()
            stops = [stop for stop in (script.cut_at, script.hang_at) if stop is not None]
            part = piece[: max(min(stops) - seen.sent, 0)] if stops else piece
            if part:
                await response.write(part)
                seen.chunks, seen.sent = seen.chunks + 1, seen.sent + len(part)
                self._change()
            if stops and seen.sent >= min(stops):
                break
        if script.hang_at is not None and script.hang_at <= seen.sent:
            await asyncio.sleep(FOREVER)
        if script.cut_at is not None or script.unterminated:
            self._end(seen, "cut")
            _break(request, reset=script.reset)
            return response
        await response.write_eof()
        self._end(seen, "completed")
        return response


async def _pause(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)


def _break(request: web.Request, *, reset: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    if reset:
        # lingering for 0 s makes the kernel send a reset in place of an orderly end
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.close()


def model_list(*names: str, **extra: object) -> Script:
    data = [{"id": name, "object": "model", "created": 1700000000, "owned_by": "scripted", **extra} for name in names]
    return Script.json({"object": "list", "data": data})


def frames(body: bytes) -> list[bytes]:
    """The body cut after each blank line."""
    parts = body.split(b"\n\n")
    return [part + b"\n\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def usage(prompt: int = 11, completion: int = 7, cached: int | None = None, reasoning: int | None = None) -> Json:
    counts: Json = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    if cached is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning is not None:
        counts["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return counts


def chunk(
    delta: Json | None, finish: str | None = None, usage: Json | None = None, *, index: int = 0, **extra: object
) -> Json:
    """A `chat.completion.chunk`; `delta=None` makes one without choices, as for the usage."""
    choices = [] if delta is None else [{"index": index, "delta": delta, "finish_reason": finish}]
    head: Json = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m"}
    return {**head, "choices": choices, **({"usage": usage} if usage is not None else {}), **extra}


def call_delta(index: int, name: str | None = None, arguments: str | None = None, id: str | None = None) -> Json:
    """The delta of one tool call; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    call: Json = {"index": index, **({"id": id, "type": "function"} if id is not None else {}), "function": function}
    return {"tool_calls": [call]}


def sse(*objects: Json | str, done: bool = True) -> bytes:
    """One `data:` frame for each object (a string goes out as it is), then `[DONE]`."""
    texts = [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in objects]
    return "".join(f"data: {text}\n\n" for text in [*texts, *(["[DONE]"] if done else [])]).encode()


def text_stream(
    *pieces: str, reasoning: Sequence[str] = (), finish: str = "stop", counts: Json | None = None, done: bool = True
) -> bytes:
    """A plain answer, a chunk for each piece; the usage stands in a chunk of its own."""
    deltas = [{"reasoning_content": thought} for thought in reasoning] + [{"content": piece} for piece in pieces]
    chunks = [chunk({"role": "assistant"}), *map(chunk, deltas), chunk({}, finish)]
    return sse(*chunks, chunk(None, usage=counts or usage()), done=done)


def call_stream(
    *calls: tuple[str, str], text: str = "", finish: str = "tool_calls", counts: Json | None = None, done: bool = True
) -> bytes:
    """Tool calls of (name, arguments), one after another, the arguments in two pieces; perhaps text before them."""
    chunks = [chunk({"role": "assistant"}), *([chunk({"content": text})] if text else [])]
    for index, (name, arguments) in enumerate(calls):
        half = len(arguments) // 2
        chunks.append(chunk(call_delta(index, name, "", f"call_{index}")))
        chunks += [chunk(call_delta(index, arguments=part)) for part in (arguments[:half], arguments[half:]) if part]
    return sse(*chunks, chunk({}, finish), chunk(None, usage=counts or usage()), done=done)


async def _serve(script: Script, port: int, models: Sequence[str]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ScriptedServer(default=script, port=port, models=models) as server:
        print(server.url, flush=True)
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Play one transcript to every request for chat completions.")
    parser.add_argument("--transcript", type=Path, required=True, help="the body of a streamed answer")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument("--gap", type=float, default=0.0, help="seconds between frames")
    parser.add_argument("--model", action="append", help="a name for /v1/models; may be repeated")
    options = parser.parse_args(arguments)
    script = replace(Script(options.transcript.read_bytes(), split="frames"), gap=options.gap)
    asyncio.run(_serve(script, options.port, options.model or ["m"]))


if __name__ == "__main__":
    main()
