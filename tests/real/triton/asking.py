"""What the tests against the real Triton share: backends by URL, requests that steer a stand-in, and waiting."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from dragoman.backends.reader import Timeouts
from dragoman.backends.registry import Options, open_backend
from dragoman.backends.triton.backend import Triton as TritonBackend
from dragoman.translators.ir import Message, Request, Text, Tool
from tests.real.triton.server import Triton

PATIENT = Timeouts(connect=2.0, first=60.0, between=30.0)  # as many other tests run beside
WEATHER = Tool("get_weather", "The weather in a city.", {"type": "object", "properties": {"city": {"type": "string"}}})
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "%s"}}\n</tool_call>'

_ids = itertools.count(1)


def url(server: Triton, transport: str, model: str, tokenizer: Path, **query: str) -> str:
    port = server.grpc if transport == "grpc" else server.http
    asked = {"tokenizer": str(tokenizer), "metrics": f"http://127.0.0.1:{server.metrics}/metrics", **query}
    return f"triton+{transport}://127.0.0.1:{port}/{model}?" + "&".join(f"{k}={v}" for k, v in asked.items())


@contextlib.asynccontextmanager
async def opened(address: str, timeouts: Timeouts = PATIENT, **settings: Any) -> AsyncIterator[TritonBackend]:
    backend = open_backend(address, Options(timeouts=timeouts, settings=settings))
    assert isinstance(backend, TritonBackend)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


def request(script: dict[str, Any], **fields: Any) -> Request:
    """`script` is what the stand-in does (`standins.script`)."""
    told = f"SCRIPT{json.dumps(script, ensure_ascii=False)}END"
    fields.setdefault("messages", (Message("user", (Text(told),)),))
    fields.setdefault("max_tokens", 1000)
    return Request(id=f"test{next(_ids)}_{time.monotonic_ns()}", model="any", **fields)
