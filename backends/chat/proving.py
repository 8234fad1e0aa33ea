"""The families of a server's models, as its own answers prove them (`markup: probe`).

At start each model is asked twice for a call (`backends.markup.proof`). Rules:

* A family is used for a model only once it is proven, and from then on until the backend is closed. What clients'
  answers hold changes nothing.
* A server that is not there yet, sleeps or fails is asked again later, at growing intervals. It is not woken. One
  that refuses tools is not.
* What was found is logged once for each model, whatever it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from dragoman.backends.background import end, in_background
from dragoman.backends.base import Flow, nothing
from dragoman.backends.markup.proof import Outcome, Proof, prove
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.fold import Fold
from dragoman.translators.ir import Event, Note, Request

log = logging.getLogger(__name__)

PAUSES = (1.0, 5.0, 15.0, 60.0)  # seconds before it is asked again; the last one for ever
AT_START = 60.0  # seconds for which a start waits, so that the first clients' calls are read too
MOST_MODELS = 16
FOUND: Mapping[Outcome, str] = {
    Outcome.SERVER: "the server's own parser reads its calls, so its text is not read for any",
    Outcome.UNREAD: "a call stands in its text, in no form that is known: start the server with its tool parser",
    Outcome.REFUTED: "no family read a second call, so that its text is not read for calls",
    Outcome.SILENT: "it called no tool, so that nothing tells how it writes calls",
}


class FoldSink:
    """A sink that folds an answer, for questions of the gateway's own."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.on_writable: Callable[[], object] = nothing
        self.on_left: Callable[[], object] = nothing

    @property
    def touched(self) -> bool:
        return bool(self.fold.parts)

    def feed(self, events: Sequence[Event]) -> Flow:
        self.fold.feed(events)
        return Flow.MORE

    def prompt_size(self, tokens: int) -> None:
        pass

    def prompt_read(self, tokens: int, total: int) -> None:
        pass

    def at_work(self) -> None:
        pass

    def note(self, note: Note) -> None:
        pass


class ProvenMarkup:
    """`list_models` gives the names of the models to ask, and `send` answers a request into a sink."""

    def __init__(
        self,
        name: str,
        list_models: Callable[[], Awaitable[Collection[str]]],
        send: Callable[[Request, FoldSink], Awaitable[None]],
    ) -> None:
        self._name = name
        self._list_models = list_models
        self._send = send
        self._families: dict[str, str] = {}
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def families(self) -> Mapping[str, str]:
        """By model."""
        return self._families

    async def begin(self) -> None:
        """Returns once each model was asked, or could not be, or has taken too long over it."""
        self._task = in_background(self._run(), f"markup of {self._name}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AT_START):
                await self._tried.wait()

    async def close(self) -> None:
        await end(self._task)

    async def _run(self) -> None:
        waiting: list[str] | None = None
        for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
            if waiting is None:
                waiting = await self._models()
            if waiting is not None:
                waiting = [model for model in waiting if not await self._settle(model)]
            self._tried.set()
            if waiting == []:
                return
            await asyncio.sleep(pause)

    async def _models(self) -> list[str] | None:
        try:
            return list(await self._list_models())[:MOST_MODELS]
        except GatewayError as error:
            log.info("%s: its models cannot be asked yet how they write calls: %s", self._name, error.message)
            return None

    async def _settle(self, model: str) -> bool:
        """False where the server could not be asked."""
        try:
            proof = await prove(self._answer, model)
        except GatewayError as error:
            later = error.kind not in (Kind.INVALID, Kind.UNSUPPORTED)
            message = "%s: %s cannot be asked%s how it writes calls: %s"
            log.warning(message, self._name, model, " yet" if later else "", error.message)
            return not later
        self._report(model, proof)
        return True

    async def _answer(self, request: Request) -> Fold:
        sink = FoldSink()
        await self._send(request, sink)
        return sink.fold

    def _report(self, model: str, proof: Proof) -> None:
        if proof.family is None:
            level = logging.INFO if proof.outcome is Outcome.SERVER else logging.WARNING
            log.log(level, "%s: markup of %s: %s", self._name, model, FOUND[proof.outcome])
            return
        self._families[model] = proof.family
        message = "%s: markup of %s: its calls stand in the text, as two of them have proven; they are read as %s"
        log.warning(message, self._name, model, proof.family)
