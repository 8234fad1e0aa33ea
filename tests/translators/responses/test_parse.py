"""`POST /v1/responses` → `Turn`: every field has its stated action, and the answer repeats what was asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import JsonObject, JsonSchema, Note, Sampling, Thinking
from dragoman.translators.protocol import Context, Json, Turn
from dragoman.translators.responses import PROTOCOL
from dragoman.translators.responses.items import HOSTED_ITEMS
from dragoman.translators.responses.schema import CreateResponse
from tests.golden_files import request, requests
from tests.grammar.responses_objects import RESPONSE_SHAPE
from tests.responses_requests import PNG, parse, refused, user

CASES = requests("responses")


def created(turn: Turn) -> Json:
    """The response object as it goes out first."""
    event = json.loads(turn.stream.start()[0].split(b"data: ", 1)[1])
    assert event["type"] == "response.created"
    response: Json = event["response"]
    return response


def echo(**body: Any) -> Json:
    """What the response object says about the request."""
    return created(parse(**body))


# --------------------------------------------------------------------------------------------------------------- fields


def test_sampling_fields_and_extensions() -> None:
    asked: Json = {
        "temperature": 0,
        "top_p": 1,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "presence_penalty": -2,
        "frequency_penalty": 2.0,
        "seed": -7,
        "min_tokens": 0,
        "ignore_eos": True,
        "skip_special_tokens": False,
        "include_stop_str_in_output": True,
    }
    sampling = parse(**asked, stop=["a", "b"], logit_bias={"42": -100}, max_output_tokens=16).request.sampling
    assert sampling == Sampling(**asked, stop=("a", "b"), logit_bias={"42": -100})
    assert parse().request.sampling == Sampling()


def test_nulls_are_as_good_as_absence() -> None:
    fields = CreateResponse.model_fields
    turn = parse(**{name: None for name in fields if name not in ("model", "input")})
    assert turn.request == parse().request
    assert turn.notes == ()


@pytest.mark.parametrize("top_k", [0, -1])
def test_top_k_off(top_k: int) -> None:
    assert parse(top_k=top_k).request.sampling.top_k is None


def test_one_stop_string() -> None:
    assert parse(stop="END").request.sampling.stop == ("END",)
    assert parse(stop=[]).request.sampling.stop is None


@pytest.mark.parametrize(
    ("field", "value", "param", "code"),
    [
        ("model", None, "model", "invalid_type"),
        ("model", "", "model", "string_below_min_length"),
        ("model", 5, "model", "invalid_type"),
        ("instructions", 5, "instructions", "invalid_type"),
        ("instructions", ["x"], "instructions", "invalid_type"),
        ("max_output_tokens", 15, "max_output_tokens", "integer_below_min_value"),
        ("max_output_tokens", "16", "max_output_tokens", "invalid_type"),
        ("max_output_tokens", True, "max_output_tokens", "invalid_type"),
        ("max_output_tokens", 16.5, "max_output_tokens", "invalid_type"),
        ("max_output_tokens", 2**40, "max_output_tokens", "integer_above_max_value"),
        ("max_tool_calls", 0, "max_tool_calls", "integer_below_min_value"),
        ("temperature", 2.1, "temperature", "decimal_above_max_value"),
        ("temperature", -0.1, "temperature", "decimal_below_min_value"),
        ("temperature", "1", "temperature", "invalid_type"),
        ("temperature", True, "temperature", "invalid_type"),
        ("top_p", 1.01, "top_p", "decimal_above_max_value"),
        ("presence_penalty", -2.5, "presence_penalty", "decimal_below_min_value"),
        ("frequency_penalty", 3, "frequency_penalty", "decimal_above_max_value"),
        ("top_logprobs", 21, "top_logprobs", "integer_above_max_value"),
        ("top_logprobs", -1, "top_logprobs", "integer_below_min_value"),
        ("top_k", -2, "top_k", "integer_below_min_value"),
        ("min_p", 1.5, "min_p", "decimal_above_max_value"),
        ("repetition_penalty", 0, "repetition_penalty", "decimal_below_min_value"),
        ("seed", 1.5, "seed", "invalid_type"),
        ("seed", True, "seed", "invalid_type"),
        ("seed", 2**64, "seed", "integer_above_max_value"),
        ("min_tokens", -1, "min_tokens", "integer_below_min_value"),
        ("ignore_eos", 1, "ignore_eos", "invalid_type"),
        ("stop", "", "stop[0]", "string_below_min_length"),
        ("stop", ["a", ""], "stop[1]", "string_below_min_length"),
        ("stop", ["a"] * 17, "stop", "array_above_max_length"),
        ("stop", 5, "stop", "invalid_type"),
        ("logit_bias", {"5": 101}, "logit_bias.5", "decimal_above_max_value"),
        ("logit_bias", [], "logit_bias", "invalid_type"),
        ("stream", "true", "stream", "invalid_type"),
        ("stream_options", True, "stream_options", "invalid_type"),
        ("stream_options", {"include_obfuscation": 1}, "stream_options.include_obfuscation", "invalid_type"),
        ("parallel_tool_calls", "no", "parallel_tool_calls", "invalid_type"),
        ("store", "no", "store", "invalid_type"),
        ("metadata", {"k": 1}, "metadata.k", "invalid_type"),
        ("metadata", {"k" * 65: "v"}, "metadata", "string_above_max_length"),
        ("metadata", {"k": "v" * 513}, "metadata.k", "string_above_max_length"),
        ("metadata", {str(i): "" for i in range(17)}, "metadata", "array_above_max_length"),
        ("truncation", 5, "truncation", "invalid_type"),
        ("reasoning", "high", "reasoning", "invalid_type"),
        ("reasoning", {"effort": 3}, "reasoning.effort", "invalid_type"),
        ("reasoning", {"summary": 5}, "reasoning.summary", "invalid_type"),
        ("text", "plain", "text", "invalid_type"),
        ("text", {"verbosity": ["low"]}, "text.verbosity", "invalid_type"),
        ("text", {"format": "text"}, "text.format", "invalid_type"),
        ("text", {"format": {}}, "text.format.type", "missing_required_parameter"),
        ("text", {"format": {"type": "xml"}}, "text.format.type", "invalid_value"),
        ("text", {"format": {"type": "json_schema", "schema": {}}}, "text.format.name", "missing_required_parameter"),
        ("text", {"format": {"type": "json_schema", "name": "a"}}, "text.format.schema", "missing_required_parameter"),
        ("text", {"format": {"type": "json_schema", "name": "a", "schema": []}}, "text.format.schema", "invalid_type"),
        (
            "text",
            {"format": {"type": "json_schema", "name": "a", "schema": {}, "strict": 1}},
            "text.format.strict",
            "invalid_type",
        ),
        ("include", "reasoning.encrypted_content", "include", "invalid_type"),
        ("include", ["reasoning.encrypted_content", 5], "include[1]", "invalid_type"),
        ("background", True, "background", "unsupported_parameter"),
        ("previous_response_id", "resp_1", "previous_response_id", "previous_response_not_found"),
        ("conversation", "conv_1", "conversation", "unsupported_parameter"),
        ("conversation", {"id": "conv_1"}, "conversation", "unsupported_parameter"),
        ("prompt", {"id": "pmpt_1"}, "prompt", "unsupported_parameter"),
        ("moderation", {"model": "x"}, "moderation", "unsupported_parameter"),
        ("multi_agent", {"enabled": True}, "multi_agent", "unsupported_parameter"),
    ],
)
def test_wrong_fields_are_named(field: str, value: Any, param: str, code: str) -> None:
    error = refused(**{field: value})
    assert (error.param, error.code) == (param, code)


def test_the_model_is_required() -> None:
    with pytest.raises(GatewayError) as caught:
        PROTOCOL.parse({"input": "x"}, Context(id="0" * 24, clock=lambda: 1))
    assert (caught.value.param, caught.value.code) == ("model", "missing_required_parameter")


@pytest.mark.parametrize(
    ("body", "notes"),
    [
        ({"made_up": 1, "empty": {}}, ["made_up"]),
        ({"made_up": None}, []),
        ({"a\r\nset-cookie: x": 1}, ["a__set-cookie__x"]),
        ({"user": "me"}, ["user"]),
        ({"safety_identifier": "me"}, ["safety_identifier"]),
        ({"max_tool_calls": 1}, ["max_tool_calls"]),
        ({"truncation": "auto"}, []),
        ({"truncation": "disabled"}, []),
        ({"service_tier": "priority"}, ["service_tier"]),
        ({"service_tier": "auto"}, []),
        ({"text": {"verbosity": "low"}}, ["text.verbosity"]),
        ({"text": {"verbosity": "loud"}}, ["text.verbosity"]),
        ({"truncation": "middle"}, ["truncation"]),
        ({"include": ["reasoning.encrypted_content", "new.thing"]}, ["include.new.thing"]),
        ({"reasoning": {"effort": "ultra"}}, ["reasoning.effort"]),
        ({"reasoning": {"summary": "short"}}, ["reasoning.summary"]),
        ({"reasoning": {"generate_summary": "short"}}, ["reasoning.generate_summary"]),
        ({"reasoning": {"effort": "", "summary": "none"}, "text": {"verbosity": ""}}, []),
        ({"reasoning": {"mode": "pro"}}, ["reasoning.mode"]),
        ({"context_management": [{"type": "compaction"}]}, ["context_management"]),
        ({"previous_response_id": "", "conversation": "", "prompt": ""}, []),
        ({"reasoning": {"effort": "low", "context": "all_turns", "new": 1}}, ["reasoning.new"]),
        ({"metadata": {"a": "b"}, "client_metadata": {}, "prompt_cache_key": "k", "store": True, "include": []}, []),
        ({"prompt_cache_retention": "24h", "prompt_cache_options": {"mode": "implicit"}, "conversation": {}}, []),
    ],
)
def test_what_is_ignored_is_noted_where_it_matters(body: Json, notes: list[str]) -> None:
    assert parse(**body).notes == tuple(Note("field", name) for name in notes)


def test_the_answer_repeats_known_words_only() -> None:
    """The types of the SDKs are closed lists."""
    update = {"type": "configuration_update", "reasoning": {"effort": "Ultra"}, "text": {"verbosity": "LOW"}}
    said = echo(input=[update, {"role": "user", "content": "x"}], reasoning={"summary": "short"})
    assert said["reasoning"] == {"effort": "max", "summary": "auto"}
    assert said["text"]["verbosity"] == "low"
    assert echo(reasoning={"summary": "none"})["reasoning"] == {"effort": None, "summary": None}
    assert echo(text={"verbosity": "loud"})["text"]["verbosity"] == "medium"


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max", None])
def test_every_effort_is_kept(effort: str | None) -> None:
    assert parse(reasoning={"effort": effort, "summary": "auto"}).request.thinking == Thinking(effort=effort)


def test_formats() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    asked = {"type": "json_schema", "name": "answer", "schema": schema, "strict": True, "description": "d"}
    assert parse(text={"format": asked}).request.format == JsonSchema("answer", schema, True, "d")
    assert parse(text={"format": {"type": "json_object"}}).request.format == JsonObject()
    assert parse(text={"format": {"type": "text"}}).request.format is None


@pytest.mark.parametrize(
    ("body", "logprobs"),
    [
        ({}, None),
        ({"top_logprobs": 0}, None),
        ({"top_logprobs": 2}, 2),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 3}, 3),
        ({"include": ["reasoning.encrypted_content"]}, None),
    ],
)
def test_logprobs(body: Json, logprobs: int | None) -> None:
    assert parse(**body).request.logprobs == logprobs


@pytest.mark.parametrize(("asked", "kept"), [(True, True), (False, False), (None, True)])
def test_parallel_tool_calls(asked: bool | None, kept: bool) -> None:
    assert parse(parallel_tool_calls=asked).request.parallel_tool_calls is kept


def test_limits_model_and_streaming() -> None:
    turn = parse(model="some/model", max_output_tokens=99.0, stream=True)
    assert (turn.request.model, turn.request.max_tokens, turn.streaming) == ("some/model", 99, True)
    assert parse().streaming is False
    assert turn.request.id == "0" * 24


@pytest.mark.parametrize("header", ["thread-id", "session-id", "session_id"])
def test_affinity_comes_from_the_key_or_the_session(header: str) -> None:
    assert parse(headers={header: "t"}).request.affinity == "t"
    assert parse(headers={header: "t"}, prompt_cache_key="k").request.affinity == "k"
    assert parse().request.affinity is None


def test_a_configuration_update_wins_from_then_on() -> None:
    items = [
        user(),
        {"type": "configuration_update", "reasoning": {"effort": "low", "summary": "concise"}},
        {"type": "configuration_update", "reasoning": {"effort": "high"}, "text": {"format": {"type": "json_object"}}},
    ]
    turn = parse(input=items, reasoning={"effort": "none"}, text={"verbosity": "low"})
    assert turn.request.thinking.effort == "high"
    assert turn.request.format == JsonObject()
    assert len(turn.request.messages) == 1
    said = echo(input=items, reasoning={"effort": "none"}, text={"verbosity": "low"})
    assert said["reasoning"] == {"effort": "high", "summary": "concise"}
    assert said["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}
    update = {"type": "configuration_update", "text": {"format": {"type": "xml"}}}
    assert refused(input=[user(), update]).param == "input[1].text.format.type"
    assert refused(input=[{"type": "configuration_update", "reasoning": 5}]).param == "input[0].reasoning"


# ----------------------------------------------------------------------------------------------------------------- echo


def test_the_echo_has_no_null_where_strict_readers_refuse_one() -> None:
    said = echo()
    expected: Json = {
        "background": False,
        "frequency_penalty": 0,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "m",
        "parallel_tool_calls": True,
        "presence_penalty": 0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
    }
    assert {key: said[key] for key in expected} == expected
    assert "user" not in said


def test_the_echo_repeats_what_was_asked() -> None:
    asked: Json = {
        "instructions": "Be brief.",
        "max_output_tokens": 99,
        "max_tool_calls": 2,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "temperature": 0,
        "top_p": 0.5,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "top_logprobs": 2,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "user": "u",
    }
    said = echo(**asked, store=True, service_tier="priority", truncation="disabled")
    assert {key: said[key] for key in asked} == asked
    assert (said["store"], said["service_tier"]) == (False, "default")


def test_tools_are_echoed_as_declared_with_the_keys_that_readers_need() -> None:
    function = {"type": "function", "name": "f", "defer_loading": True}
    namespace = {"type": "namespace", "name": "n", "description": "", "tools": [function]}
    said = echo(tools=[function, namespace, {"type": "web_search"}], tool_choice={"type": "function", "name": "f"})
    assert said["tools"] == [
        {**function, "description": None, "parameters": None, "strict": None},
        namespace,
        {"type": "web_search"},
    ]
    assert said["tool_choice"] == {"type": "function", "name": "f"}


def test_the_echo_of_a_schema_and_of_allowed_tools_is_complete() -> None:
    tool = {"type": "function", "name": "f"}
    said = echo(
        tools=[tool],
        tool_choice={"type": "allowed_tools", "tools": [tool]},
        text={"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
    )
    assert said["tool_choice"] == {"type": "allowed_tools", "mode": "auto", "tools": [tool]}
    assert said["text"]["format"] == {
        "type": "json_schema",
        "name": "a",
        "schema": {"type": "object"},
        "description": None,
        "strict": False,
    }


# ----------------------------------------------------------------------------------------------------------- everything


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden_requests_are_accepted_unless_their_name_says_error(path: Path) -> None:
    body = request(path)
    before = json.dumps(body)
    context = Context(id="0" * 24, clock=lambda: 1)
    if path.stem.startswith("error_"):
        with pytest.raises(GatewayError) as caught:
            PROTOCOL.parse(body, context)
        assert caught.value.param
    else:
        turn = PROTOCOL.parse(body, context)
        assert turn.request == PROTOCOL.parse(body, context).request
        RESPONSE_SHAPE(created(turn), "response")
    assert json.dumps(body) == before, "the client's body is not changed"


SCALARS = st.none() | st.booleans() | st.integers(-3, 300) | st.floats(-3, 3) | st.sampled_from(["", "x", PNG])
KINDS = st.sampled_from(
    [
        *sorted(HOSTED_ITEMS),
        *("message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"),
        *("reasoning", "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output"),
        *("apply_patch_call", "apply_patch_call_output", "tool_search_call", "tool_search_output", "agent_message"),
        *("additional_tools", "configuration_update", "compaction", "compaction_trigger", "item_reference", "other"),
        *("function", "custom", "namespace", "tool_search", "local_shell", "shell", "apply_patch", "web_search"),
        *("input_text", "output_text", "refusal", "input_image", "input_file", "summary_text", "encrypted_content"),
        *("json_schema", "json_object", "text", "grammar", "allowed_tools", "auto", "exec"),
    ]
)
KEYS = st.sampled_from(
    [
        *("type", "role", "content", "text", "refusal", "image_url", "file_data", "detail", "call_id", "id", "name"),
        *("namespace", "arguments", "input", "output", "action", "operation", "summary", "encrypted_content", "tools"),
        *("status", "execution", "parameters", "description", "format", "environment", "schema", "strict", "mode"),
    ]
)
ROLES = st.sampled_from(["user", "assistant", "developer", "system"])
JSON = st.recursive(
    SCALARS | KINDS | ROLES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)
TYPED = st.builds(lambda kind, rest: {**rest, "type": kind}, KINDS, st.dictionaries(KEYS, JSON | ROLES, max_size=6))
FIELDS = st.sampled_from(
    [
        *("tools", "tool_choice", "text", "reasoning", "include", "metadata", "stop", "logit_bias", "temperature"),
        *("max_output_tokens", "stream_options", "conversation", "prompt", "instructions", "top_k", "made_up"),
    ]
)


@given(
    st.lists(TYPED | JSON, max_size=4) | SCALARS,
    st.dictionaries(FIELDS, JSON | st.lists(TYPED, max_size=3) | TYPED, max_size=4),
)
def test_nothing_but_a_gateway_error_ever_comes_out(items: Any, fields: Json) -> None:
    """Whatever a client sends: an answer is begun, or a fault is named."""
    error = None
    try:
        turn = parse(input=items, **fields)
    except GatewayError as caught:
        error = caught
    if error is not None:
        assert error.param
        assert PROTOCOL.error(error, "r").status == 400
    else:
        assert turn.request.messages
        RESPONSE_SHAPE(created(turn), "response")


def _search(number: int, found: Json) -> list[Json]:
    call = {"type": "tool_search_call", "call_id": f"s{number}", "execution": "client", "arguments": {"query": "x"}}
    return [call, {"type": "tool_search_output", "call_id": f"s{number}", "execution": "client", "tools": [found]}]


def _turn(number: int, shape: str, name: str, namespace: str | None) -> list[Json]:
    """What one turn of a session adds to `input`: the model's items, what the client answers, and the next question."""
    function: Json = {"type": "function", "name": name, "parameters": None}
    if namespace is not None:
        function = {"type": "namespace", "name": namespace, "description": "d", "tools": [function]}
    call = {"type": "function_call", "call_id": "c", "name": name, "namespace": namespace, "arguments": "{}"}
    added: dict[str, list[Json]] = {
        "text": [{"role": "assistant", "content": f"answer {number}"}],
        "call": [reasoning_item(number), call, {"type": "function_call_output", "call_id": "c", "output": "ok"}],
        "custom": [
            {"type": "custom_tool_call", "call_id": "c", "name": name, "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"},
        ],
        "search": _search(number, function),
        "tools": [{"type": "additional_tools", "role": "developer", "tools": [function]}],
        "reminder": [{"role": "developer", "content": f"reminder {number}"}],
    }
    return [*added[shape], user(f"question {number}")]


def reasoning_item(number: int) -> Json:
    return {"type": "reasoning", "content": [{"type": "reasoning_text", "text": f"thought {number}"}]}


TURNS = st.lists(
    st.tuples(
        st.sampled_from(["text", "call", "custom", "search", "tools", "reminder"]),
        st.sampled_from(["add", "a.b", "a_b", "n__add", "x" * 70]),
        st.sampled_from([None, "n", "n__", "m" * 70]),
    ),
    max_size=8,
)


@given(TURNS)
def test_what_a_turn_showed_is_a_prefix_of_what_the_next_one_shows(turns: list[tuple[str, str, str | None]]) -> None:
    """Messages and tools alike: else the server's cache of the prompt would be lost."""
    items: list[Json] = [user("begin")]
    before = parse(input=items).request
    for number, (shape, name, namespace) in enumerate(turns):
        items = items + _turn(number, shape, name, namespace)
        after = parse(input=items).request
        assert after.messages[: len(before.messages)] == before.messages
        assert after.tools[: len(before.tools)] == before.tools
        before = after
