"""Clients that mean well: one request after the other, of every kind, and some that leave before the end.

A kind of call and a script of the model server are chosen for each request; sound scripts must complete, of the others
none may. A call is made on a connection of its own and tallied once: by how it ended, or as left.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import aiohttp
import orjson

from bench import bodies
from bench.attack.clients import KEY
from bench.client import Line, Reply, get, post
from bench.soak.endings import TERMINAL, End, NotEnded, ending
from bench.soak.tally import OTHER, Tally

PATIENCE_SECONDS = 30.0
KILL_SECONDS = 3.0  # after a worker was killed, in which answers may end without an end
# How often each script is played; the sound ones first.
STREAMED = {
    "steady": 40,
    "burst": 12,
    "first": 6,
    "cut": 6,
    "mute": 5,
    "error": 5,
    "garbage": 5,
    "hang": 5,
    "silent": 3,
    "busy": 4,
    "broken": 3,
}
WHOLE = {"answer": 8, "busy": 1, "broken": 1}
SOUND = frozenset({"steady", "burst", "first", "answer"})
PATHS = {"responses": "/v1/responses", "messages": "/v1/messages", "chat_completions": "/v1/chat/completions"}
LEAVE_SHARE = 0.3
LARGE_SHARE = 0.03
STORE_DOWN = LEAVING = 503
BY_RELOAD = "WebSockets closed by a reload"
NOT_KEPT = "not kept, and said so"
TURNS = 3  # of a conversation that is kept

Json = dict[str, object]
T = TypeVar("T")


class Leave(Enum):
    """At what stage a client goes."""

    STAYS = "stays"
    AT_ONCE = "before any answer"
    FIRST = "at the first token"
    MIDWAY = "in mid-stream"


@dataclass(frozen=True)
class Client:
    """Who asks: its choices are its own, so that a run can be repeated."""

    url: str
    choices: random.Random
    tally: Tally
    session: aiohttp.ClientSession

    async def run(self, end: float) -> None:
        await asyncio.sleep(self.choices.random())
        while time.monotonic() < end:
            await _chosen(KINDS, self.choices)(self)

    # ---------------------------------------------------------------------------------------------------------- streams

    async def streamed(self) -> None:
        script = _chosen(STREAMED, self.choices)
        leaves = self.choices.random() < LEAVE_SHARE
        leave = self.choices.choice((Leave.AT_ONCE, Leave.FIRST, Leave.MIDWAY)) if leaves else Leave.STAYS
        await self.stream(_chosen(PROTOCOLS, self.choices), script, leave)
        if script not in SOUND:
            await asyncio.sleep(0.2 * self.choices.random())

    async def stream(self, protocol: str, script: str, leave: Leave) -> None:
        mark = self.tally.asked + 1
        body = _body(protocol, script, f"soak-{mark}- Tell me about the court.", stream=True)
        if protocol == "responses" and self.choices.random() < LARGE_SHARE:
            body = bodies.agent_turn(script)
        reply = await self._asked(protocol, post(self.url, PATHS[protocol], body, KEY), leave, mark)
        if reply is None:
            return
        end = End.FAILED
        if reply.status == 200:
            try:
                end = ending(protocol, reply.content())
            except NotEnded as error:
                self.tally.wrong[f"{protocol}, {script}: {error}"] += 1
        self._judge(protocol, script, reply, end)

    async def _asked(
        self, route: str, request: bytes, leave: Leave = Leave.STAYS, mark: int | None = None
    ) -> Reply | None:
        """The whole answer, or None where there is none, which has been tallied. The answer's end is not yet."""
        tally = self.tally
        tally.asked += 1
        try:
            line = await Line.open(self.url)
        except OSError as error:
            tally.wrong[f"no connection: {type(error).__name__}"] += 1
            return None
        try:
            answer = line.begin(request, keep=True)
            await _departure(line, answer, leave, self.choices)
            if not answer.done() and leave is not Leave.STAYS:
                if mark is not None:
                    tally.left[mark] = time.monotonic()
                tally.outcomes[f"left {leave.value}"] += 1
                tally.gone(route, read=line.answering)
                return None
            async with asyncio.timeout(PATIENCE_SECONDS):
                reply = await answer
        except TimeoutError:
            tally.wrong[f"{route}: no end within {PATIENCE_SECONDS:.0f} s"] += 1
            tally.gone(route, read=False)
            return None
        finally:
            line.leave()
        if not reply.whole:
            self._cut(route)
            return None
        return reply

    def _cut(self, route: str) -> None:
        """The connection ended before the answer did; right only where a worker was killed just now."""
        tally = self.tally
        tally.gone(route, read=False)
        if tally.killed_at is not None and time.monotonic() - tally.killed_at < KILL_SECONDS:
            tally.outcomes["cut with their worker"] += 1
        else:
            tally.wrong[f"{route}: the connection ended without the end of the answer"] += 1

    def _judge(self, route: str, script: str, reply: Reply, end: End) -> None:
        detail = reply.content()[:200].decode(errors="replace") if reply.status != 200 else ""
        self._judged(route, script, reply.status, end, detail)

    def _judged(self, route: str, script: str, status: int, end: End, detail: str = "") -> None:
        """Sound scripts are answered; of the others none may be."""
        tally, sound = self.tally, script in SOUND
        tally.ended(route, status, end)
        answered = end is End.ANSWERED
        tally.outcomes["answered" if answered else "failed" if sound else "failed, as it should"] += 1
        if answered is not sound:
            tally.wrong[f"{route}, {script}: status {status}, {end.value} {detail}".rstrip()] += 1

    # ---------------------------------------------------------------------------------------------------- whole answers

    async def whole(self) -> None:
        protocol, script = _chosen(PROTOCOLS, self.choices), _chosen(WHOLE, self.choices)
        await self._whole(protocol, PATHS[protocol], script, _body(protocol, script, "And the court?", stream=False))

    async def embedded(self) -> None:
        script = _chosen(WHOLE, self.choices)
        body = orjson.dumps({"model": script, "input": ["the court", "a letter"]})
        await self._whole("embeddings", "/v1/embeddings", script, body)

    async def counted(self) -> None:
        protocol, below = self.choices.choice((("messages", "count_tokens"), ("responses", "input_tokens")))
        body = _body(protocol, "answer", "How long is it?")
        await self._whole(protocol, f"{PATHS[protocol]}/{below}", "answer", body)

    async def _whole(self, route: str, path: str, script: str, body: bytes, *, storing: bool = False) -> Json:
        """The answer's object; empty where there is none. `storing`: a store that is too slow may refuse it."""
        reply = await self._asked(route, post(self.url, path, body, KEY))
        if reply is None:
            return {}
        if storing and reply.status == STORE_DOWN:
            self.tally.ended(route, reply.status, End.FAILED)
            self.tally.outcomes[NOT_KEPT] += 1
            return {}
        self._judge(route, script, reply, End.ANSWERED if reply.status == 200 else End.FAILED)
        answer: Json = orjson.loads(reply.content())
        return answer if reply.status == 200 else {}

    async def kept(self) -> None:
        """A conversation in the store, each turn after the one before; then its last answer is read again. An answer
        that says that it is not stored ends the conversation."""
        previous: Json = {}
        for _ in range(TURNS):
            body = _body("responses", "answer", "Go on.", stream=False, store=True, **previous)
            answer = await self._whole("responses", PATHS["responses"], "answer", body, storing=True)
            if not answer:
                return
            if answer["previous_response_id"] != previous.get("previous_response_id"):
                self.tally.wrong["kept: another conversation was continued"] += 1
            if answer["store"] is not True:
                self.tally.outcomes[NOT_KEPT] += 1
                return
            previous = {"previous_response_id": answer["id"]}
        known, unknown = previous["previous_response_id"], "resp_of_nobody"
        for id, status in ((known, 200), (unknown, 404)):
            await self._read(f"{PATHS['responses']}/{id}", status)

    async def _read(self, path: str, status: int) -> None:
        """What is read again is no call: only its refusal is counted."""
        reply = await self._asked(OTHER, get(self.url, path, KEY))
        if reply is None:
            return
        if reply.status != 200:
            self.tally.ended(OTHER, reply.status, End.FAILED)
        self.tally.outcomes["read again"] += 1
        if reply.status not in (status, STORE_DOWN):
            self.tally.wrong[f"kept: status {reply.status} instead of {status}"] += 1

    # ------------------------------------------------------------------------------------------------------- WebSockets

    async def socket(self) -> None:
        """Turns on one connection, each after the one before, none of them stored."""
        headers = {"authorization": f"Bearer {KEY}"}
        previous: Json = {}
        try:
            async with self.session.ws_connect(f"{self.url}/v1/responses", headers=headers) as socket:
                for _ in range(TURNS):
                    message = _body("responses", "burst", "Go on.", type="response.create", **previous)
                    self.tally.asked += 1
                    await socket.send_str(message.decode())
                    last = await _terminal(socket)
                    if last is None:
                        self._unanswered(socket.close_code)
                        return
                    self._turn(last)
                    response = last.get("response")
                    previous = {"previous_response_id": response["id"]} if isinstance(response, dict) else {}
        except aiohttp.WSServerHandshakeError as error:
            self._refused(error.status)
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            if self.tally.killed_at is None:
                self.tally.wrong[f"WebSocket: {type(error).__name__}"] += 1

    def _refused(self, status: int) -> None:
        """A connection to the older configuration is refused while that ends; its client is to try again."""
        self.tally.ended(OTHER, status, End.FAILED)
        if status == LEAVING:
            self.tally.outcomes[BY_RELOAD] += 1
        else:
            self.tally.wrong[f"WebSocket: status {status}"] += 1

    def _turn(self, last: Json) -> None:
        status = last["status"] if last["type"] == "error" else 200
        assert isinstance(status, int)
        end = TERMINAL["responses"].get(str(last["type"]).encode(), End.FAILED)
        self._judged("responses", "burst", status, end, str(last.get("error", "")))

    def _unanswered(self, close_code: int | None) -> None:
        """A gateway that has read its configuration again closes connections of the older one between two turns."""
        if close_code == aiohttp.WSCloseCode.GOING_AWAY:
            self.tally.gone("responses", read=False)
            self.tally.outcomes[BY_RELOAD] += 1
        else:
            self._cut("responses")


async def _terminal(socket: aiohttp.ClientWebSocketResponse) -> Json | None:
    """The event that ends a turn; None where the connection ends first."""
    while (message := await socket.receive(PATIENCE_SECONDS)).type is aiohttp.WSMsgType.TEXT:
        event: Json = orjson.loads(message.data)
        kind = str(event["type"])
        if kind == "error" or kind.encode() in TERMINAL["responses"]:
            return event
    return None


async def _departure(line: Line, answer: asyncio.Future[Reply], leave: Leave, choices: random.Random) -> None:
    """Waits for the stage at which this client goes, or for the end of the answer."""
    match leave:
        case Leave.STAYS:
            pass
        case Leave.FIRST:
            await asyncio.wait([answer, line.token], timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        case Leave.MIDWAY:
            await asyncio.wait([answer], timeout=2 * choices.random())
        case Leave.AT_ONCE:
            await asyncio.wait([answer], timeout=0.03 * choices.random())


def _body(protocol: str, script: str, text: str, **more: object) -> bytes:
    asked = {**_asked_in(protocol, text), "model": script, **more}
    return orjson.dumps(asked)


def _asked_in(protocol: str, text: str) -> Json:
    messages = [{"role": "user", "content": text}]
    match protocol:
        case "responses":
            return {"input": text, "store": False}
        case "messages":
            return {"messages": messages, "max_tokens": 1000}
        case _:
            return {"messages": messages}


def _chosen(weights: dict[T, int], choices: random.Random) -> T:
    return choices.choices(tuple(weights), tuple(weights.values()))[0]


PROTOCOLS = {"responses": 2, "messages": 1, "chat_completions": 1}
KINDS: dict[Callable[[Client], Awaitable[None]], int] = {
    Client.streamed: 80,
    Client.whole: 8,
    Client.kept: 2,
    Client.socket: 3,
    Client.embedded: 4,
    Client.counted: 3,
}
