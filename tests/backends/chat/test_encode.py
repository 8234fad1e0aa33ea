"""The body of a chat request: only what the server accepts, and a note for everything that was left out."""

import json
from dataclasses import replace
from typing import Any

import pytest

from dragoman.backends.chat.encode import encode, final, sent_fields
from dragoman.backends.chat.settings import PRESETS, Settings, resolve
from dragoman.translators.ir import (
    JsonObject,
    JsonSchema,
    Message,
    Named,
    Note,
    Reasoning,
    Request,
    Sampling,
    Text,
    Thinking,
    Tool,
)
from dragoman.translators.soft_words import EFFORTS
from tests.recording import ask

TOOL = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "number"}}}, strict=True)
OTHER = Tool("sub", "", {})
FULL = Sampling(
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    min_p=0.1,
    repetition_penalty=1.1,
    presence_penalty=0.2,
    frequency_penalty=0.3,
    seed=7,
    stop=("END",),
    min_tokens=3,
    ignore_eos=False,
    skip_special_tokens=True,
    include_stop_str_in_output=False,
    logit_bias={"5": -100},
)


def body(request: Request, settings: Settings | None = None, **options: Any) -> dict[str, Any]:
    """As JSON: what is sent."""
    settings, model = settings or Settings(), options.pop("model", None)
    value: dict[str, Any] = json.loads(final(encode(request, settings, **options)[0], settings, model))
    return value


def notes(request: Request, settings: Settings | None = None, **options: Any) -> list[str]:
    return [f"{note.kind}:{note.name}" for note in encode(request, settings or Settings(), **options)[1]]


def test_the_smallest_body() -> None:
    assert body(ask("hi")) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert notes(ask("hi")) == []


def test_the_upstream_model_name_beats_the_asked_one() -> None:
    assert body(ask(), model="served")["model"] == "served"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_sampling_field_is_sent_or_noted(preset: str) -> None:
    settings = resolve(preset)
    sent, left_out = body(ask(sampling=FULL), settings), set(notes(ask(sampling=FULL), settings))
    for name in Sampling.__slots__:
        own_name = settings.parameter_names.get(name, name)
        assert (own_name in sent) != (f"field:{name}" in left_out), name
        assert (own_name in sent) == (name in settings.parameters), name


def test_trtllm_gets_every_field_under_its_own_name() -> None:
    sent = body(ask(sampling=FULL), resolve("trtllm-serve"))
    assert {name: sent[name] for name in Sampling.__slots__} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "seed": 7,
        "stop": ["END"],
        "min_tokens": 3,
        "ignore_eos": False,
        "skip_special_tokens": True,
        "include_stop_str_in_output": False,
        "logit_bias": {"5": -100},
    }


def test_llama_cpp_calls_the_repetition_penalty_otherwise() -> None:
    sent = body(ask(sampling=Sampling(repetition_penalty=1.2)), resolve("llama.cpp"))
    assert sent["repeat_penalty"] == 1.2
    assert "repetition_penalty" not in sent


@pytest.mark.parametrize(
    ("preset", "asked", "expected"),
    [("generic", None, None), ("generic", 50, 50), ("triton-openai", None, 4096), ("vllm", None, None)],
)
def test_max_tokens(preset: str, asked: int | None, expected: int | None) -> None:
    sent = body(ask(max_tokens=asked), resolve(preset))
    assert sent.get("max_tokens") == expected
    assert "max_completion_tokens" not in sent


def test_max_tokens_under_its_newer_name() -> None:
    sent = body(ask(max_tokens=9), Settings(max_tokens_field="max_completion_tokens"))
    assert sent["max_completion_tokens"] == 9
    assert "max_tokens" not in sent


def test_tools_have_description_and_parameters_always() -> None:
    sent = body(ask(tools=(TOOL, OTHER)))
    assert [tool["function"] for tool in sent["tools"]] == [
        {"name": "add", "description": "Adds.", "parameters": TOOL.parameters},
        {"name": "sub", "description": "", "parameters": {"type": "object", "properties": {}}},
    ]
    assert sent["tool_choice"] == "auto"
    assert sent["parallel_tool_calls"] is True


def test_strict_is_sent_where_the_server_takes_it() -> None:
    first, second = body(ask(tools=(TOOL, OTHER)), resolve("trtllm-serve"))["tools"]
    assert first["function"]["strict"] is True
    assert "strict" not in second["function"]


@pytest.mark.parametrize(
    ("choice", "force", "sent_choice", "sent_tools"),
    [
        ("auto", "native", "auto", ["add", "sub"]),
        ("required", "native", "required", ["add", "sub"]),
        (Named("sub"), "native", {"type": "function", "function": {"name": "sub"}}, ["add", "sub"]),
        (Named("sub"), "required", "required", ["sub"]),
        ("required", "required", "required", ["add", "sub"]),
    ],
)
def test_tool_choice(choice: Any, force: Any, sent_choice: Any, sent_tools: list[str]) -> None:
    sent = body(ask(tools=(TOOL, OTHER), tool_choice=choice), Settings(force_tool=force))
    assert sent["tool_choice"] == sent_choice
    assert [tool["function"]["name"] for tool in sent["tools"]] == sent_tools


def test_tool_choice_none_drops_the_tools_or_says_none() -> None:
    request = ask(tools=(TOOL,), tool_choice="none")
    dropped = body(request, Settings(tool_choice_none="drop"))
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(dropped)
    sent = body(request, Settings(tool_choice_none="send"))
    assert (sent["tool_choice"], len(sent["tools"])) == ("none", 1)


def test_a_model_without_tools_gets_none_and_they_are_noted() -> None:
    settings = Settings(tools="forced_only")
    assert "tools" not in body(ask(tools=(TOOL,)), settings)
    assert notes(ask(tools=(TOOL,)), settings) == ["tool:auto:unsupported"]


def test_parallel_calls_are_not_noted_where_unknown_because_the_gateway_keeps_one_itself() -> None:
    settings = resolve("triton-openai")
    request = ask(tools=(TOOL,), parallel_tool_calls=False)
    assert "parallel_tool_calls" not in body(request, settings)
    assert notes(request, settings) == []


def test_usage_with_every_chunk_only_where_a_stream_may_be_ended_early() -> None:
    settings = resolve("vllm")
    assert body(ask(tools=(TOOL,)), settings)["stream_options"] == {"include_usage": True}
    early = body(ask(tools=(TOOL,), parallel_tool_calls=False), settings)
    assert early["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert "stream_options" not in body(ask(), Settings(usage="always"))


def test_formats() -> None:
    schema = JsonSchema("answer", {"type": "object"}, strict=True, description="d")
    assert body(ask(format=JsonObject()))["response_format"] == {"type": "json_object"}
    assert body(ask(format=schema))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"type": "object"}, "description": "d", "strict": True},
    }
    flat = body(ask(format=schema), Settings(schema_shape="flat"))["response_format"]
    assert flat == {"type": "json_schema", "schema": {"type": "object"}}


def test_logprobs() -> None:
    sent = body(ask(logprobs=3))
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 3)
    without = resolve("triton-openai")
    assert not {"logprobs", "top_logprobs"} & set(body(ask(logprobs=3), without))
    assert notes(ask(logprobs=3), without) == ["field:logprobs"]


@pytest.mark.parametrize(
    ("effort", "accepted", "sent"),
    [
        ("high", ("none", "low", "medium", "high"), "high"),
        ("max", ("none", "low", "medium", "high"), "high"),
        ("xhigh", ("low", "high", "max"), "high"),
    ],
)
def test_an_effort_becomes_the_nearest_that_the_server_knows(effort: str, accepted: tuple[str, ...], sent: str) -> None:
    settings = Settings(efforts=accepted)
    assert body(ask(thinking=Thinking(effort)), settings)["reasoning_effort"] == sent


def test_every_effort_is_accepted_by_every_preset() -> None:
    for preset in PRESETS:
        for effort in EFFORTS:
            encode(ask(thinking=Thinking(effort, 100)), resolve(preset))


def test_variables_of_the_template_go_to_servers_that_take_them() -> None:
    asked = ask(template_kwargs={"enable_thinking": True, "documents": [1]})
    assert body(asked, resolve("vllm"))["chat_template_kwargs"] == {"enable_thinking": True, "documents": [1]}
    both = replace(asked, thinking=Thinking("none"))
    assert body(both, resolve("llama.cpp"))["chat_template_kwargs"] == {"enable_thinking": True, "documents": [1]}
    assert "chat_template_kwargs" not in body(asked)
    assert notes(asked) == ["field:chat_template_kwargs"]
    refused = encode(asked, resolve("vllm"), {"chat_template_kwargs"})
    assert refused[1] == (Note("field", "chat_template_kwargs"),)


def test_a_switch_that_the_effort_says_too_is_not_noted() -> None:
    off = ask(template_kwargs={"enable_thinking": False}, thinking=Thinking("none"))
    assert body(off)["reasoning_effort"] == "none"
    assert notes(off) == []
    assert "field:chat_template_kwargs" in notes(off, Settings(thinking="none"))


def test_thinking_as_a_template_argument() -> None:
    settings = resolve("lmdeploy")
    assert body(ask(thinking=Thinking("none")), settings)["chat_template_kwargs"] == {"enable_thinking": False}
    assert body(ask(thinking=Thinking("low")), settings)["chat_template_kwargs"] == {"enable_thinking": True}
    assert "chat_template_kwargs" not in body(ask(), settings)


def test_a_budget_is_sent_or_noted() -> None:
    request = ask(thinking=Thinking(budget=1000))
    assert body(request, resolve("trtllm-serve"))["thinking_token_budget"] == 1000
    assert notes(request) == ["field:thinking_budget"]


def test_extra_body_wins_and_objects_are_merged() -> None:
    settings = resolve(
        "lmdeploy", {"extra_body": {"temperature": 0, "chat_template_kwargs": {"x": 1}, "cache_salt": "s"}}
    )
    sent = body(ask(sampling=Sampling(temperature=1.0), thinking=Thinking("low")), settings)
    assert sent["temperature"] == 0
    assert sent["chat_template_kwargs"] == {"enable_thinking": True, "x": 1}
    assert sent["cache_salt"] == "s"


def test_fields_that_the_server_refused_before_stay_out() -> None:
    request = ask(sampling=Sampling(top_k=5, seed=1), tools=(TOOL,))
    refused = {"top_k", "parallel_tool_calls", "stream_options"}
    sent = body(request, resolve("trtllm-serve"), refused=refused)
    assert not refused & set(sent)
    assert sent["seed"] == 1
    assert encode(request, resolve("trtllm-serve"), refused=refused)[1] == (Note("field", "top_k"),)


def test_numbers_and_texts_that_the_fast_encoder_refuses_are_sent_all_the_same() -> None:
    tool = Tool("t", "", {"type": "object", "maximum": 10**30})
    assert body(ask("half \ud83d", tools=(tool,)))["tools"][0]["function"]["parameters"]["maximum"] == 10**30


def begun(said: str = "The answer is (", **changes: Any) -> Request:
    """A request whose last message is the beginning of the answer."""
    messages = (*ask().messages, Message("assistant", (Text(said),)))
    return ask(**{"messages": messages, "prefill": True, **changes})


def continues(request: Request, **options: Any) -> bool:
    sent = body(request, resolve("vllm"), **options)
    assert ("item:prefill" in notes(request, resolve("vllm"), **options)) != ("continue_final_message" in sent)
    assert sent.get("continue_final_message") in (True, None)
    assert ("continue_final_message" in sent) == (sent.get("add_generation_prompt") is False)
    return "continue_final_message" in sent


LLAMA = resolve("llama.cpp")


def test_a_server_that_goes_on_unasked_does_not_think() -> None:
    for thinking in (Thinking(), Thinking("high"), Thinking("none")):
        request = begun(thinking=thinking, template_kwargs={"enable_thinking": True, "greeting": "Hi"})
        sent = body(request, LLAMA)
        assert sent["messages"][-1]["role"] == "assistant"
        assert sent["chat_template_kwargs"] == {"enable_thinking": False, "greeting": "Hi"}
        assert notes(request, LLAMA) == (["field:reasoning_effort"] if thinking.effort == "high" else [])
    assert "chat_template_kwargs" not in body(begun(), resolve("llama.cpp", {"thinking": "none"}))


@pytest.mark.parametrize(
    ("changes", "noted"),
    [({"prefill": False}, []), ({"format": JsonObject()}, ["item:prefill"]), ({"said": " "}, ["item:prefill"])],
)
def test_a_last_message_that_is_not_to_be_continued_is_followed_by_one_of_the_users(
    changes: dict[str, Any], noted: list[str]
) -> None:
    """As opencode's, which tells the model in the assistant's name that it has no steps left."""
    request = begun(**changes)
    sent = body(request, LLAMA)
    assert [message["role"] for message in sent["messages"][-2:]] == ["assistant", "user"]
    assert "chat_template_kwargs" not in sent
    assert notes(request, LLAMA) == noted
    kept = body(request, resolve("llama.cpp", {"last_assistant": "turn"}))
    assert kept["messages"] == sent["messages"][:-1]


def test_a_server_that_can_goes_on_with_the_last_message() -> None:
    assert continues(begun())
    assert continues(begun(tools=(TOOL,)))
    assert {preset for preset in PRESETS if resolve(preset).continue_final_message} == {"vllm", "sglang"}
    assert notes(begun()) == ["item:prefill"]
    other = ask(messages=begun().messages)
    assert not {"continue_final_message", "add_generation_prompt"} & body(other, resolve("vllm")).keys()
    assert notes(other, resolve("vllm")) == []


@pytest.mark.parametrize(
    "asked",
    [
        begun(" "),
        begun(messages=(Message("user", (Text("a"),)), Message("assistant", (Reasoning("hm"),)))),
        begun(messages=(*begun().messages, Message("user", (Text("Answer as JSON."),)))),
        begun(format=JsonObject()),
        begun(tools=(TOOL,), tool_choice="required"),
        begun(tools=(TOOL,), tool_choice=Named("add")),
    ],
)
def test_what_is_forced_on_an_answer_is_not_begun_in_the_middle(asked: Request) -> None:
    assert not continues(asked)


@pytest.mark.parametrize("refused", ["continue_final_message", "add_generation_prompt"])
def test_a_server_that_refuses_one_of_the_two_fields_gets_neither(refused: str) -> None:
    assert refused in sent_fields(begun(), resolve("vllm"))
    assert not continues(begun(), refused={refused})


def test_reasoning_of_earlier_turns_that_the_server_does_not_take_is_noted() -> None:
    request = ask(messages=(Message("assistant", (Reasoning("hm"), Text("yes"))), Message("user", (Text("so?"),))))
    assert notes(request) == ["item:reasoning"]
    assert notes(request, resolve("vllm")) == []
    assert notes(ask()) == []


def test_only_a_server_that_can_say_how_far_it_is_with_a_prompt_is_asked_to() -> None:
    assert [name for name in PRESETS if "return_progress" in body(ask(), resolve(name))] == ["llama.cpp"]
    assert body(ask(), resolve("llama.cpp"))["return_progress"] is True
    assert "return_progress" in sent_fields(ask(), resolve("llama.cpp"))
    assert "return_progress" not in body(ask(), resolve("llama.cpp"), refused={"return_progress"})
    assert "return_progress" not in sent_fields(ask(), resolve("llama.cpp"), refused={"return_progress"})
