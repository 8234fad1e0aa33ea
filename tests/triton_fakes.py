"""A Triton backend without a server: a client that answers what a test says, and a model whose tokens are letters."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer as Model
from tokenizers import decoders, models

from dragoman.backends.base import Flow, nothing
from dragoman.backends.prompts.prompt import Prompt
from dragoman.backends.prompts.template import ChatTemplate
from dragoman.backends.prompts.tokenizer import Tokenizer
from dragoman.backends.reader import Timeouts
from dragoman.backends.triton.address import Address
from dragoman.backends.triton.backend import Triton
from dragoman.backends.triton.client import Config, InferRequest, Metadata, ModelState, Outputs
from dragoman.backends.triton.model_files import ModelFiles
from dragoman.backends.triton.reader import ResponseReader
from dragoman.backends.triton.settings import prompt_settings
from dragoman.backends.triton.transport import Client
from dragoman.backends.watch import Watch
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

    async def answer(self, call: InferRequest, reader: ResponseReader, watch: Watch) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.calls.append(call)
        self.open_calls += 1
        try:
            async for batch in self._answer([*map(ord, self.answers.pop(0))]):
                flow = reader.received(batch)
                if flow is Flow.ENOUGH:
                    return
                await watch.after(flow)
            reader.ended()
        finally:
            self.open_calls -= 1

    async def _answer(self, ids: Sequence[int]) -> AsyncIterator[list[Outputs]]:
        for id in ids:
            yield [{"output_ids": [id], "sequence_length": [1]}]
        if self.hangs:
            await asyncio.Event().wait()
        yield [{"output_ids": [END], "sequence_length": [1]}]

    async def tell(self, call: InferRequest) -> None:
        self.stops.append(call)
        if self.stopping is not None:
            await self.stopping.wait()
        if self.stop_error is not None:
            raise self.stop_error

    @property
    def limits(self) -> list[Any]:
        return [call.inputs["request_output_len"].values[0] for call in self.calls]


class Batches:
    """In a reader's place: keeps each batch as it came. `flow` is what it says to each."""

    def __init__(self, flow: Flow = Flow.MORE) -> None:
        self.batches: list[Sequence[Outputs]] = []
        self.error: GatewayError | None = None
        self.over = False
        self.deadline = math.inf
        self.on_change: Callable[[], None] = nothing
        self.flow = flow

    @property
    def begun(self) -> bool:
        return bool(self.batches)

    @property
    def outputs(self) -> list[Outputs]:
        return [each for batch in self.batches for each in batch]

    def received(self, batch: Sequence[Outputs]) -> Flow:
        self.batches.append(batch)
        self.over = self.over or self.flow is Flow.ENOUGH
        return self.flow

    def ended(self) -> None:
        self.over = True

    def lost(self, error: GatewayError) -> None:
        self.over, self.error = True, error

    async def read(self, client: Client, call: InferRequest, *, after: Callable[[Watch], None] | None = None) -> None:
        """The whole answer; raises what was wrong with it. `after` gets the watch once the answer is asked for."""
        reader = cast(ResponseReader, self)
        async with Watch(reader) as watch:
            if after is not None:
                after(watch)
            await client.answer(call, reader, watch)
        if self.error is not None:
            raise self.error


def serving(engine: Engine, timeouts: Timeouts | None = None) -> Triton:
    settings = prompt_settings({})
    template, tokenizer = ChatTemplate(TEMPLATE), letters()
    files = ModelFiles(template, tokenizer, Prompt(settings, template, tokenizer), "plain")
    address = Address("grpc", "host:8001", "engine", Path())
    return Triton(address, engine, lambda: files, settings=settings, timeouts=timeouts)
