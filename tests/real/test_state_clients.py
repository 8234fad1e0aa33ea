"""Clients that keep their conversations at the server unless told otherwise, in their default settings.

Each asks two questions and runs a tool for both, whole and streamed; the model is scripted. With the store that a
gateway on loopback has by default, the model reads the whole conversation every time, reasoning included. Without a
store, the client's user reads what to set; with that set, the client sends everything itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RealComponent
from tests.real.components import COMPONENTS, Packages
from tests.real.program import report
from tests.real.scripted_model import function_names, results
from tests.real.serving import serving
from tests.scripted import Json, Play, Script, ScriptedServer, call_delta, chunk, sse, text_stream, usage

pytestmark = pytest.mark.real

QUESTIONS = ("I am Ada. How is the weather in Rome?", "And in Oslo?")
ANSWERS = ["Ada, it is sunny in Rome.", "Ada, it is sunny in Oslo."]
DONE = {"answers": ANSWERS, "called": ["Rome", "Oslo"]}

DRIVERS = {
    "ai-sdk-6": "ai_sdk_driver.mjs",
    "agent-framework": "agent_framework_driver.py",
    "langchain-py": "langchain_driver.py",
}
Client = tuple[str, dict[str, Any]]  # the component, and what is not left at its default
LANGCHAIN: Client = ("langchain-py", {})
KEEPING_HERE = (
    pytest.param(("ai-sdk-6", {}), id="ai-sdk"),
    # it takes such names for models that reason, and then refers to texts too
    pytest.param(("ai-sdk-6", {"model": "gpt-5"}), id="ai-sdk-gpt-5"),
    pytest.param(("agent-framework", {}), id="agent-framework"),
    pytest.param(("langchain-py", {"use_previous_response_id": True}), id="langchain-by-id"),
)
SEALED = {"store": False, "include": ["reasoning.encrypted_content"]}
SENDING_ALL = (
    pytest.param(("ai-sdk-6", {"openai": SEALED}), id="ai-sdk"),
    pytest.param(("agent-framework", {"store": False}), id="agent-framework"),
    pytest.param(("langchain-py", SEALED), id="langchain"),
)


def model(asked: Json) -> Script:
    """Thinks and asks for the weather; then answers with it and with the name, which only the first question has."""
    questions = [message["content"] for message in asked["messages"] if message["role"] == "user"]
    told = results(asked)
    if len(told) == len(questions):
        name = questions[0].removeprefix("I am ").partition(".")[0]
        return Script(text_stream(f"{name}, it is ", f"{told[-1]}.", reasoning=["They ", "say so."]))
    assert function_names(asked) == ["weather"]
    city = ("Rome", "Oslo")[len(told)]
    call = call_delta(0, "weather", json.dumps({"city": city}), f"call_{city}")
    deltas = ({"role": "assistant"}, {"reasoning_content": "I "}, {"reasoning_content": "ask."}, call)
    return Script(sse(*map(chunk, deltas), chunk({}, "tool_calls"), chunk(None, usage=usage())))


def conversation(call_thought: str = "I ask.", answer_thought: str = "They say so.") -> list[Json]:
    """The last prompt, as `comparable` gives it."""
    messages: list[Json] = [{"role": "system", "content": "Answer after asking."}]
    for question, city, answer in zip(QUESTIONS, ("Rome", "Oslo"), ANSWERS, strict=True):
        call = {"id": f"call_{city}", "type": "function", "function": {"name": "weather", "arguments": {"city": city}}}
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": None, "reasoning": call_thought, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": f"sunny in {city}"},
            {"role": "assistant", "content": answer, "reasoning": answer_thought},
        ]
    return messages[:-1]


def comparable(messages: list[Json]) -> list[Json]:
    """Arguments as objects: each client that sends them again spaces them in its own way."""
    copy: list[Json] = json.loads(json.dumps(messages))
    for call in (call for message in copy for call in message.get("tool_calls", ())):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return copy


class Conversations:
    """What a client reported, and the prompts of its whole and of its streamed conversation."""

    def __init__(self, told: Json, prompts: list[list[Json]]) -> None:
        self.whole, self.streamed = told["whole"], told["streamed"]
        half = len(prompts) // 2
        self.prompts = {"whole": prompts[:half], "streamed": prompts[half:]}

    def last_prompt(self, way: str) -> list[Json]:
        """The others are checked: each begins with the one before it."""
        prompts = self.prompts[way]
        assert len(prompts) == 4
        for earlier, later in pairwise(prompts):
            assert later[: len(earlier)] == earlier
        return comparable(prompts[-1])


class Clients:
    def __init__(self, real_component: RealComponent, home: Path) -> None:
        self._real_component = real_component
        self._home = home

    async def converse(
        self, client: Client, play: Play = model, questions: Sequence[str] = QUESTIONS, **settings: str
    ) -> Conversations:
        """`settings` are the gateway's."""
        name, given = client
        component, path = COMPONENTS[name], self._real_component(name)
        program, where = path, list[str]()
        if isinstance(component, Packages):
            program, where = Path(shutil.which("node") or "node"), [str(component.folder)]
        driver = Path(__file__).with_name(DRIVERS[name])
        server = ScriptedServer(default=play)
        async with server, serving("--backend", server.url, "--preset", "vllm", **settings) as url:
            arguments = (*where, f"{url}/v1", json.dumps(given), *questions)
            told = await report(program, driver, *arguments, home=self._home)
        return Conversations(told, [seen.body["messages"] for seen in server.chats if seen.body is not None])


@pytest.fixture
def clients(real_component: RealComponent, tmp_path: Path) -> Clients:
    return Clients(real_component, tmp_path)


@pytest.mark.parametrize("client", KEEPING_HERE)
async def test_what_a_client_keeps_here_is_in_the_prompt_of_every_later_request(
    clients: Clients, client: Client
) -> None:
    seen = await clients.converse(client)
    assert (seen.whole, seen.streamed) == (DONE, DONE)
    assert seen.last_prompt("whole") == conversation()
    assert seen.last_prompt("streamed") == conversation()


async def test_a_session_goes_on_after_an_answer_that_broke_off(clients: Clients) -> None:
    """The agent has taken the id of the answer that failed."""
    broken = 0

    def breaks_off_once(asked: Json) -> Script:
        nonlocal broken
        if not results(asked):
            broken = 0
            return model(asked)
        broken += 1
        cut = Script(sse(chunk({"content": "Ada, "}), done=False), unterminated=True)
        return cut if broken == 1 else Script(text_stream("It is ", "sunny."))

    seen = await clients.converse(("agent-framework", {}), breaks_off_once, QUESTIONS[:1])
    assert seen.streamed == {"answers": ["It is sunny."], "called": ["Rome"]}
    assert [message["role"] for message in seen.prompts["streamed"][-1]] == [
        *("system", "user", "assistant", "tool", "assistant", "user")
    ]


async def test_langchain_sends_everything_itself_but_not_the_reasoning_of_its_streams(clients: Clients) -> None:
    seen = await clients.converse(LANGCHAIN)
    assert (seen.whole, seen.streamed) == (DONE, DONE)
    assert seen.last_prompt("whole") == conversation()
    assert seen.last_prompt("streamed") == conversation("", "")


@pytest.mark.parametrize("client", KEEPING_HERE)
async def test_without_a_store_the_user_reads_what_to_set(clients: Clients, client: Client) -> None:
    seen = await clients.converse(client, store__url="off")
    for told in (seen.whole, seen.streamed):
        assert told["answers"] == []
        assert told["called"] == ["Rome"]
        assert "not found" in told["raised"]
        assert "with 'store': false" in told["raised"]


@pytest.mark.parametrize("client", SENDING_ALL)
async def test_without_a_store_a_client_that_is_told_so_sends_everything_itself(
    clients: Clients, client: Client
) -> None:
    seen = await clients.converse(client, store__url="off")
    assert (seen.whole, seen.streamed) == (DONE, DONE)
    assert seen.last_prompt("whole") == conversation()
    assert seen.last_prompt("streamed") == conversation()
