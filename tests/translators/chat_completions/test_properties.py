"""Chat completions, whatever a client sends: a request or a named fault, prompts that only grow, answers that can be
sent back."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.translators.chat_completions import PROTOCOL
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Reasoning, Refusal, Request, Text, ToolCall
from dragoman.translators.protocol import Context, Json, Turn
from tests.golden_files import TRANSCRIPTS, request, requests, upstream
from tests.grammar.chat_completions import check_stream
from tests.replay import replay, turn

CASES = requests("chat_completions")
USER: Json = {"role": "user", "content": "Hello"}


def parse(**fields: Any) -> Turn:
    return PROTOCOL.parse({"model": "m", **fields}, Context(id="0" * 24, clock=lambda: 0))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden_requests_are_accepted_unless_their_name_says_error(path: Path) -> None:
    body = request(path)
    before = json.dumps(body)
    if path.stem.startswith("error_"):
        with pytest.raises(GatewayError) as caught:
            parse(**body)
        assert caught.value.param
    else:
        assert parse(**body).request == parse(**body).request
    assert json.dumps(body) == before, "the client's body is not changed"


# ----------------------------------------------------------------------------------------------------------------- fuzz

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.floats(-3, 3)
    | st.sampled_from(["", "x", "{}", "data:image/png;base64,iVBORw0KGgo="])
)
WORDS = st.sampled_from(
    [
        *("function", "custom", "allowed_tools", "web_search", "auto", "required", "text", "refusal", "image_url"),
        *("file", "input_audio", "json_schema", "json_object", "grammar", "regex"),
        *("user", "assistant", "developer", "system", "tool"),
    ]
)
KEYS = st.sampled_from(
    [
        *("type", "role", "content", "text", "refusal", "image_url", "url", "detail", "file", "file_data", "filename"),
        *("id", "name", "tool_call_id", "tool_calls", "function", "custom", "arguments", "input", "description"),
        *(
            "parameters",
            "strict",
            "format",
            "grammar",
            "syntax",
            "definition",
            "schema",
            "json_schema",
            "mode",
            "tools",
        ),
        *("allowed_tools", "reasoning", "reasoning_content", "function_call", "audio"),
    ]
)
JSON = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)
TYPED = st.builds(lambda kind, rest: {**rest, "type": kind, kind: rest}, WORDS, st.dictionaries(KEYS, JSON, max_size=6))
NAMES = st.sampled_from(["a", "b", "fs.read"])
TEXTS = st.sampled_from(["", "x", "{}", '{"a": 1}'])
# What is nearly always right, so that a fault in one place does not hide all others.
CALLS = st.builds(
    lambda id, name, text: {"id": id, "type": "function", "function": {"name": name, "arguments": text}},
    NAMES,
    NAMES,
    TEXTS,
) | st.builds(
    lambda id, name, text: {"id": id, "type": "custom", "custom": {"name": name, "input": text}}, NAMES, NAMES, TEXTS
)
MESSAGES = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, TEXTS),
    st.builds(
        lambda text, calls, extra: {"role": "assistant", "content": text, "tool_calls": calls, **extra},
        TEXTS | st.none(),
        st.lists(CALLS, max_size=3) | st.none(),
        st.dictionaries(st.sampled_from(["reasoning", "reasoning_content", "refusal", "name"]), TEXTS, max_size=2),
    ),
    st.builds(lambda id, text: {"role": "tool", "tool_call_id": id, "content": text}, NAMES, TEXTS),
)
TOOLS = st.builds(
    lambda kind, name, rest: {"type": kind, kind: {"name": name} | rest},
    st.sampled_from(["function", "custom", "web_search"]),
    NAMES,
    st.fixed_dictionaries({}, optional={"description": TEXTS, "strict": st.booleans(), "parameters": st.just({})}),
)


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any] = JSON) -> st.SearchStrategy[Any]:
    """Chosen first and drawn then: a union would be flattened into its many odd members."""
    return st.sampled_from([usual] * 15 + [odd]).flatmap(lambda chosen: chosen)


FIELDS = st.fixed_dictionaries(
    {"messages": mostly(st.lists(mostly(MESSAGES, JSON | TYPED), min_size=1, max_size=4))},
    optional={
        "tools": mostly(st.lists(mostly(TOOLS, JSON | TYPED), max_size=4)),
        "tool_choice": mostly(st.sampled_from(["auto", "none", "required"]) | TOOLS, JSON | TYPED),
        "response_format": mostly(st.sampled_from([None, {"type": "text"}, {"type": "json_object"}]), TYPED),
        "chat_template_kwargs": mostly(st.dictionaries(KEYS, JSON, max_size=2)),
        "stop": mostly(st.sampled_from([None, "x", ["x", "y"]])),
        "logit_bias": mostly(st.just({"5": 1})),
        "web_search_options": JSON,
        "made_up": JSON,
    },
)


@given(FIELDS)
def test_nothing_but_a_gateway_error_ever_comes_out(fields: Json) -> None:
    """An answer is begun, or a fault is named."""
    error = None
    try:
        asked = parse(**fields)
    except GatewayError as caught:
        error = caught
    if error is not None:
        assert error.param
        assert PROTOCOL.error(error, "r").status == 400
    else:
        assert asked.request.messages


# -------------------------------------------------------------------------------------------------------- conversations


def _turn(shape: str, name: str, number: int) -> list[Json]:
    """What one turn of a session adds: what the model said, what the client answers, and the next question."""
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": "{}"}}
    other = {"id": f"d{number}", "type": "custom", "custom": {"name": name, "input": "x"}}
    added: dict[str, list[Json]] = {
        "text": [{"role": "assistant", "content": f"answer {number}", "reasoning_content": "hm"}],
        "call": [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "ok"},
        ],
        "calls": [
            {"role": "assistant", "content": "Both.", "tool_calls": [call, other]},
            {"role": "tool", "tool_call_id": f"d{number}", "content": "ok"},
            {"role": "tool", "tool_call_id": "c", "content": "ok"},
        ],
        "lost": [{"role": "assistant", "tool_calls": [call]}],
        "reminder": [{"role": "system", "content": f"reminder {number}"}],
    }
    return [*added[shape], {"role": "user", "content": f"question {number}"}]


TURNS = st.lists(
    st.tuples(
        st.sampled_from(["text", "call", "calls", "lost", "reminder"]),
        st.sampled_from(["ls", "fs.read", "fs_read", "x" * 70]),
    ),
    max_size=8,
)


@given(TURNS)
def test_what_a_turn_showed_is_a_prefix_of_what_the_next_one_shows(turns: list[tuple[str, str]]) -> None:
    """Else the server's cache of the prompt would be lost."""
    tools = [{"type": "function", "function": {"name": "ls"}}, {"type": "custom", "custom": {"name": "fs.read"}}]
    messages = [USER]
    before = parse(messages=messages, tools=tools).request
    for number, (shape, name) in enumerate(turns):
        messages = messages + _turn(shape, name, number)
        after = parse(messages=messages, tools=tools).request
        assert after.messages[: len(before.messages)] == before.messages
        assert after.tools == before.tools
        before = after


def said(request: Request) -> tuple[str, str, str, list[tuple[str, str]]]:
    """Texts and calls of the assistant, each call by id and name."""
    parts = [part for message in request.messages if message.role == "assistant" for part in message.parts]
    texts = ["".join(part.text for part in parts if isinstance(part, kind)) for kind in (Reasoning, Text, Refusal)]
    calls = [(part.id, part.name) for part in parts if isinstance(part, ToolCall)]
    return texts[0], texts[1], texts[2], calls


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_an_answer_can_be_sent_back_as_history(path: Path) -> None:
    """Streamed or whole, the client's copy of a message says to the next turn what the model said."""
    answer = replay(PROTOCOL, [upstream(path)])
    completion = check_stream(answer.stream)
    if completion is None:
        return
    assert completion == answer.whole
    message = completion["choices"][0]["message"]
    calls = message.get("tool_calls", [])
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
    sent_back = turn(PROTOCOL, messages=[USER, message, *results]).request
    expected = (message.get("reasoning_content") or "", message["content"] or "", message["refusal"] or "")
    assert said(sent_back)[:3] == expected
    assert said(sent_back)[3] == [(call["id"], call[call["type"]]["name"]) for call in calls]
