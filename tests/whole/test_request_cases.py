"""Plays the cases of tests/cases/requests, each against the whole gateway on a real socket; tests/cases/README.md says
what the keys of a case mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.scripted import Script, sse, text_stream
from tests.serving_gateway import served

Json = dict[str, Any]
FILES = sorted((Path(__file__).parents[1] / "cases" / "requests").glob("*.json"))
CASES: dict[str, Json] = {case["name"]: case for file in FILES for case in json.loads(file.read_text())}
PATHS = {
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "chat": "/v1/chat/completions",
    "count_tokens": "/v1/messages/count_tokens",
}


@dataclass
class Played:
    """What became of a case: `events` are those of a stream, `answer` is a whole body (of a stream its last object)."""

    status: int
    ignored: str
    text: str
    sent: list[Json]
    events: list[Json]
    answer: Json


@pytest.mark.parametrize("name", CASES)
async def test_case(name: str) -> None:
    case = CASES[name]
    expected = case["expect"]
    played = await _play(case)
    rules = {key: value for key, value in expected.items() if key not in ("words", "any_of", "cut", "extends")}
    faults = list(_faults(played, rules))
    if "extends" in expected:
        faults += _not_extended(played, await _play(CASES[expected["extends"]]))
    if choices := expected.get("any_of"):
        missed = [list(_faults(played, choice)) for choice in choices]
        faults += [] if not all(missed) else [f"none of any_of: {missed}"]
    assert not faults, f"{expected['words']}\n{faults}\n{played.status} {played.ignored}\n{played.text[:2000]}"


def test_names_are_unique() -> None:
    assert len(CASES) == sum(len(json.loads(file.read_text())) for file in FILES)


async def _play(case: Json) -> Played:
    payloads = case.get("upstream")
    body = text_stream("ok") if payloads is None else sse(*payloads, done=not case["expect"].get("cut"))
    raw = case["raw"] if "raw" in case else json.dumps(case["request"], ensure_ascii=False)
    async with served(backend={"preset": "vllm"}) as it:
        it.server.default = Script(body)
        headers = {"content-type": "application/json"}
        async with it.session.post(it.url + PATHS[case["protocol"]], data=raw.encode(), headers=headers) as reply:
            text = await reply.text()
            events = list(_events(text)) if reply.content_type == "text/event-stream" else []
            answer = json.loads(text) if not events else events[-1].get("response", events[-1])
            sent = [seen.body for seen in it.server.chats if seen.body is not None]
            return Played(reply.status, reply.headers.get("x-dragoman-ignored", ""), text, sent, events, answer)


def _events(text: str) -> Iterator[Json]:
    for line in text.splitlines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


# --------------------------------------------------------------------------------------------------- what does not hold


def _faults(played: Played, rules: Json) -> Iterator[str]:
    for key, value in rules.items():
        if not _holds(played, key, value):
            yield f"{key}: {value}"


def _holds(played: Played, key: str, value: Any) -> Any:
    sent = played.sent[-1] if played.sent else {}
    sent_text, error = json.dumps(sent, ensure_ascii=False), _error(played.answer)
    compact = "\n".join(json.dumps(one, separators=(",", ":")) for one in played.events or [played.answer])
    match key:
        case "status":
            return played.status == value
        case "error_has":
            return all(word in error.get("message", "") for word in value)
        case "error_param" | "error_code":
            return error.get(key.removeprefix("error_")) == value
        case "sent_count":
            return len(played.sent) == value
        case "sent_has":
            return _contains(sent, value)
        case "sent_text":
            return all(word in sent_text for word in value)
        case "sent_lacks":
            return not any(word in sent_text for word in value)
        case "sent_tools":
            return [tool["function"]["name"] for tool in sent.get("tools", ())] == value
        case "noted":
            return all(word in played.ignored for word in value)
        case "nothing_noted":
            return (played.ignored == "") == value
        case "answer_has":
            return all(word in compact for word in value)
        case "answer_lacks":
            return not any(word in compact for word in value)
        case "answer_text":
            return "".join(map(_text, played.events)) == value
        case "arguments":
            return json.loads(_arguments(played)) == value
        case "usage":
            return _contains(played.answer.get("usage"), value)
        case "events":
            types = iter([event.get("type") for event in played.events])
            return all(type in types for type in value)
        case "event_has":
            return all(
                any(e.get("type") == type and _contains(e, part) for e in played.events) for type, part in value.items()
            )
        case "first_event_has":
            return all(word in compact.partition("\n")[0] for word in value)
        case _:
            raise AssertionError(f"no such rule: {key}")


def _error(answer: Json) -> Json:
    error = answer.get("error")
    return error if isinstance(error, dict) else {}


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and _contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        rest: Iterator[Any] = iter(whole if isinstance(whole, list) else ())
        return all(any(_contains(one, wanted) for one in rest) for wanted in part)
    return bool(whole == part)


def _text(event: Json) -> str:
    """The text of a delta in whichever protocol."""
    if event.get("type") == "response.output_text.delta":
        return str(event["delta"])
    if event.get("type") == "content_block_delta":
        return str(event["delta"].get("text", ""))
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))


def _arguments(played: Played) -> str:
    call = next(item for item in played.answer["output"] if item["type"] == "function_call")
    return str(call["arguments"])


def _not_extended(longer: Played, shorter: Played) -> list[str]:
    before, after = shorter.sent[-1], longer.sent[-1]
    return [
        f"{key} do not begin as before"
        for key in ("messages", "tools")
        if after.get(key, [])[: len(before.get(key, []))] != before.get(key, [])
    ]
