"""What a model thought comes back to it, through clients of two protocols and through different gateways.

A scripted server whose template takes reasoning serves gateways on real sockets. The client keeps what it was
given and sends it back, as Codex (`include: ["reasoning.encrypted_content"]`) and Claude Code do; `blind` clients keep
the seal and lose the text, as those do that show no thoughts. What the server is asked on each turn is compared byte
by byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import aiohttp
import pytest

from dragoman.gateway.keys.secrets import Secrets
from tests.scripted import Json, Script, ScriptedServer, call_delta, chunk, sse, text_stream, usage
from tests.serving_gateway import over

THOUGHTS = ["First, list the files.", "Two lines \u2014 \u201equoted\u201c\n\nand a tab\t.", "Nothing more to do."]


def thinking_call(thought: str) -> Script:
    made = call_delta(0, "list_files", '{"path":"."}', "call_1")
    counts = chunk(None, usage=usage())
    return Script(sse(chunk({"reasoning_content": thought}), chunk(made), chunk({}, "tool_calls"), counts))


def thinking_text(thought: str, text: str) -> Script:
    half = len(thought) // 2
    return Script(text_stream(text, reasoning=[thought[:half], thought[half:]]))


def plays() -> list[Script]:
    first, second, third = THOUGHTS
    answers = [thinking_call(first), thinking_text(second, "One file."), thinking_text(third, "Done.")]
    return [*answers, Script(text_stream("Bye."))]


@contextlib.asynccontextmanager
async def gateway(server: ScriptedServer, *keys: str, preset: str = "vllm") -> AsyncIterator[str]:
    """A gateway of its own with these keys for seals, the first of which seals."""
    async with over(server.url, secrets=Secrets(seal_keys=keys), backend={"preset": preset}) as it:
        yield it.url


# ------------------------------------------------------------------------------------------------------------- clients


class Client(ABC):
    """`say` adds a prompt, or the result of the call that waits, and asks; what each answer ignored is kept."""

    path: ClassVar[str]

    def __init__(self, blind: bool = False) -> None:
        self.blind = blind
        self.ignored: list[str] = []
        self.history: list[Json] = []

    @abstractmethod
    async def say(self, url: str, text: str) -> None: ...

    @abstractmethod
    def seals(self) -> list[str]: ...

    async def ask(self, url: str, body: Json) -> list[Json]:
        """The events of the stream."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(url + self.path, json=body | {"model": "m", "stream": True}) as answer,
        ):
            text = await answer.text()
            assert answer.status == 200, text
            self.ignored.append(answer.headers.get("x-dragoman-ignored", ""))
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        return [json.loads(line) for line in lines]


class ResponsesClient(Client):
    path = "/v1/responses"

    async def say(self, url: str, text: str) -> None:
        waiting = self.history[-1] if self.history else {}
        if waiting.get("type") == "function_call":
            output = {"type": "function_call_output", "call_id": waiting["call_id"], "output": text}
            self.history.append(output)
        else:
            self.history.append({"type": "message", "role": "user", "content": text})
        tools = [{"type": "function", "name": "list_files", "parameters": {"type": "object", "properties": {}}}]
        include = ["reasoning.encrypted_content"]
        events = await self.ask(url, {"input": self.history, "tools": tools, "include": include, "store": False})
        items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        for item in items:
            if item["type"] == "reasoning" and self.blind:
                item["content"] = None
        self.history += items

    def seals(self) -> list[str]:
        return [item["encrypted_content"] for item in self.history if item["type"] == "reasoning"]


class MessagesClient(Client):
    path = "/v1/messages"

    async def say(self, url: str, text: str) -> None:
        calls = [block for block in self.history[-1]["content"] if block["type"] == "tool_use"] if self.history else []
        content: list[Json] = [{"type": "text", "text": text}]
        if calls:
            content = [{"type": "tool_result", "tool_use_id": calls[0]["id"], "content": text}]
        self.history.append({"role": "user", "content": content})
        tools = [{"name": "list_files", "input_schema": {"type": "object", "properties": {}}}]
        thinking = {"type": "adaptive"} | ({"display": "omitted"} if self.blind else {})
        body = {"messages": self.history, "tools": tools, "max_tokens": 1000, "thinking": thinking}
        self.history.append({"role": "assistant", "content": folded(await self.ask(url, body))})

    def seals(self) -> list[str]:
        blocks = [block for message in self.history for block in message["content"]]
        return [block["signature"] for block in blocks if block["type"] == "thinking"]


def folded(events: Sequence[Json]) -> list[Json]:
    """The blocks of a stream of the Messages API."""
    blocks: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append({key: value for key, value in event["content_block"].items() if key not in _ABSENT})
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            for kind in ("text", "thinking", "signature"):
                if kind in delta:
                    blocks[-1][kind] += delta[kind]
            if "partial_json" in delta:
                blocks[-1]["arguments"] = blocks[-1].get("arguments", "") + delta["partial_json"]
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block.pop("arguments", "{}"))
    return blocks


_ABSENT = ("citations", "caller")
CLIENTS: dict[str, type[Client]] = {"responses": ResponsesClient, "messages": MessagesClient}
every_client = pytest.mark.parametrize("protocol", CLIENTS)
every_sight = pytest.mark.parametrize("blind", [False, True], ids=["sees", "blind"])


async def converse(client: Client, urls: Sequence[str]) -> None:
    """A prompt, the result of a call, two more prompts; each turn may go to another gateway."""
    for url, text in zip(urls, ("List.", "a.txt", "And now?", "Bye."), strict=True):
        await client.say(url, text)


def reasoning(server: ScriptedServer) -> list[list[str | None]]:
    """What the server received of its thoughts, on each turn, for each message of the assistant."""
    asked = [seen.body for seen in server.chats if seen.body]
    return [[m.get("reasoning") for m in body["messages"] if m["role"] == "assistant"] for body in asked]


def prompt_bytes(raw: bytes) -> bytes:
    """The messages of a request as they were sent, without the end of the list."""
    begin = raw.index(b'"messages":')
    length = json.JSONDecoder().raw_decode(raw[begin + 11 :].decode())[1]
    return raw[begin : begin + 11 + len(raw[begin + 11 :].decode()[:length].encode()) - 1]


# --------------------------------------------------------------------------------------------------------------- tests


@every_sight
@every_client
async def test_every_turn_gets_every_thought_through_any_gateway_with_the_keys(protocol: str, blind: bool) -> None:
    client = CLIENTS[protocol](blind)
    async with ScriptedServer(*plays()) as server, gateway(server, "key") as one, gateway(server, "key") as two:
        await converse(client, (one, two, one, two))
    assert reasoning(server) == [THOUGHTS[:turns] for turns in range(4)]
    assert all(seal.startswith("dragoman1.") for seal in client.seals())
    assert len(client.seals()) == len(THOUGHTS)
    assert not any("reasoning" in told or "thinking" in told for told in client.ignored)


@every_sight
@every_client
async def test_the_prompt_of_a_turn_is_a_prefix_of_the_next_byte_by_byte(protocol: str, blind: bool) -> None:
    async with ScriptedServer(*plays()) as server, gateway(server, "key") as one, gateway(server, "new", "key") as two:
        await converse(CLIENTS[protocol](blind), (one, one, two, two))
    prompts = [prompt_bytes(seen.raw) for seen in server.chats]
    assert len(prompts) == 4
    for before, after in pairwise(prompts):
        assert after.startswith(before)


@every_client
async def test_the_same_thoughts_have_the_same_seals(protocol: str) -> None:
    """Deterministic, so that a transcript can be played again and compared."""
    seals = []
    for _ in range(2):
        client = CLIENTS[protocol]()
        async with ScriptedServer(*plays()) as server, gateway(server, "key") as url:
            await converse(client, (url,) * 4)
        seals.append(client.seals())
    assert seals[0] == seals[1]
    assert len(set(seals[0])) == len(THOUGHTS)


@every_client
async def test_what_an_older_key_sealed_is_opened_while_the_key_is_still_there(protocol: str) -> None:
    client = CLIENTS[protocol](blind=True)
    async with (
        ScriptedServer(*plays()) as server,
        gateway(server, "old") as before,
        gateway(server, "new", "old") as after,
    ):
        await converse(client, (before, before, after, after))
    assert reasoning(server)[-1] == THOUGHTS


@every_client
async def test_seals_of_others_are_left_out_visibly_and_never_an_error(protocol: str) -> None:
    """The turns whose seal cannot be opened have no thoughts; they still have the field, as every turn must."""
    client = CLIENTS[protocol](blind=True)
    async with ScriptedServer(*plays()) as server, gateway(server, "key") as own, gateway(server, "another") as foreign:
        await converse(client, (foreign, own, own, own))
    assert reasoning(server) == [[], [""], ["", THOUGHTS[1]], ["", *THOUGHTS[1:]]]
    item = {"responses": "item:reasoning", "messages": "item:thinking"}[protocol]
    assert client.ignored == ["", item, item, item]


@every_client
async def test_a_server_that_takes_no_thoughts_gets_none(protocol: str) -> None:
    async with ScriptedServer(*plays()) as server, gateway(server, "key", preset="generic") as url:
        await converse(CLIENTS[protocol](), (url,) * 4)
        asked = [seen.body for seen in server.chats if seen.body]
    names = {key for body in asked for message in body["messages"] for key in message}
    assert names <= {"role", "content", "tool_calls", "tool_call_id"}


async def test_foreign_thinking_of_anthropic_s_own_models_passes() -> None:
    """A conversation that was begun with a model of theirs: signatures and redacted thoughts that nobody can open."""
    thinking = {"type": "thinking", "thinking": "I think.", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"}
    redacted = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"}
    blank = {"type": "thinking", "thinking": "", "signature": "EqQBCgIYAhIM"}
    said = {"role": "assistant", "content": [thinking, redacted, blank, {"type": "text", "text": "Yes."}]}
    prompt = {"role": "user", "content": "Really?"}
    body = {"messages": [prompt, said, prompt], "max_tokens": 100}
    client = MessagesClient()
    async with ScriptedServer(Script(text_stream("ok"))) as server, gateway(server, "key") as url:
        await client.ask(url, body)
    assert reasoning(server) == [["I think."]]
    assert client.ignored == ["item:redacted_thinking, item:thinking"]


async def test_turns_beside_each_other_do_not_mix_their_thoughts() -> None:
    """Many conversations at once through one gateway."""

    def answer(asked: Json) -> Script:
        name = asked["messages"][0]["content"]
        return thinking_text(f"thinking of {name}", f"{name} it is")

    clients = [CLIENTS[name](blind=True) for name in CLIENTS for _ in range(5)]

    async def twice(client: Client, name: str) -> None:
        await client.say(url, name)
        await client.say(url, "And?")

    async with ScriptedServer(default=answer) as server, gateway(server, "key") as url:
        await asyncio.gather(*(twice(client, f"name {index}") for index, client in enumerate(clients)))
        second = [seen.body for seen in server.chats if seen.body and len(seen.body["messages"]) > 1]
    assert len(second) == len(clients)
    for body in second:
        name = body["messages"][0]["content"]
        assert body["messages"][1]["reasoning"] == f"thinking of {name}"
