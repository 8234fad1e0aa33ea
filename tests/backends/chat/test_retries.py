"""What the chat backend asks a second time, and what it does not: over real sockets, against a scripted server."""

from typing import Any

import pytest

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Image,
    JsonObject,
    JsonSchema,
    Message,
    Named,
    Note,
    PartEnded,
    Reasoning,
    Sampling,
    StopReason,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
)
from dragoman.translators.unreadable import NOT_TAKEN_IMAGE, UNSEEN_IMAGE
from tests.backends.chat.serving_backend import HELLO, TOOL, failure, serving
from tests.event_grammar import plain
from tests.recording import Recorder, answered, ask
from tests.scripted import Script, call_stream, sse, text_stream, usage

pytestmark = pytest.mark.usefixtures("each_http_client")


async def test_a_pooled_connection_that_had_died_is_asked_again_on_a_fresh_one() -> None:
    async with serving(Script(HELLO), Script(HELLO, drop_reused=True)) as (server, backend):
        await answered(backend, ask(), Recorder())
        sink = Recorder()
        await answered(backend, ask(), sink)
        assert sink.text == "Hello"
        assert [seen.reused for seen in server.chats] == [False, True, False]


async def test_a_fresh_connection_that_dies_is_not_asked_again() -> None:
    async with serving(Script(b"", unterminated=True, cut_at=0), preset="llama.cpp") as (server, backend):
        assert (await failure(answered(backend, ask(), Recorder()))).kind is Kind.BACKEND_FAILED
        assert len(server.chats) == 1


async def test_no_second_attempt_where_the_setting_says_so() -> None:
    scripts = Script(HELLO), Script(HELLO, drop_reused=True)
    async with serving(*scripts, overrides={"retry_stale": False}) as (server, backend):
        await answered(backend, ask(), Recorder())
        await failure(answered(backend, ask(), Recorder()))
        assert len(server.chats) == 2


async def test_llama_cpp_gets_a_new_connection_for_every_stream() -> None:
    async with serving(Script(HELLO), Script(HELLO), preset="llama.cpp") as (server, backend):
        await answered(backend, ask(), Recorder())
        await answered(backend, ask(), Recorder())
        assert not any(seen.reused for seen in server.chats)


BAD_EFFORT = {
    "words": {"error": "reasoning_effort: Input should be 'low', 'medium' or 'high'"},
    "loc": {"detail": [{"type": "literal_error", "loc": ["body", "reasoning_effort"], "msg": "Input should be 'low'"}]},
    "param": {"error": {"message": "Invalid value.", "param": "reasoning_effort", "code": "invalid_value"}},
    "sglang, gpt-oss": {"object": "error", "message": "Harmony does not support reasoning effort none", "code": 400},
    "ollama": {"error": {"message": 'invalid reasoning value: "none" (must be "low" or "high")', "code": None}},
    "ollama, a model without thoughts": {"error": {"message": '"llama3.1:8b" does not support thinking'}},
}


@pytest.mark.parametrize("said", BAD_EFFORT.values(), ids=BAD_EFFORT)
async def test_an_effort_whose_value_is_refused_is_left_out_of_this_request_only(said: Any) -> None:
    request = ask(thinking=Thinking("none"))
    async with serving(Script.json(said, 400), Script(HELLO), Script(HELLO), preset="trtllm-serve") as (
        server,
        backend,
    ):
        sink = Recorder()
        await answered(backend, request, sink)
        assert sink.notes == [Note("field", "reasoning_effort")]
        await answered(backend, request, Recorder())
        assert ["reasoning_effort" in (seen.body or {}) for seen in server.chats] == [True, False, True]


CALL_IDS = [
    (400, "Tool call IDs should be alphanumeric strings with length 9!"),  # SGLang, vLLM
    (500, "\n------\n...↵ ^\nError: Jinja Exception: Tool call IDs should be alphanumeric strings with length 9!"),
    (404, "Tool call IDs should be alphanumeric strings with length 9!"),  # mlx-lm
    (400, "Tool call id was call_x but must be a-z, A-Z, 0-9, with a length of 9."),
]


@pytest.mark.parametrize(("status", "words"), CALL_IDS)
async def test_refused_ids_of_calls_become_nine_letters_and_digits(status: int, words: str) -> None:
    called = (
        Message("user", (Text("go"),)),
        Message("assistant", (ToolCall("call_1f", "add", "{}"), ToolCall("abcDEF123", "add", "{}"))),
        Message("tool", (ToolResult("call_1f", (Text("3"),)), ToolResult("abcDEF123", (Text("4"),)))),
    )
    refusal = Script.json({"error": {"message": words}}, status)
    async with serving(refusal, Script(HELLO), overrides={"retry_stale": True}) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(messages=called, tools=(TOOL,)), sink)
        assert sink.notes == [Note("repair", "call_ids")]
        sent = (server.chats[1].body or {})["messages"]
    first, second = (call["id"] for call in sent[1]["tool_calls"])
    assert len(first) == 9
    assert first.isalnum()
    assert second == "abcDEF123"
    assert [message["tool_call_id"] for message in sent[2:]] == [first, second]


ORDERS = [
    (400, "After the optional system message, conversation roles must alternate user and assistant roles"),
    (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
    (400, "Unexpected role 'user' after role 'tool'"),
    (500, "Jinja Exception: System message must be at the beginning."),
]
INTERRUPTED = (
    Message("user", (Text("go"),)),
    Message("assistant", (ToolCall("c", "add", "{}"),)),
    Message("tool", (ToolResult("c", (Text("3"),)),)),
    Message("system", (Text("Be brief."),)),
    Message("user", (Text("And?"),)),
)


@pytest.mark.parametrize(("status", "words"), ORDERS)
async def test_a_refused_order_of_roles_becomes_one_that_every_template_takes(status: int, words: str) -> None:
    refusal = Script.json({"error": {"message": words}}, status)
    async with serving(refusal, Script(HELLO), refusal, Script(HELLO), preset="vllm") as (server, backend):
        for _ in range(2):  # the words may be a client's, so nothing is learned from them
            sink = Recorder()
            await answered(backend, ask(messages=INTERRUPTED, tools=(TOOL,)), sink)
            assert sink.notes == [Note("repair", "turns")]
        orders = [[message["role"] for message in (seen.body or {})["messages"]] for seen in server.chats]
    assert orders[:2] == [
        ["user", "assistant", "tool", "system", "user"],
        ["user", "assistant", "tool", "assistant", "user"],
    ]
    assert orders[2:] == orders[:2]


@pytest.mark.parametrize(
    "words",
    [
        "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
        "Assistant response prefill is incompatible with enable_thinking.",
    ],
)
async def test_a_last_message_of_the_assistants_that_is_refused_is_followed_by_one_of_the_users(words: str) -> None:
    messages = (*INTERRUPTED[:1], Message("assistant", (Text("No steps are left."),)))
    async with serving(Script.json({"error": {"message": words}}, 400), Script(HELLO)) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(messages=messages), sink)
        assert sink.notes == [Note("repair", "turns")]
        roles = [message["role"] for message in (server.chats[1].body or {})["messages"]]
    assert roles == ["user", "assistant", "user"]


BLIND = [
    (400, "m is not a multimodal model"),
    (404, "No endpoints found that support image input"),
    (500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"),
]
LOOKED = (
    Message("user", (Text("Look."),)),
    Message("assistant", (ToolCall("c", "view_image", "{}"),)),
    Message("tool", (ToolResult("c", (Image("data:image/png;base64,AAAA"),)),)),
)


@pytest.mark.parametrize(("status", "words"), BLIND)
async def test_an_image_of_a_tool_s_that_the_model_cannot_see_is_a_note_in_this_and_every_later_turn(
    status: int, words: str
) -> None:
    """A refusal would come back with each of them."""
    refusal = Script.json({"error": {"message": words}}, status)
    later = (*LOOKED, Message("assistant", (Text("I cannot see it."),)), Message("user", (Text("And now?"),)))
    async with serving(refusal, Script(HELLO), refusal, Script(HELLO)) as (server, backend):
        for messages in (LOOKED, later):
            sink = Recorder()
            await answered(backend, ask(messages=messages, tools=(TOOL,)), sink)
            assert sink.notes == [Note("item", "image")]
        (_, first, _, second) = ((seen.body or {})["messages"] for seen in server.chats)
    assert first[-1]["content"] == UNSEEN_IMAGE
    assert second[: len(first)] == first


async def test_images_that_are_refused_within_the_stream_are_left_out_too() -> None:
    refusal = Script(sse({"error": {"message": "Model does not support images. Please use a model that does."}}))
    async with serving(refusal, Script(HELLO), refusal, refusal) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(messages=LOOKED, tools=(TOOL,)), sink)
        assert (sink.text, sink.notes) == ("Hello", [Note("item", "image")])
        assert (server.chats[1].body or {})["messages"][-1]["content"] == NOT_TAKEN_IMAGE
        assert (await failure(answered(backend, ask(messages=LOOKED, tools=(TOOL,)), Recorder()))).kind is (
            Kind.UNSUPPORTED
        )
        assert len(server.chats) == 4


async def test_an_image_that_the_answer_is_about_is_refused_where_the_model_cannot_see_it() -> None:
    status, words = BLIND[0]
    messages = (*LOOKED, Message("user", (Text("And this?"), Image("data:image/png;base64,AAAB", path="input[3]"))))
    async with serving(Script.json({"error": {"message": words}}, status)) as (server, backend):
        with pytest.raises(GatewayError, match="does not see images") as caught:
            await answered(backend, ask(messages=messages, tools=(TOOL,)), Recorder())
        assert len(server.chats) == 1
    assert (caught.value.kind, caught.value.content, caught.value.param) == (Kind.UNSUPPORTED, "image", "input[3]")


@pytest.mark.parametrize(
    ("status", "words", "left"),
    [
        (400, "At most 1 image(s) may be provided in one prompt.", ["AAAB"]),
        (400, "Image count 2 exceeds limit 1 per request.", ["AAAB"]),
        (500, "this model only supports one image while more than one image requested", ["AAAB"]),
        (400, "Failed to load image or audio file", []),
        (422, "Input validation error: invalid image: Format error decoding Png", []),
        (500, "An exception occurred while loading multimodal data: Incorrect padding", []),
        (500, "cannot identify image file <_io.BytesIO object at 0x7f>", []),
    ],
)
async def test_images_that_a_server_does_not_take_are_left_out_of_the_history(
    status: int, words: str, left: list[str]
) -> None:
    refusal = Script.json({"error": {"message": words}}, status)
    again = (
        Message("assistant", (ToolCall("d", "view_image", "{}"),)),
        Message("tool", (ToolResult("d", (Image("data:image/png;base64,AAAB"),)),)),
    )
    async with serving(refusal, Script(HELLO), refusal, refusal) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(messages=(*LOOKED, *again), tools=(TOOL,)), sink)
        assert sink.notes == [Note("item", "image")]
        sent = str((server.chats[1].body or {})["messages"])
        assert [data for data in ("AAAA", "AAAB") if data in sent] == left
        assert NOT_TAKEN_IMAGE in sent
        await failure(answered(backend, ask(messages=(*LOOKED, *again), tools=(TOOL,)), Recorder()))
        assert len(server.chats) == 4, "what is refused again is not asked again"


CHOICES = [
    "Invalid tool_choice type: 'object'. Supported string values: none, auto, required",  # LM Studio
    "tool_choice='required' is not supported for this model.",  # trtllm-serve
]


@pytest.mark.parametrize("words", CHOICES)
async def test_a_call_that_the_server_cannot_force_is_asked_for_in_words(words: str) -> None:
    refusal = Script.json({"error": words}, 400)
    async with serving(refusal, Script(call_stream(("add", '{"a": 1}'))), refusal, refusal) as (server, backend):
        forced = ask(tools=(TOOL,), tool_choice=Named("add"))
        sink = Recorder()
        await answered(backend, forced, sink)
        assert plain(sink.events) == [("call", "add", '{"a": 1}')]
        assert Note("unenforced", "tool_choice") in sink.notes
        sent = [(seen.body or {}).get("tool_choice") for seen in server.chats]
        assert sent == [{"type": "function", "function": {"name": "add"}}, "auto"]
        assert (await failure(answered(backend, forced, Recorder()))).kind is Kind.INVALID
        assert len(server.chats) == 4


async def test_a_turn_of_nothing_but_thoughts_is_left_out_where_it_is_refused() -> None:
    words = "Invalid assistant message: role='assistant' content='' tool_calls=None prefix=False"
    messages = (
        Message("user", (Text("go"),)),
        Message("assistant", (Reasoning("Hm"),)),
        Message("user", (Text("Well?"),)),
    )
    async with serving(Script.json({"error": {"message": words}}, 400), Script(HELLO), preset="vllm") as (_, backend):
        sink = Recorder()
        await answered(backend, ask(messages=messages), sink)
        assert (sink.text, sink.notes) == ("Hello", [Note("repair", "reasoning_field")])


@pytest.mark.parametrize("wanted", [JsonObject(), JsonSchema("point", {"type": "object", "required": ["a"]})])
async def test_a_json_format_that_the_server_refuses_is_asked_for_in_words(wanted: JsonObject | JsonSchema) -> None:
    refusal = Script.json({"error": "'response_format.type' must be 'json_schema' or 'text'"}, 400)  # LM Studio
    answers = [Script(text_stream(text)) for text in ("Sure!", '{"a": 1}')]
    async with serving(refusal, *answers, refusal, refusal) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(format=wanted), sink)
        assert sink.text == '{"a": 1}'
        assert sink.notes == [Note("unenforced", "format")]
        assert ["response_format" in (seen.body or {}) for seen in server.chats] == [True, False, False]
        assert (await failure(answered(backend, ask(format=wanted), Recorder()))).kind is Kind.INVALID


async def test_schemas_of_tools_that_a_grammar_cannot_hold_are_plain_the_second_time() -> None:
    words = "Failed to initialize samplers: failed to parse grammar"
    tool = Tool("find", "", {"type": "object", "properties": {"day": {"type": "string", "pattern": r"^\d+$"}}})
    refusal = Script.json({"error": {"message": words}}, 400)
    async with serving(refusal, Script(HELLO), refusal) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(tools=(tool,)), sink)
        assert sink.notes == [Note("repair", "tool_schemas")]
        sent = [str((seen.body or {})["tools"][0]["function"]["parameters"]) for seen in server.chats]
        assert ["'pattern'" in each for each in sent] == [True, False]
        assert (await failure(answered(backend, ask(tools=(TOOL,)), Recorder()))).kind is Kind.INVALID
        assert len(server.chats) == 3


@pytest.mark.parametrize("overrides", [{}, {"turns": "alternate", "system_messages": "user"}, {"retry_stale": False}])
async def test_an_order_that_is_strict_already_or_is_to_stay_is_asked_once(overrides: dict[str, Any]) -> None:
    messages = INTERRUPTED if overrides else INTERRUPTED[:1]
    refusal = Script.json({"error": {"message": ORDERS[2][1]}}, 400)
    async with serving(refusal, Script(HELLO), overrides=overrides) as (server, backend):
        assert (await failure(answered(backend, ask(messages=messages), Recorder()))).kind is Kind.INVALID
        assert len(server.chats) == 1


async def test_a_refused_value_or_an_essential_field_is_not_left_out() -> None:
    value = Script.json({"error": {"message": "temperature must be below 1", "param": "temperature"}}, 400)
    refusal = {"message": "Unknown parameter: 'tools'", "param": "tools", "code": "unknown_parameter"}
    tools = Script.json({"error": refusal}, 400)
    async with serving(value, tools) as (server, backend):
        request = ask(sampling=Sampling(temperature=2), tools=(TOOL,))
        assert (await failure(answered(backend, request, Recorder()))).kind is Kind.INVALID
        assert (await failure(answered(backend, request, Recorder()))).kind is Kind.INVALID
        assert len(server.chats) == 2


async def test_too_large_a_limit_is_asked_again_with_the_room_that_is_left() -> None:
    said = (
        "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context length is 32768 "
        "tokens and your request has 17459 input tokens (32000 > 32768 - 17459)."
    )
    async with serving(Script.json({"error": {"message": said}}, 400), Script(HELLO)) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(max_tokens=32000), sink)
        assert [(seen.body or {})["max_tokens"] for seen in server.chats] == [32000, 32768 - 17459]
        assert sink.notes == [Note("repair", "max_tokens")]


async def test_too_large_a_limit_that_is_refused_within_the_stream() -> None:
    said = (
        "Requested token count exceeds the model's maximum context length of 32768 tokens. You requested a total of "
        "49459 tokens: 17459 tokens from the input messages and 32000 tokens for the completion."
    )
    refusal = {"object": "error", "message": said, "type": "BadRequestError", "param": None, "code": 400}
    scripts = [Script(sse({"error": refusal})), Script(HELLO)]
    async with serving(*scripts, preset="sglang") as (server, backend):
        sink = Recorder()
        await answered(backend, ask(max_tokens=32000), sink)
        assert [(seen.body or {})["max_tokens"] for seen in server.chats] == [32000, 32768 - 17459]
        assert sink.notes == [Note("repair", "max_tokens")]
    async with serving(*[Script(sse({"error": refusal}))] * 2, preset="sglang") as (server, backend):
        assert (await failure(answered(backend, ask(max_tokens=32000), Recorder()))).kind is Kind.OVERFLOW
        assert len(server.chats) == 2


def counted_so_far(asked: int, window: int = 8192) -> Script:
    """vLLM's refusal of a prompt that leaves no room for `asked` tokens: it counts one more than would have fitted."""
    at_least = window - asked + 1
    said = (
        f"This model's maximum context length is {window} tokens. However, you requested {asked} output tokens and "
        f"your prompt contains at least {at_least} input tokens, for a total of at least {at_least + asked} tokens."
    )
    return Script.json({"error": {"message": said, "param": "input_tokens", "code": 400}}, 400)


async def test_a_limit_is_halved_where_the_server_has_not_counted_the_whole_prompt() -> None:
    refusals = [counted_so_far(asked) for asked in (4000, 2000, 1000)]
    async with serving(*refusals, Script(HELLO)) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(max_tokens=4000), sink)
        assert [(seen.body or {})["max_tokens"] for seen in server.chats] == [4000, 2000, 1000, 500]
        assert (sink.text, sink.notes) == ("Hello", [Note("repair", "max_tokens")])
    refusals = [counted_so_far(asked) for asked in (4000, 2000, 1000, 500, 256)]
    async with serving(*refusals) as (server, backend):
        error = await failure(answered(backend, ask(max_tokens=4000), Recorder()))
        assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, 7937, 8192)
        assert len(server.chats) == 5


SMALLER = "This model's maximum context length is 1000 tokens and your request has 700 input tokens."


@pytest.mark.parametrize(
    ("scripts", "asked", "limit"),
    [
        ([], 16, None),
        ([], None, 16),
        ([Script.json({"error": {"message": SMALLER}}, 400)], 900, None),
    ],
    ids=["the client's", "the default", "the room that was left"],
)
async def test_a_server_that_hides_a_used_up_limit_behind_a_call(
    scripts: list[Script], asked: int | None, limit: int | None
) -> None:
    cut = call_stream(("add", '{"a": 1'), counts=usage(700, 300 if scripts else 16))
    async with serving(*scripts, Script(cut), overrides={"max_tokens_default": limit}) as (_, backend):
        sink = Recorder()
        await answered(backend, ask(max_tokens=asked, tools=(TOOL,)), sink)
        assert sink.finished.reason is StopReason.LENGTH
        assert PartEnded(complete=False) in sink.events


@pytest.mark.parametrize(("preset", "whole"), [("sglang", False), ("generic", True)])
async def test_a_server_that_completes_the_call_that_the_limit_cut(preset: str, whole: bool) -> None:
    completed = Script(call_stream(("add", '{"a": 1}'), finish="length"))
    async with serving(completed, preset=preset) as (_, backend):
        sink = Recorder()
        await answered(backend, ask(tools=(TOOL,)), sink)
        assert sink.finished.reason is StopReason.LENGTH
        assert PartEnded(complete=whole) in sink.events


@pytest.mark.parametrize("asked", [None, 32000], ids=["no limit asked", "no room left"])
async def test_a_prompt_that_fills_the_window_is_an_overflow(asked: int | None) -> None:
    said = "This model's maximum context length is 8192 tokens. However, your messages resulted in 8100 tokens."
    async with serving(Script.json({"error": {"message": said}}, 400)) as (server, backend):
        error = await failure(answered(backend, ask(max_tokens=asked), Recorder()))
        assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, 8100, 8192)
        assert len(server.chats) == 1
