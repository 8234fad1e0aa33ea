"""The stage for web search: a model that asks for one gets it, and is asked again with what was found.

One answer is then several turns of the model. Each is a sink around the answer: what comes before a turn's first search
goes on to the client at once; the searches run when the turn has ended, one after the other, and calls of the client's
own tools end the answer as always. What a model writes after it has asked for a search, and before it has the results,
is left out and noted. The number of searches is bounded; once it is used up, the model is asked a last time without
tools. Usage is the sum of the turns. Keepalives flow meanwhile, and a client that leaves ends the search as it ends the
backend's work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from dragoman.backends.base import MORE, Flow, Sink
from dragoman.backends.usage import total
from dragoman.gateway.calls.answer import Answer
from dragoman.gateway.calls.call import Call
from dragoman.gateway.calls.search_client import SearchClient
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.translators.fold import Fold
from dragoman.translators.ir import (
    Delta,
    Deltas,
    Event,
    Finished,
    Message,
    Note,
    PartEnded,
    PartStarted,
    Reasoning,
    Refusal,
    Request,
    SearchEnded,
    SearchStarted,
    Started,
    StopReason,
    Text,
    ToolCall,
    Usage,
    WebSearch,
)
from dragoman.translators.web_search import SearchCount, call_of, query_of, result_of, shown

Ask = Callable[[Request, Sink], Awaitable[None]]
CUT = Note("drop", "cut_search")
TOO_EARLY = Note("drop", "after_search")
TOO_MANY = Note("drop", "web_search")


class ModelTurn:
    """One turn of the model as a sink. `before` are the parts that went on; from the first search on, everything is
    only in `fold`. `over`: the turn was the last one, and its end went on with the rest."""

    def __init__(self, outer: Sink, tool: str, usages: Sequence[Usage | None]) -> None:
        self.fold = Fold()
        self.before: int | None = None
        self.over = False
        self.touched = False  # of this turn: until then it may be asked for elsewhere
        self.note: Callable[[Note], None] = outer.note
        self.prompt_read = outer.prompt_read
        self.at_work = outer.at_work
        self._outer = outer
        self._tool = tool
        self._usages = usages

    @property
    def on_writable(self) -> Callable[[], object]:
        return self._outer.on_writable

    @on_writable.setter
    def on_writable(self, callback: Callable[[], object]) -> None:
        self._outer.on_writable = callback

    @property
    def on_left(self) -> Callable[[], object]:
        return self._outer.on_left

    @on_left.setter
    def on_left(self, callback: Callable[[], object]) -> None:
        self._outer.on_left = callback

    def prompt_size(self, tokens: int) -> None:
        """The answer's prompt is that of the first turn."""
        if not self._usages:
            self._outer.prompt_size(tokens)

    def feed(self, events: Sequence[Event]) -> Flow:
        self.touched = self.touched or bool(events)
        if self.before is None and all(type(event) in (Delta, Deltas) for event in events):  # nearly always
            self.fold.feed(events)
            return self._outer.feed(events)
        passed: list[Event] = []
        for event in events:
            if self.before is None and type(event) is PartStarted and event.kind == "call" and event.name == self._tool:
                self.before = len(self.fold.parts)
            self.fold.feed([event])
            if self.before is None and (type(event) is not Started or not self._usages):
                passed.append(self._end(event) if type(event) is Finished else event)
        return self._outer.feed(passed) if passed else MORE

    def _end(self, event: Finished) -> Finished:
        self.over = True
        return Finished(event.reason, total([*self._usages, event.usage]), event.stop_sequence)


class SearchStage:
    def __init__(self, client: SearchClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics

    async def answer(self, call: Call, request: Request, wanted: WebSearch, sink: Answer, ask: Ask) -> None:
        """Feeds `sink` with the whole answer. Raises what `ask` raises."""
        usages: list[Usage | None] = []
        count = SearchCount(request.messages)
        while True:
            turn = ModelTurn(sink, wanted.tool, usages)
            await ask(request, turn)
            finished = turn.fold.finished
            if finished is None or turn.over:  # the receiver left, or has it all
                return
            usages.append(finished.usage)
            made = _Searches(request, wanted.tool, turn, count)
            await self._run(call, made, wanted, sink)
            following = made.following(finished)
            if not isinstance(following, Request):
                sink.feed([Finished(following, total(usages), finished.stop_sequence)])
                return
            request = following

    async def alone(self, call: Call, query: str, wanted: WebSearch, sink: Answer) -> None:
        """The answer is one search, and no model is asked."""
        sink.feed([Started(), SearchStarted(query)])
        ended = await self._search(call, query, wanted)
        said: list[Event] = []
        if ended.error is None:
            said = [PartStarted("text"), Delta(shown(ended)), PartEnded()]
        sink.feed([ended, *said, Finished(StopReason.STOP, Usage(0, 0))])

    async def _run(self, call: Call, made: _Searches, wanted: WebSearch, sink: Answer) -> None:
        """What the turn kept, in its order: searches are run, calls of the client's tools go on to it."""
        most = self._client.most if wanted.most is None else min(wanted.most, self._client.most)
        for part, complete in made.kept():
            if not isinstance(part, ToolCall):
                if part.text.strip():
                    sink.note(TOO_EARLY)
            elif part.name != wanted.tool:
                made.calls = True
                arguments = [Delta(part.arguments)] if part.arguments else []
                sink.feed([PartStarted("call", part.id, part.name), *arguments, PartEnded(complete)])
            elif not complete:
                sink.note(CUT)
            elif made.refused or made.exhausted or (made.calls and made.one_call):
                sink.note(TOO_MANY)
            else:
                query = query_of(part.arguments)
                sink.feed([SearchStarted(query)])
                made.refused = call.searches.total() >= most
                ended = await self._search(call, query, wanted) if not made.refused else self._refused(call)
                sink.feed([ended])
                made.add(query, ended)

    async def _search(self, call: Call, query: str, wanted: WebSearch) -> SearchEnded:
        loop = asyncio.get_running_loop()
        begun, outcome = loop.time(), "left"
        span = call.span.child("web_search") if call.span is not None else None
        try:
            ended = await self._client.search(query, wanted)
            outcome = ended.error or ("found" if ended.results else "nothing_found")
            return ended
        finally:
            seconds = loop.time() - begun
            call.search_seconds += seconds
            self._metrics.search_seconds.observe(seconds)
            self._count(call, outcome)
            if span is not None:
                span.set({"dragoman.outcome": outcome})
                span.end(failure=outcome if outcome == "unavailable" else None)

    def _refused(self, call: Call) -> SearchEnded:
        self._count(call, "max_uses_exceeded")
        return SearchEnded(error="max_uses_exceeded")

    def _count(self, call: Call, outcome: str) -> None:
        call.searches[outcome] += 1
        self._metrics.searches.labels(outcome).inc()


class _Searches:
    """The searches of one turn of the model, and the request for the turn that follows them. `refused`: there was one
    more than are allowed; `exhausted`: that has been so before; `calls`: a tool of the client's was called too, and
    `one_call`: then nothing else may be."""

    def __init__(self, request: Request, tool: str, turn: ModelTurn, count: SearchCount) -> None:
        assert turn.before is not None
        self.refused = False
        self.exhausted = request.tool_choice == "none"
        self.calls = any(isinstance(part, ToolCall) for part in turn.fold.parts[: turn.before])
        self.one_call = not request.parallel_tool_calls
        self._request = request
        self._tool = tool
        self._fold = turn.fold
        self._before = turn.before
        self._ids = count
        self._turns: list[Message] = []

    def kept(self) -> list[tuple[Text | Refusal | Reasoning | ToolCall, bool]]:
        """The parts from the first search on, each with whether it is complete."""
        parts = enumerate(self._fold.parts)
        return [(part, place not in self._fold.cut) for place, part in parts if place >= self._before]

    def add(self, query: str, ended: SearchEnded) -> None:
        id = self._ids.next()
        before = () if self._turns else self._fold.parts[: self._before]
        call = call_of(id, self._tool, query)
        self._turns += [Message("assistant", (*before, call)), result_of(id, shown(ended))]

    def following(self, finished: Finished) -> Request | StopReason:
        """The request with what was found, or why the answer ends here."""
        if self.calls or not self._turns or finished.reason is not StopReason.STOP:
            return finished.reason
        request, left = self._request, self._request.max_tokens
        if left is not None and finished.usage is not None:
            left -= finished.usage.output
            if left < 1:
                return StopReason.LENGTH
        return replace(
            request,
            messages=_continued(request, self._turns),
            tool_choice="none" if self.refused else "auto",
            max_tokens=left,
            prefill=False,
        )


def _continued(request: Request, turns: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation with what has come. What the client wrote of the answer is part of the first turn."""
    if not request.prefill:
        return (*request.messages, *turns)
    written, first = request.messages[-1].parts, turns[0].parts
    if isinstance(last := written[-1], Text) and isinstance(first[0], Text):
        written, first = (*written[:-1], Text(last.text + first[0].text)), first[1:]
    return (*request.messages[:-1], Message("assistant", (*written, *first)), *turns[1:])
