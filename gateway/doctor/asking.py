"""One question of a probe: it goes the way of every call, with a time limit, and comes back whole or as the reason."""

from __future__ import annotations

import asyncio
import secrets
import time

from dragoman.backends.chat.backend import IN_TURNS
from dragoman.gateway.doctor.probe_stream import ProbeStream
from dragoman.gateway.doctor.road import Road
from dragoman.gateway.doctor.words import Words
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Message, Request, Role, Sampling, Text

LIMIT = 120.0  # seconds for one question
TOKENS = 1024  # of an answer: models that think first need some hundreds before they call a tool


class Asker:
    """Asks one model on one backend. `plain` is the answer to the first question, which later probes read.
    `calls_tools`: whether a tool was called. `refused` grows with the parameters that the server refuses by name."""

    def __init__(self, road: Road, model: str, words: Words) -> None:
        self.road = road
        self.model = model
        self._words = words
        self.plain: ProbeStream | None = None
        self.calls_tools = False
        self.refused: set[str] = set()
        self.error: GatewayError | None = None  # of the last question
        self.seconds = 0.0  # from the last question to the first event of its answer

    def on(self, road: Road) -> Asker:
        """The same questions on another road, with what is known already."""
        other = Asker(road, self.model, self._words)
        other.plain, other.calls_tools = self.plain, self.calls_tools
        return other

    @property
    def blamed(self) -> bool:
        """Whether the server found fault with the last question, and not with its own state."""
        return self.error is not None and self.error.kind in (Kind.INVALID, Kind.BACKEND_FAILED, Kind.UNSUPPORTED)

    def request(self, *messages: tuple[Role, str], max_tokens: int = TOKENS) -> Request:
        return Request(
            id=secrets.token_hex(16),
            model=self.model,
            messages=tuple(Message(role, (Text(text),)) for role, text in messages),
            max_tokens=max_tokens,
            sampling=Sampling(temperature=0.0),
        )

    async def ask(self, request: Request, limit: float = LIMIT) -> ProbeStream | GatewayError:
        """The answer, or why there is none."""
        answer, self.error, began = ProbeStream(), None, time.monotonic()
        self._words.forget()
        call = self.road.call(request, answer)
        try:
            async with asyncio.timeout(limit):
                await self.road.walk(call)
        except GatewayError as error:
            self.error = error
        except TimeoutError:
            self.error = GatewayError(Kind.TIMEOUT, f"no answer within {limit:g} s")
        finally:
            late = call.answer.late_notes() if call.answer is not None else []
            answer.refused = frozenset(note.name for note in late if note.kind == "field")
            self.refused |= answer.refused
            answer.in_turns = IN_TURNS in late
        answer.notes += call.notes
        self.seconds = (answer.first or time.monotonic()) - began
        return self.error or answer

    def reason(self, error: GatewayError) -> str:
        """With the server's own words, where the message has none of them."""
        said, refused = self._words.last, "The model server refused the request: "
        if error.message.startswith(refused):
            return f"refused: {error.message.removeprefix(refused)}"
        if not said or error.source != "backend" or said[-40:] in error.message:
            return error.message
        return f"{error.message.rstrip('.')}: {said}"
