"""A Triton backend without a server: a client that answers what a test says, and a model whose tokens are letters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Model
from tokenizers import decoders, models

from dragoman.backends.prompts.prompt import Prompt
from dragoman.backends.prompts.template import ChatTemplate
from dragoman.backends.prompts.tokenizer import Tokenizer
from dragoman.backends.reader import Timeouts
from dragoman.backends.triton.address import Address
from dragoman.backends.triton.backend import Triton
from dragoman.backends.triton.client import Config, InferRequest, Metadata, ModelState, Outputs
from dragoman.backends.triton.model_files import ModelFiles
from dragoman.backends.triton.settings import prompt_settings
from dragoman.translators.errors import GatewayError

WINDOW = 2048
END = 200
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ tools | tojson if tools }}assistant:"
INPUTS = {"input_ids": "INT32", "input_lengths": "INT32", "request_output_len": "INT32", "streaming": "BOOL"}


def letters() -> Tokenizer:
    model = Model(models.BPE({chr(code): code for code in range(10, 127)}, []))
    model.decoder = decoders.Fuse()
    return Tokenizer(model, [END])


@dataclass
class Engine:
    """The client of an engine whose answers are these texts, one after another, each with an end token, or hanging
    instead of it; `stopping` lets it stop a request. `trouble` is its answer to everything while it is set. `calls` and
    `stops` are what it was asked, `open_calls` how many requests are open on the wire."""

    answers: list[str]
    hangs: bool = False
    stop_error: Exception | None = None
    stopping: asyncio.Event | None = None
    trouble: GatewayError | None = None
    decoupled: bool = True
    calls: list[InferRequest] = field(default_factory=list)
    stops: list[InferRequest] = field(default_factory=list)
    open_calls: int = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def ready(self, model: str) -> bool:
        if self.trouble is not None:
            raise self.trouble
        return True

    async def index(self) -> list[ModelState]:
        return []

    async def load(self, model: str) -> None: ...

    async def describe(self, model: str) -> tuple[Metadata, Config]:
        config = {
            "model_transaction_policy": {"decoupled": self.decoupled},
            "parameters": {"max_seq_len": {"string_value": str(WINDOW)}},
        }
        outputs = {"output_ids": "INT32", "sequence_length": "INT32"}
        return Metadata(model, {**INPUTS, "stop": "BOOL"}, outputs, batched=False), config

    @contextlib.asynccontextmanager
    async def open(self, call: InferRequest) -> AsyncIterator[AsyncIterator[list[Outputs]]]:
        if "stop" in call.inputs:
            self.stops.append(call)
            if self.stopping is not None:
                await self.stopping.wait()
            if self.stop_error is not None:
                raise self.stop_error
            yield _batches([])
            return
        if self.trouble is not None:
            raise self.trouble
        self.calls.append(call)
        self.open_calls += 1
        try:
            yield self._answer([*map(ord, self.answers.pop(0))])
        finally:
            self.open_calls -= 1

    async def _answer(self, ids: Sequence[int]) -> AsyncIterator[list[Outputs]]:
        async for batch in _batches(ids):
            yield batch
        if self.hangs:
            await asyncio.Event().wait()
        async for batch in _batches([END]):
            yield batch

    @property
    def limits(self) -> list[Any]:
        return [call.inputs["request_output_len"].values[0] for call in self.calls]


async def _batches(ids: Sequence[int]) -> AsyncIterator[list[Outputs]]:
    for id in ids:
        yield [{"output_ids": [id], "sequence_length": [1]}]


def serving(engine: Engine, timeouts: Timeouts | None = None) -> Triton:
    settings = prompt_settings({})
    template, tokenizer = ChatTemplate(TEMPLATE), letters()
    files = ModelFiles(template, tokenizer, Prompt(settings, template, tokenizer), "plain")
    address = Address("grpc", "host:8001", "engine", Path())
    return Triton(address, engine, lambda: files, settings=settings, timeouts=timeouts)
