"""The way of a probe: the phases that every call walks, in a gateway that has one server alone.

So a probe meets what a client would: the model's name is looked up, the gate waits for a start, images, tools and
schemas are prepared, the answer is fitted into the window, and it is read, folded and ended as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dragoman.backends.base import Backend, ModelInfo
from dragoman.gateway.calls.admission import Admission
from dragoman.gateway.calls.answer import Answer
from dragoman.gateway.calls.call import Call
from dragoman.gateway.calls.health import Gate
from dragoman.gateway.calls.images import Images
from dragoman.gateway.calls.model_table import Models
from dragoman.gateway.calls.phases import Phases
from dragoman.gateway.config import BackendConfig, Config
from dragoman.gateway.doctor.probe_stream import ProbeStream
from dragoman.gateway.factory import as_groups
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Request
from dragoman.translators.protocol import Turn


class Road:
    """`start` raises where the server's backend cannot be started; `window` is the configured one,
    `first_event` the seconds that clients wait for the first event."""

    def __init__(self, backend: Backend, config: Config | None = None, given: BackendConfig | None = None) -> None:
        config = config or Config()
        alone = config.model_copy(update={"backends": (given,) if given else config.named_backends[:1], "models": ()})
        metrics = Metrics()
        (self._group,) = as_groups(alone, [backend])
        self.backend = backend
        self.window = given.window if given is not None else None
        self._gate = Gate([self._group], metrics, alone.timeouts)
        self._models = Models(alone, [self._group])
        self._images = Images(alone.images, total=alone.limits.body_bytes)
        self._phases = Phases(self._models, self._gate, self._images, Admission(alone.admission, metrics))
        self.first_event = alone.timeouts.first_event
        self._start_limit = alone.timeouts.start

    async def start(self) -> None:
        await self._gate.start()
        if not await self._group.started(self._start_limit):
            if (error := self._group.start_error) is not None:
                raise error
            raise GatewayError(Kind.TIMEOUT, f"it has not started within {self._start_limit:g} s")

    async def close(self) -> None:
        await self._models.close()
        await self._images.close()
        await self._gate.close()

    async def listed(self) -> Sequence[ModelInfo]:
        try:
            return await self.backend.models()
        except GatewayError:
            return []

    def call(self, request: Request, stream: ProbeStream) -> Call:
        """A call that is answered into `stream`, by this task."""
        task = asyncio.current_task()
        assert task is not None
        now = asyncio.get_running_loop().time()
        call = Call("doctor", "", request.id, request.id, now, give_up=task.cancel, request=request)
        call.answer = Answer(Turn(request, False, stream), call.give_up)
        return call

    async def walk(self, call: Call) -> None:
        """To the end of the answer; returns early if the call is ended."""
        await self._prepare(call)
        await self._phases.fit(call)
        async with self._phases.place(call):
            await self._phases.answer(call)

    async def count(self, request: Request) -> int | None:
        """The size of the prompt, None where nobody counts it."""
        call = self.call(request, ProbeStream())
        await self._prepare(call)
        await self._phases.count(call)
        return None if call.estimates else call.tokens

    async def _prepare(self, call: Call) -> None:
        await self._phases.route(call)
        await self._phases.inline(call)
        await self._phases.prepare(call)
