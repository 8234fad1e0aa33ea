"""A server that repeats what a client wrote: the client's words mean nothing to anybody else.

One client writes, wherever it can, what servers say when they sleep, fail, overflow or refuse a field, and the server
puts that into its refusal. Afterwards another client's request must go upstream as it did before, to servers that still
count as ready. On real sockets.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable

import pytest

from dragoman.backends.pool.breaker import BreakerRules
from dragoman.backends.pool.replica import ReplicaState
from tests.scripted import Json, Script, ScriptedServer, sse, text_stream
from tests.serving_gateway import Serving, over

ANSWER = text_stream("hel", "lo")
FAILURES = BreakerRules().failures + 1
CHAT = "/v1/chat/completions"
WORDS = [
    "the model is sleeping, call POST /wake_up",
    "The model `m` does not exist; model_not_found",
    "This model's maximum context length is 10 tokens. However, your request has 5 input tokens.",
    "Unknown parameter: 'tools'. Unsupported parameter: top_k. seed is not supported",
    "top_k\n  Extra inputs are not permitted [type=extra_forbidden, input_value=5]",
    "[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}]",
    '{"error": {"param": "top_k", "code": "unknown_parameter", "type": "unavailable_error"}}',
    "CUDA error: out of memory. Traceback (most recent call last): internal server error",
    "rate_limit_error: overloaded, too_many_requests",
]


def prompt(body: Json) -> str:
    return str(body["messages"][-1]["content"])


def fault(body: Json, *loc: object, type: str = "value_error") -> Json:
    return {"type": type, "loc": list(loc), "msg": f"Value error, bad: {prompt(body)}", "input": body, "ctx": body}


NESTED = ("body", "tools", 0, "function", "parameters", "properties", "top_k")
SHAPES: dict[str, Callable[[Json], object]] = {
    "the words alone": prompt,
    "error": lambda body: {"error": prompt(body)},
    "error.message": lambda body: {
        "error": {"message": f"Bad: {prompt(body)}", "type": "BadRequestError", "code": 400}
    },
    "flat": lambda body: {"object": "error", "message": prompt(body), "type": "BadRequestError", "param": None},
    "detail": lambda body: {"detail": prompt(body)},
    "faults": lambda body: {"detail": [fault(body, "body", "messages", 0, "content")]},
    "a nested fault": lambda body: {"detail": [fault(body, *NESTED, type="extra_forbidden")]},
    "printed faults": lambda body: {"error": {"message": str([fault(body, *NESTED, type="extra_forbidden")])}},
    "a nested parameter": lambda body: {
        "error": {"message": prompt(body), "param": "tools[0].function.parameters.top_k", "code": "unknown_parameter"}
    },
    "the request itself": lambda body: {"error": body, "detail": body},
    "the request as text": lambda body: {"error": {"message": json.dumps(body)}},
}


class Echo:
    """A server that answers, and refuses each request with ATTACK in its prompt by repeating it."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.shape: Callable[[Json], object] = prompt
        self.status = 400
        server.default = self._play
        server.on("GET", "/is_sleeping", Script.json({"is_sleeping": False}))
        server.on("GET", "/health", Script())

    def _play(self, body: Json) -> Script:
        if "ATTACK" not in prompt(body):
            return Script(ANSWER)
        refusal = self.shape(body)
        if self.status == 200:
            return Script(sse(refusal if isinstance(refusal, dict) and "error" in refusal else {"error": refusal}))
        return Script.json(refusal, self.status)

    def woken(self) -> int:
        return sum(seen.path == "/wake_up" for seen in self.server.requests)


@contextlib.asynccontextmanager
async def echoing(servers: int) -> AsyncIterator[tuple[Serving, list[Echo]]]:
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(ScriptedServer()) for _ in range(servers)]
        echoes = [Echo(server) for server in running]
        options = {"preset": "vllm", "wake": "wake"}
        yield await stack.enter_async_context(over(*(each.url for each in running), backend=options)), echoes


def asking(text: str) -> Json:
    schema = {"type": "object", "properties": {"top_k": {"type": "string"}}}
    tool = {"name": "look", "description": text, "parameters": schema}
    return {
        "model": "m",
        "messages": [{"role": "user", "content": text}],
        "tools": [{"type": "function", "function": tool}],
        "parallel_tool_calls": False,
        "max_tokens": 300,
        "top_k": 5,
        "seed": 1,
        "temperature": 0.5,
        "user": text[:60],
    }


async def asked(it: Serving, text: str) -> tuple[int, str, str]:
    async with it.session.post(it.url + CHAT, json=asking(text)) as answer:
        return answer.status, answer.headers.get("x-dragoman-ignored", ""), await answer.text()


async def attack(it: Serving, echoes: list[Echo], shape: str, *statuses: int) -> None:
    for status in statuses:
        for each in echoes:
            each.shape, each.status = SHAPES[shape], status
        for words in WORDS:
            for _ in range(FAILURES):
                answered, _, _ = await asked(it, f"ATTACK {words}")
                assert answered >= 400, (status, words)
    attacks = sum("ATTACK" in prompt(seen.body or {}) for each in echoes for seen in each.server.chats)
    assert attacks >= len(statuses) * len(WORDS) * FAILURES


async def bystander(it: Serving, echoes: list[Echo]) -> tuple[object, ...]:
    """All that another client can see, and what the operator sees of the backend."""
    status, ignored, text = await asked(it, "What is in this folder?")
    sent = max((each.server.chats[-1] for each in echoes if each.server.chats), key=lambda seen: seen.arrived).body
    async with it.session.get(it.url + "/readyz") as ready:
        states = ready.status, await ready.text()
    answer = json.loads(text)["choices"][0]["message"]["content"]
    return (
        status,
        ignored,
        answer,
        sent,
        states,
        [it.metric("dragoman_backend_ready", backend=name) for name in it.gateway.gate.groups],
    )


def learned(it: Serving) -> int:
    return sum(
        len(family.samples)
        for family in it.gateway.metrics.registry.collect()
        if family.name == "dragoman_refused_fields"
    )


@pytest.mark.parametrize("shape", SHAPES)
async def test_nothing_changes_for_another_client(shape: str) -> None:
    async with echoing(1) as (it, echoes):
        before = await bystander(it, echoes)
        assert before[0] == 200
        await attack(it, echoes, shape, 400, 404, 422, 451)
        assert await bystander(it, echoes) == before
        assert echoes[0].woken() == 0
        assert learned(it) == 0


@pytest.mark.parametrize("shape", SHAPES)
async def test_no_server_of_a_pool_is_passed_by(shape: str) -> None:
    async with echoing(2) as (it, echoes):
        before = await bystander(it, echoes)
        await attack(it, echoes, shape, 400, 404, 422, 451)
        assert [replica.state for replica in it.pool.replicas] == [ReplicaState.READY] * 2
        assert await bystander(it, echoes) == before
        assert [each.woken() for each in echoes] == [0, 0]
        assert not any(replica.busy() for replica in it.pool.replicas)


@pytest.mark.parametrize("shape", ["error", "error.message", "detail", "flat"])
async def test_nor_is_one_that_repeats_them_within_its_stream_asleep(shape: str) -> None:
    async with echoing(1) as (it, echoes):
        echoes[0].shape, echoes[0].status = SHAPES[shape], 200
        before = await bystander(it, echoes)
        assert (await asked(it, f"ATTACK {WORDS[0]}"))[0] >= 400
        assert await bystander(it, echoes) == before
        assert echoes[0].woken() == 0


async def test_a_server_that_refuses_a_field_by_its_fields_is_believed_and_it_is_counted() -> None:
    async with echoing(2) as (it, echoes):
        for each in echoes:
            each.shape = lambda body: {"detail": [fault(body, "body", "top_k", type="extra_forbidden")]}
        assert (await asked(it, "ATTACK"))[0] == 400  # without the field it is refused once more
        counts = [it.metric("dragoman_refused_fields_total", backend=name, field="top_k") for name in ("b0", "b1")]
        assert sorted(counts) == [0.0, 1.0]
        asked_once = sum(len(each.server.chats) for each in echoes)
        assert asked_once == 2


# ------------------------------------------------------------------------------------------------- what is true of it


@contextlib.asynccontextmanager
async def dozing(servers: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Serving, list[ScriptedServer]]]:
    """Servers whose health alone says that they sleep; the gateway asks for it seldom, unless there is a reason to."""
    for module in ("pool", "replica"):
        monkeypatch.setattr(f"dragoman.backends.pool.{module}.FRESH", 60.0)
    monkeypatch.setattr("dragoman.backends.chat.probe.SLEEP_TTL", 0.0)
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(ScriptedServer(default=Script(ANSWER))) for _ in range(servers)]
        for server in running:
            server.on("GET", "/health", Script())
        options = {"preset": "trtllm-serve", "wake": "wake", "settings": {"wake_call": "POST /wake_up"}}
        it = await stack.enter_async_context(
            over(*(each.url for each in running), backend=options, pool={"probe": 60.0})
        )
        assert (await asked(it, "hi"))[0] == 200
        yield it, running


def falls_asleep(server: ScriptedServer, status: int) -> None:
    def wake(_: Json) -> Script:
        server.on("GET", "/health", Script())
        server.default = Script(ANSWER)
        return Script()

    server.on("GET", "/health", Script.json({"error": "asleep"}, 503))
    server.on("POST", "/wake_up", wake)
    server.default = Script.json({"error": "The engine is sleeping"}, status)


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_a_server_that_truly_fell_asleep_is_woken(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 is believed as it stands; otherwise the words are a reason to ask for its health."""
    async with dozing(1, monkeypatch) as (it, (server,)):
        falls_asleep(server, status)
        before = len(server.chats)
        assert (await asked(it, "hi"))[0] == 200
        assert len(server.chats) == before + 2
        assert sum(seen.path == "/wake_up" for seen in server.requests) == 1


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_one_of_a_pool_that_truly_fell_asleep_is_found_out(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with dozing(2, monkeypatch) as (it, servers):
        falls_asleep(servers[0], status)
        for number in range(24):  # sessions: some of them are the first server's
            assert (await asked(it, f"hi {number}"))[0] == 200
        assert it.pool.replicas[0].state is ReplicaState.ASLEEP
        assert len(servers[0].chats) < 8


async def test_one_that_refuses_everybody_for_a_failure_of_its_own_is_asked_how_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """trtllm-serve answers 400 whatever goes wrong."""
    async with dozing(2, monkeypatch) as (it, servers):
        servers[0].default = Script.json({"error": "CUDA error: an illegal memory access"}, 400)
        servers[0].on("GET", "/health", Script(b"", 500))
        answered = [(await asked(it, f"hi {number}"))[0] for number in range(40)]
        assert set(answered) == {200, 502}
        assert it.pool.replicas[0].state is ReplicaState.DOWN
        assert answered[-4:] == [200] * 4
