"""`dragoman doctor` against scripted servers: one that can do everything, one that fails agents in every way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from backends.chat_completions import ChatCompletions
from backends.chat_settings import resolve
from gateway.doctor import Finding, examine
from tests.scripted import Script, ScriptedServer, call_delta, chunk, model_list, sse, text_stream

PARIS, ROME = '{"city":"Paris"}', '{"city":"Rome"}'


def able(body: dict[str, Any]) -> Script:
    words = body["messages"][-1]["content"]
    if "500" in words:
        return Script(text_stream(*[f"{number}, " for number in range(500)]), split="frames", gap=0.05)
    if body.get("response_format"):
        return Script(text_stream('{"n": 42}'))
    if body.get("tools"):
        calls = [call_delta(0, "get_weather", PARIS, "c1")]
        calls += [call_delta(1, "get_weather", ROME, "c2")] if "Rome" in words else []
        return Script(sse(*map(chunk, calls), chunk({}, "tool_calls")))
    return Script(text_stream("Hello.", reasoning=["They greet."]))


def poor(body: dict[str, Any]) -> Script:
    if [message["role"] for message in body["messages"][1:]].count("system"):
        return Script.json({"error": {"message": "System message must be at the beginning."}}, 400)
    if body.get("tool_choice") == "required":
        return Script.json({"error": {"message": "tool_choice='required' is not supported for this model."}}, 400)
    if body.get("tools"):
        return Script(without_usage('<tool_call>{"name": "get_weather"}</tool_call>'))
    return Script(without_usage("<think>They greet.</think>Hello."))


def without_usage(text: str) -> bytes:
    return sse(chunk({"role": "assistant"}), chunk({"content": text}), chunk({}, "stop"))


async def examined(play: Callable[[dict[str, Any]], Script], preset: str, **extra: object) -> dict[str, Finding]:
    async with ScriptedServer(default=play) as server:
        server.on("GET", "/v1/models", model_list("m", **extra))
        server.on("POST", "/tokenize", Script.json({"count": 11}))
        backend = ChatCompletions(server.url, settings=resolve(preset))
        await backend.start()
        try:
            return {finding.probe: finding async for finding in examine(backend, None)}
        finally:
            await backend.close()


async def test_a_server_that_can_do_everything() -> None:
    found = await examined(able, "vllm", max_model_len=32768)
    assert {finding.verdict for finding in found.values()} == {"ok"}, [str(finding) for finding in found.values()]
    assert found["models"].told == "m; context window 32768"
    assert found["two calls at once"].told == "2 calls"
    assert found["tool call"].told == f"get_weather({PARIS})"
    assert found["client leaves"].told.startswith("let go after ")


async def test_a_server_that_fails_agents_and_what_would_help() -> None:
    found = await examined(poor, "generic")
    advice = {probe: finding.advice for probe, finding in found.items() if finding.verdict != "ok"}
    assert "`window`" in advice["models"]
    assert "usage" in advice["usage"]
    assert "`tokenize`" in advice["counting"]
    assert advice["late system message"] == "set `system_messages: user`"
    assert "`markup`" in advice["tool call"]
    assert "`force_tool: schema`" in advice["forced tool"]
    assert advice["JSON schema"] == "set `json_schema: prompt`"
    assert "`markup`" in advice["reasoning"]
    assert found["late system message"].verdict == "FAIL"


async def test_a_server_that_answers_nothing_is_not_examined_further() -> None:
    found = await examined(lambda body: Script.json({"error": "down"}, 500), "generic")
    assert found["text"].verdict == "FAIL"
    assert list(found)[-1] == "text"


@pytest.mark.parametrize("verdict", ["ok", "weak", "FAIL"])
def test_a_finding_is_a_line_and_its_advice_another(verdict: Any) -> None:
    lines = str(Finding(verdict, "usage", "none", "do this")).splitlines()
    assert lines[0].split() == [verdict, "usage", "none"]
    assert lines[1].strip() == "→ do this"
    assert json.dumps(lines)
