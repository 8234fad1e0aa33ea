"""Which body fields a refusal names, by its fields or by its words, and how long what was learned is remembered; then
the chat backend, which leaves them out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from dragoman.backends.chat import refused_fields
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.refused_fields import MAX_MODELS, TTL, RefusedFields, by_fields, by_words
from dragoman.backends.chat.settings import resolve
from dragoman.backends.refusal import read
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Note, Sampling, Tool
from tests.recording import Recorder, answered, ask
from tests.scripted import Script, ScriptedServer, text_stream

HELLO = text_stream("Hel", "lo")
TOOL = Tool("add", "Adds.", {"type": "object"})
SENT = {"top_k", "seed", "stop", "stream_options", "continuous_usage_stats"}


def forbidden(*loc: Any, type: str = "extra_forbidden") -> dict[str, Any]:
    return {"type": type, "loc": list(loc), "msg": "Extra inputs are not permitted", "input": 5}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"detail": [forbidden("body", "top_k"), forbidden("body", "seed")]}, {"top_k", "seed"}),
        ({"detail": [forbidden("top_k")]}, {"top_k"}),
        ({"detail": [forbidden("body", "top_k", type="value_error.extra")]}, {"top_k"}),
        ({"error": {"message": [forbidden("body", "top_k")], "code": 400}}, {"top_k"}),
        ({"error": [forbidden("top_k")]}, {"top_k"}),
        ({"detail": [forbidden("body", "stream_options", "continuous_usage_stats")]}, {"continuous_usage_stats"}),
        ({"error": {"message": "No.", "param": "top_k", "code": "unknown_parameter"}}, {"top_k"}),
        ({"error": {"message": "No.", "param": "top_k", "code": "unsupported_parameter"}}, {"top_k"}),
        ({"error": {"message": "No.", "param": "body.top_k", "type": "unrecognized_request_argument"}}, {"top_k"}),
        (
            {"object": "error", "message": "No.", "param": "top_k", "type": "unknown_parameter", "code": 400},
            {"top_k"},
        ),
        # a value that is refused, and names that are somewhere else in the request
        ({"error": {"message": "Bad.", "param": "top_k", "code": "invalid_value"}}, set()),
        ({"error": {"message": "Bad.", "param": "top_k", "type": "BadRequestError", "code": 400}}, set()),
        ({"error": {"message": "Bad.", "param": "top_k", "code": "unsupported_value"}}, set()),
        ({"detail": [forbidden("body", "top_k", type="int_parsing")]}, set()),
        ({"detail": [forbidden("body", "tools", 0, "function", "parameters", "top_k")]}, set()),
        ({"detail": [forbidden("body", "messages", 0, "top_k")]}, set()),
        ({"detail": [forbidden("query", "top_k")]}, set()),
        (
            {"error": {"message": "No.", "param": "tools[0].function.top_k", "code": "unknown_parameter"}},
            set(),
        ),
        ({"error": {"message": "No.", "param": "tools.0.top_k", "code": "unknown_parameter"}}, set()),
        ({"detail": [forbidden("body", "min_p")]}, set()),
        # words, in whatever clothes
        ({"error": {"message": "Unknown parameter: 'top_k'", "code": 400}}, set()),
        ({"error": str([{"type": "extra_forbidden", "loc": ("body", "top_k"), "msg": "Extra"}])}, set()),
        ({"detail": "Unsupported parameter: top_k"}, set()),
        ({"error": orjson.dumps({"param": "top_k", "code": "unknown_parameter"}).decode()}, set()),
        (
            {"detail": [{"type": "x", "loc": ["body", "stop"], "msg": "No.", "input": [forbidden("body", "top_k")]}]},
            set(),
        ),
        (
            {"error": {"message": "No.", "metadata": {"param": "top_k", "code": "unknown_parameter"}}},
            set(),
        ),
    ],
)
def test_which_fields_the_fields_of_a_refusal_name(body: object, expected: set[str]) -> None:
    assert by_fields(read(orjson.dumps(body)), SENT) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "2 validation errors\ntop_k\n  Extra inputs are not permitted\nseed\n  Extra inputs are not permitted",
            {"top_k", "seed"},
        ),
        (
            "1 validation error for ChatCompletionRequest\ntop_k\n  Extra inputs are not permitted "
            "[type=extra_forbidden, input_value=5, input_type=int]",
            {"top_k"},
        ),
        ("[{'type': 'extra_forbidden', 'loc': ('top_k',), 'msg': 'Extra inputs are not permitted'}]", {"top_k"}),
        (
            "{'type': 'extra_forbidden', 'loc': ('body', 'top_k'), 'msg': 'Extra inputs', 'input': {'seed': 3}}",
            {"top_k"},
        ),
        ('[{"type":"extra_forbidden","loc":["body","top_k"],"msg":"x"}] and more', {"top_k"}),
        ("body.top_k: Extra inputs are not permitted", {"top_k"}),
        ("Unsupported parameter: 'seed' is not supported with this model.", {"seed"}),
        ("Unrecognized request argument supplied: top_k", {"top_k"}),
        ("Unknown parameter: `TOP_K`.", {"top_k"}),
        ("Parameter 'top_k' is not supported by this model", {"top_k"}),
        ("seed is not supported yet", {"seed"}),
        ("Error from provider: Extra inputs are not permitted, field: 'top_k', value: 3", {"top_k"}),
        ("Extra inputs are not permitted, field: 'messages[8].seed', value: 3", set()),
        ("Unsupported parameter(s): `top_k`", {"top_k"}),
        ("Additional properties are not allowed ('top_k' was unexpected)", {"top_k"}),
        ("seed is not currently supported", {"seed"}),
        ("stop must have at most 4 elements; the seed is fine", set()),
        ("Unsupported value: 'seed' does not support -1", set()),
        ("my_seed is not supported", set()),
        ("extra_forbidden: {'seed': 1}", set()),
        ("stream_options.continuous_usage_stats\n  Extra inputs are not permitted", {"continuous_usage_stats"}),
        ("Unknown parameter: 'stream_options'. continuous_usage_stats is not supported", {"continuous_usage_stats"}),
    ],
)
def test_which_fields_its_words_name(text: str, expected: set[str]) -> None:
    assert by_words(read(orjson.dumps({"error": text})), SENT) == expected


# -------------------------------------------------------------------------------------------------------------- memory


def test_what_was_learned_is_tried_again_after_some_minutes() -> None:
    now = 1000.0
    fields = RefusedFields(lambda: now)
    fields.learn("m", {"top_k"})
    now += TTL / 2
    fields.learn("m", {"seed"})
    assert fields.of("m") == {"top_k", "seed"}
    now += TTL / 2
    assert fields.of("m") == {"seed"}
    now += TTL / 2
    assert fields.of("m") == frozenset()
    assert 60 <= TTL <= 3600


def test_it_is_learned_for_one_model_alone() -> None:
    fields = RefusedFields()
    fields.learn("m", {"top_k"})
    assert fields.of("other") == frozenset()


def test_the_names_of_models_cannot_fill_the_memory() -> None:
    fields = RefusedFields()
    for number in range(3 * MAX_MODELS):
        fields.learn(f"m{number}", {"top_k"})
    known = [number for number in range(3 * MAX_MODELS) if fields.of(f"m{number}")]
    assert known == list(range(2 * MAX_MODELS, 3 * MAX_MODELS))


# --------------------------------------------------------------------------------------------------------- the backend


@asynccontextmanager
async def serving(*scripts: Any) -> AsyncIterator[tuple[ScriptedServer, ChatCompletions]]:
    async with ScriptedServer(*scripts, Script(HELLO), Script(HELLO)) as server:
        backend = ChatCompletions(server.url, settings=resolve("sglang"))
        try:
            yield server, backend
        finally:
            await backend.close()


FORBIDDEN = {"type": "extra_forbidden", "loc": ["body", "top_k"], "msg": "Extra inputs are not permitted", "input": 5}
REFUSED_BY_FIELDS: dict[str, Any] = {
    "fastapi": {"detail": [FORBIDDEN]},
    "openai": {"error": {"message": "Unknown parameter.", "param": "top_k", "code": "unknown_parameter"}},
    "flat": {"object": "error", "message": "No.", "type": "unsupported_parameter", "param": "top_k", "code": 400},
}
REFUSED_BY_WORDS: dict[str, Any] = {
    "trtllm-serve": {
        "error": "1 validation error for ChatCompletionRequest\ntop_k\n  Extra inputs are not permitted "
        "[type=extra_forbidden, input_value=5, input_type=int]"
    },
    "vllm": {"object": "error", "message": str([FORBIDDEN]), "type": "Bad Request", "param": None, "code": 400},
    "openai": {"error": {"message": "Unrecognized request argument supplied: top_k", "type": "invalid_request_error"}},
    "nim": {"detail": "Unsupported parameter: top_k"},
    "plain": {"message": "Parameter 'top_k' is not supported by this model"},
}
WITH_TOP_K = ask(sampling=Sampling(top_k=5, temperature=0.5))


def sent_top_k(server: ScriptedServer) -> list[bool]:
    assert all("temperature" in (seen.body or {}) for seen in server.chats)
    return ["top_k" in (seen.body or {}) for seen in server.chats]


@pytest.mark.parametrize("wording", REFUSED_BY_FIELDS)
@pytest.mark.parametrize("status", [400, 422])
async def test_a_parameter_that_a_refusal_s_fields_name_is_left_out_for_a_while(status: int, wording: str) -> None:
    refusal = Script.json(REFUSED_BY_FIELDS[wording], status)
    async with serving(refusal) as (server, backend):
        learned: list[str] = []
        backend.learned = learned.append
        assert (await backend.prepare(WITH_TOP_K)).notes == ()
        sink = Recorder()
        await answered(backend, WITH_TOP_K, sink)
        assert sink.text == "Hello"
        assert sink.notes == [Note("field", "top_k")]
        assert learned == ["top_k"]
        assert (await backend.prepare(WITH_TOP_K)).notes == (Note("field", "top_k"),)
        await answered(backend, WITH_TOP_K, Recorder())
        assert sent_top_k(server) == [True, False, False]
        assert (await backend.prepare(replace(WITH_TOP_K, model="another"))).notes == ()


async def test_it_is_tried_again_after_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_fields, "TTL", 0.0)
    refusal = Script.json(REFUSED_BY_FIELDS["openai"], 400)
    async with serving(refusal) as (server, backend):
        await answered(backend, WITH_TOP_K, Recorder())
        assert (await backend.prepare(WITH_TOP_K)).notes == ()
        await answered(backend, WITH_TOP_K, Recorder())
        assert sent_top_k(server) == [True, False, True]


@pytest.mark.parametrize("wording", REFUSED_BY_WORDS)
async def test_a_parameter_that_only_its_words_name_is_left_out_of_that_request(wording: str) -> None:
    refusal = Script.json(REFUSED_BY_WORDS[wording], 400)
    async with serving(refusal) as (server, backend):
        learned: list[str] = []
        backend.learned = learned.append
        sink = Recorder()
        await answered(backend, WITH_TOP_K, sink)
        assert sink.text == "Hello"
        assert sink.notes == [Note("field", "top_k")]
        assert (await backend.prepare(WITH_TOP_K)).notes == ()
        await answered(backend, WITH_TOP_K, Recorder())
        assert sent_top_k(server) == [True, False, True]
        assert learned == []


async def test_parameters_are_left_out_one_after_another_and_never_twice() -> None:
    request = ask(sampling=Sampling(top_k=5, seed=1), logprobs=3, tools=(TOOL,), parallel_tool_calls=False)
    names = ["top_k", "continuous_usage_stats", "top_logprobs", "stream_options", "seed", "seed"]
    refusals = [Script.json({"error": f"Unknown parameter: '{name}'"}, 400) for name in names]
    async with serving() as (server, backend):
        server.queue.clear()
        server.add(*refusals)
        with pytest.raises(GatewayError) as caught:
            await answered(backend, request, Recorder())
        assert caught.value.kind is Kind.INVALID
        bodies = [seen.body or {} for seen in server.chats]
    assert len(bodies) == len(names)
    assert bodies[0]["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert bodies[2]["stream_options"] == {"include_usage": True}
    assert [name for name in names if name in bodies[-1]] == []
    assert bodies[-1]["logprobs"] is True
