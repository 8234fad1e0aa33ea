"""What is measured: the gateway in each protocol, and the two programs beside it that only hand bytes on.

A process may stand for several systems: the gateway speaks all three protocols at once. Gateways of others are in
`bench/peers.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.children import GATEWAY, PASSTHROUGH

PATHS = {"responses": "/v1/responses", "messages": "/v1/messages", "chat": "/v1/chat/completions"}
SPLICE = (sys.executable, "-m", "bench.splice")
# The same command where uvloop seems not to be installed.
ON_ASYNCIO = (
    sys.executable,
    "-c",
    "import sys; sys.modules['uvloop'] = None; from dragoman.gateway.cli import main; sys.exit(main())",
)


@dataclass(frozen=True, slots=True)
class Launch:
    """What a command is made of: the server's URL up to `/v1`, the port to listen on, a folder of the process's own."""

    upstream: str
    port: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Process:
    """`announces`: it prints where it listens; else it is given a port."""

    name: str
    command: Callable[[Launch], Sequence[str]]
    environment: Callable[[Launch], Mapping[str, str]] = lambda launch: {}
    announces: bool = True
    start_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class System:
    """One column of the table. `process` is None for the scripted server itself."""

    key: str
    title: str
    protocol: str
    process: Process | None
    headers: tuple[str, ...] = ()
    ours: bool = True
    main: bool = False
    """Whether it stands for its process in what is measured once per process: memory, streams held, stalls."""

    forwards: bool = False
    """Whether it hands bytes on without a look at them."""

    only: str = ""
    """The one part that it is measured in, where it differs from another system in nothing else."""

    @property
    def compared(self) -> bool:
        """Whether streams of every kind are measured: the pass-through, and the gateway in each protocol."""
        return self.key in ("pass-through", *PATHS)

    @property
    def path(self) -> str:
        return PATHS[self.protocol]


def _serve(command: Sequence[str], *more: str) -> Callable[[Launch], Sequence[str]]:
    return lambda launch: [*command, "serve", "--backend", launch.upstream, "--host", "127.0.0.1", "--port", "0", *more]


def _state(launch: Launch) -> Mapping[str, str]:
    """Answers are kept as they are by default; the clients of the bench ask for none to be."""
    return {"DRAGOMAN_STORE__URL": f"sqlite:{launch.folder / 'answers.db'}"}


def _asking_whole(launch: Launch) -> Mapping[str, str]:
    """The server is asked for an answer in one piece where the client takes it so, which presets of servers decide."""
    backend = {"url": launch.upstream, "settings": {"whole_answers": "always", "max_tokens_default": 1000}}
    return {**_state(launch), "DRAGOMAN_BACKENDS": json.dumps([backend])}


_PASSTHROUGH = Process("pass-through", lambda launch: [*PASSTHROUGH, launch.upstream])
_SPLICE = Process("splice", lambda launch: [*SPLICE, launch.upstream])
_GATEWAY = Process("dragoman", _serve(GATEWAY), _state)
_GATEWAY_WHOLE = Process(
    "dragoman-whole", lambda launch: [*GATEWAY, "serve", "--host", "127.0.0.1", "--port", "0"], _asking_whole
)
_GATEWAY_ASYNCIO = Process("dragoman-asyncio", _serve(ON_ASYNCIO), _state)
_GATEWAY_WORKERS = Process("dragoman-workers", _serve(GATEWAY, "--workers", "2"), _state)

DIRECT = System("direct", "no gateway", "chat", None)
UNIT = System("pass-through", "pass-through", "chat", _PASSTHROUGH, main=True, forwards=True)
GATEWAY_SYSTEM = System("responses", "dragoman, Responses", "responses", _GATEWAY, main=True)
TWO_WORKERS = System("two-workers", "dragoman, Responses, two workers", "responses", _GATEWAY_WORKERS, only="workers")
OURS = (
    DIRECT,
    UNIT,
    System("splice", "splice", "chat", _SPLICE, forwards=True),
    GATEWAY_SYSTEM,
    System("messages", "dragoman, Messages", "messages", _GATEWAY),
    System("chat", "dragoman, Chat", "chat", _GATEWAY),
    System("asyncio", "dragoman, Responses, asyncio's loop", "responses", _GATEWAY_ASYNCIO, main=True),
    System("asked-whole", "dragoman, Responses, asking whole", "responses", _GATEWAY_WHOLE, only="whole"),
    TWO_WORKERS,
)
