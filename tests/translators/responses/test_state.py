"""Conversations that are kept here: what a call that continues one asks is what the whole history would have asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Delta, Event, Finished, PartEnded, PartStarted, Started, StopReason
from dragoman.translators.protocol import Context, Turn
from dragoman.translators.responses import PROTOCOL, state

Json = dict[str, Any]
TOOLS: list[Json] = [
    {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}},
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "desk", "tools": [{"type": "function", "name": "open", "parameters": {}}]},
]
KEPT = PROTOCOL.state
assert KEPT is not None
words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
spoken = words.filter(str.strip)
parts = st.lists(
    st.one_of(
        st.tuples(st.just("text"), spoken, st.just("")),
        st.tuples(st.just("reasoning"), spoken, st.just("")),
        st.tuples(st.just("call"), st.just('{"a":1}'), st.sampled_from(["add", "open"])),
        st.tuples(st.just("call"), spoken.map(lambda text: json.dumps({"input": text})), st.just("patch")),
    ),
    min_size=1,
    max_size=4,
)
messages = st.lists(
    st.one_of(
        spoken.map(lambda text: {"role": "user", "content": text}),
        spoken.map(lambda text: {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}),
        spoken.map(lambda text: {"type": "message", "role": "developer", "content": text, "id": "msg_of_the_client"}),
    ),
    min_size=1,
    max_size=3,
)
turns = st.lists(st.tuples(st.one_of(spoken, messages), parts, spoken), min_size=2, max_size=5)


def parse(body: Json, number: int, continues: bool) -> Turn:
    context = Context(f"{number:032x}", lambda: 1, continues=continues, stored=True)
    return PROTOCOL.parse({"model": "m", "tools": TOOLS, "instructions": "Be short.", **body}, context)


def answered(turn: Turn, number: int, said: list[tuple[str, str, str]]) -> Json:
    events: list[Event] = [Started()]
    for place, (kind, text, name) in enumerate(said):
        id = f"call_{number}_{place}" if kind == "call" else ""
        events += [PartStarted(kind, id, name), Delta(text), PartEnded()]  # type: ignore[arg-type]
    turn.stream.feed([*events, Finished(StopReason.STOP)])
    return turn.stream.body()


def results(answer: Json, text: str) -> list[Json]:
    """What a client says to the calls of an answer."""
    kinds = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
    calls = [item for item in answer["output"] if item["type"] in kinds]
    return [{"type": kinds[item["type"]], "call_id": item["call_id"], "output": text} for item in calls]


@settings(max_examples=150, deadline=None)
@given(turns)
def test_what_is_asked_is_byte_for_byte_what_the_whole_history_would_ask(
    talk: list[tuple[str | list[Json], list[tuple[str, str, str]], str]],
) -> None:
    assert KEPT is not None
    earlier: list[Json] = []  # as it is kept
    history: list[Json] = []  # as a client would keep it itself
    answer: Json = {"output": []}
    for number, (given_input, said, result) in enumerate(talk):
        new = results(answer, result)
        own = (
            [{"type": "message", "role": "user", "content": given_input}]
            if isinstance(given_input, str)
            else given_input
        )
        body: Json = {"input": [*new, *own] if new or not isinstance(given_input, str) else given_input}
        if number:
            body["previous_response_id"] = "resp_before"
        turn = parse(KEPT.continued(body, earlier), number, continues=bool(number))
        history += [*new, *own]
        whole = parse({"input": history}, number, continues=False)
        assert turn.request == whole.request
        answer = answered(turn, number, said)
        earlier = json.loads(json.dumps([*earlier, *KEPT.own_items(body, f"{number:032x}"), *KEPT.items(answer)]))
        history += answer["output"]


@pytest.mark.parametrize("given_input", [None, [], ""])
def test_a_call_may_add_nothing(given_input: object) -> None:
    earlier = [{"type": "message", "role": "user", "content": "1"}]
    body = {"input": given_input, "previous_response_id": "resp_1"}
    assert state.continued(body, earlier)["input"] == earlier


def test_what_is_no_input_is_left_to_be_refused() -> None:
    with pytest.raises(GatewayError, match="input"):
        parse(state.continued({"input": 7}, [{"role": "user", "content": "1"}]), 1, continues=True)


def test_items_get_ids_that_no_other_call_gives() -> None:
    items = [{"role": "user", "content": "1"}, {"role": "user", "content": "2", "id": "own"}, {"id": ""}, "no item"]
    assert [item["id"] for item in state.own_items({"input": items}, "abc")] == ["msg_abci000", "own", "msg_abci002"]
    assert state.own_items({"input": "hi"}, "abc")[0]["id"] == "msg_abci000"
    assert state.own_items({}, "abc") == []


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (
            {"role": "user", "content": "hi"},
            {
                "role": "user",
                "type": "message",
                "status": "completed",
                "content": [{"type": "input_text", "text": "hi"}],
            },
        ),
        (
            {"type": "message", "role": "assistant", "content": "hi", "phase": "commentary"},
            {
                "type": "message",
                "role": "assistant",
                "phase": "commentary",
                "status": "completed",
                "content": [{"type": "output_text", "text": "hi", "annotations": []}],
            },
        ),
        (
            {"type": None, "role": "user", "status": "incomplete", "content": []},
            {"type": "message", "role": "user", "status": "incomplete", "content": []},
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": "3"},
            {"type": "function_call_output", "call_id": "c", "output": "3", "status": "completed"},
        ),
        (
            {"type": "custom_tool_call_output", "call_id": "c", "output": "3", "status": None},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "3", "status": "completed"},
        ),
        (
            {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "3"}]},
            {
                "type": "shell_call_output",
                "call_id": "c",
                "output": [{"stdout": "3"}],
                "status": "completed",
                "max_output_length": None,
            },
        ),
        (
            {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"], "timeout_ms": 5}},
            {
                "type": "shell_call",
                "call_id": "c",
                "action": {"commands": ["ls"], "timeout_ms": 5, "max_output_length": None},
                "environment": None,
                "status": "completed",
            },
        ),
        (
            {"type": "tool_search_output", "tools": []},
            {
                "type": "tool_search_output",
                "tools": [],
                "execution": "client",
                "call_id": None,
                "status": "completed",
            },
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": None}],
            },
            {
                "role": "user",
                "type": "message",
                "status": "completed",
                "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"}],
            },
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "output_text", "text": "3"}, "x"]},
            {
                "type": "function_call_output",
                "call_id": "c",
                "output": [{"type": "output_text", "text": "3", "annotations": []}, "x"],
                "status": "completed",
            },
        ),
        ({"type": "reasoning", "summary": []}, {"type": "reasoning", "summary": []}),
        (
            {"type": "additional_tools", "role": "developer", "tools": []},
            {"type": "additional_tools", "role": "developer", "tools": []},
        ),
    ],
)
def test_items_are_listed_in_the_form_that_the_type_of_the_list_has(item: Json, shown: Json) -> None:
    """OpenAI's SDK gives a message's content the type of a list, and its status that of a word."""
    given = {"id": "i", **item}
    before = json.dumps(given)
    assert state.page([given], {})["data"] == [{"id": "i", **shown}]
    assert json.dumps(given) == before
