"""Chat completions in the shapes of other protocols, as some editors and libraries send them."""

import pytest

from dragoman.translators.ir import Image, Message, Named, Note, Reasoning, Text, ToolCall, ToolResult
from dragoman.translators.protocol import Context, Json, Policy
from tests.translators.chat_completions.asked import (
    PIXEL,
    USER,
    call,
    custom,
    function,
    notes,
    parse,
    refused,
    request,
    result,
    said,
)


def test_tools_in_the_shapes_of_other_protocols() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    asked = request(
        tools=[
            {"type": "function", "name": "flat", "parameters": schema, "strict": True},
            {"name": "block", "description": "d", "input_schema": schema},
            {"type": "custom", "name": "typed", "input_schema": schema},
        ],
        tool_choice={"type": "tool", "name": "block"},
    )
    assert [(tool.name, tool.parameters, tool.strict) for tool in asked.tools] == [
        ("flat", schema, True),
        ("block", schema, None),
        ("typed", schema, None),
    ]
    assert asked.tool_choice == Named("block")
    assert request(tools=[function("a")], tool_choice={"type": "any"}).tool_choice == "required"
    assert request(tools=[function("a")], tool_choice={"type": "function", "name": "a"}).tool_choice == Named("a")


LARK: Json = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
FLAT: Json = {"type": "custom", "name": "Patch", "description": "Edits files.", "format": LARK}


def test_a_free_form_tool_in_the_shape_of_responses() -> None:
    (tool,) = request(tools=[FLAT]).tools
    assert tool.name == "Patch"
    assert tool.description.startswith("Edits files.\n\n")
    assert tool.description.endswith(" lark grammar:\nstart: /.+/")
    (nested,) = request(tools=[custom("Patch", description="Edits files.", format=LARK)]).tools
    assert nested == tool
    assert notes(tools=[FLAT, custom("Other", format=LARK)]) == []
    assert refused(tools=[FLAT | {"format": {"type": "grammar"}}]).param == "tools[0].format.grammar"
    assert refused(tools=[FLAT | {"name": ""}]).param == "tools[0].name"


@pytest.mark.parametrize(
    "choice",
    [
        {"type": "custom", "name": "Patch"},
        {"type": "custom", "custom": {"name": "Patch"}},
        {"type": "function", "function": {"name": "Patch"}},
        {"type": "function", "name": "Patch"},
        {"type": "tool", "name": "Patch"},
    ],
)
def test_such_a_tool_is_chosen_by_any_name_for_it(choice: Json) -> None:
    assert request(tools=[FLAT], tool_choice=choice).tool_choice == Named("Patch")


def test_a_call_of_such_a_tool_comes_back_as_a_functions() -> None:
    """Cursor knows no other calls, and finds the bare text in the arguments."""
    text = "*** Begin\n"
    wrapped = Message("assistant", (ToolCall("c", "Patch", '{"input":"*** Begin\\n"}'),))
    spoken: Json = {"role": "assistant", "tool_calls": [call("c", "Patch", text)]}
    assert request(tools=[FLAT], messages=[USER, spoken, result("c")]).messages[1] == wrapped

    freely = {"id": "c", "type": "custom", "custom": {"name": "Patch", "input": text}}
    spoken = {"role": "assistant", "tool_calls": [freely]}
    assert request(tools=[FLAT], messages=[USER, spoken, result("c")]).messages[1] == wrapped

    spoken = {"role": "assistant", "tool_calls": [call("c", "Patch", '{"a":1}')]}
    both = request(tools=[FLAT, function("Patch")], messages=[USER, spoken, result("c")])
    function_of_that_name = both.tools[1].name
    assert both.messages[1].parts == (ToolCall("c", function_of_that_name, '{"a":1}'),)


def test_parts_of_responses_in_messages() -> None:
    """As LangChain sends what another model answered to its class for Responses."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
    turn = parse(
        messages=[
            {"role": "system", "content": [{"type": "input_text", "text": "s"}]},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "q"},
                    {"type": "input_image", "image_url": PIXEL, "detail": "low"},
                    {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    thought,
                    {"type": "reasoning", "summary": [], "encrypted_content": "x"},
                    {"type": "output_text", "text": "a", "annotations": [], "logprobs": []},
                ],
                "tool_calls": [call("t", "f")],
            },
            {"role": "tool", "tool_call_id": "t", "content": [{"type": "output_text", "text": "r"}]},
        ]
    )
    assert turn.request.messages == (
        Message("system", (Text("s"),)),
        Message("user", (Text("q"), Image(PIXEL, "low"), Text("[File: a.txt]\nhi"))),
        Message("assistant", (Reasoning("hm"), Text("a"), ToolCall("t", "f", "{}"))),
        Message("tool", (ToolResult("t", (Text("r"),)),)),
    )
    assert turn.notes == ()


def test_what_stands_in_a_block_and_in_a_field_is_taken_once() -> None:
    blocks: list[Json] = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    ]
    turn = parse(
        messages=[
            USER,
            {
                "role": "assistant",
                "content": blocks,
                "reasoning_content": "hm",
                "tool_calls": [call("t", "f", '{"a": 1}'), call("u", "f")],
            },
            result("t"),
            result("u"),
        ]
    )
    assert turn.request.messages[1] == Message(
        "assistant", (Reasoning("hm"), Text("Looking."), ToolCall("t", "f", '{"a":1}'), ToolCall("u", "f", "{}"))
    )
    assert [message.role for message in turn.request.messages] == ["user", "assistant", "tool", "tool"]
    assert turn.notes == ()


def test_blocks_of_the_messages_api() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    url = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    assert said(
        {"role": "user", "content": [image]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "u", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "and?"},
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "one"}, url]},
                {"type": "tool_result", "tool_use_id": "u", "is_error": True},
            ],
        },
    ) == (
        Message("user", (Image(PIXEL),)),
        Message("assistant", (Reasoning("hm"), ToolCall("t", "f", '{"a":1}'), ToolCall("u", "f", "{}"))),
        Message("tool", (ToolResult("t", (Text("one"), Image("https://x/y.png"))),)),
        Message("tool", (ToolResult("u", (Text(""),), True),)),
        Message("user", (Text("and?"),)),
    )


def test_input_in_place_of_messages() -> None:
    call = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
    asked = parse(
        messages=None,
        instructions="Be brief.",
        input=[
            {"type": "message", "role": "user", "id": "m", "content": [{"type": "input_text", "text": "hi"}]},
            call,
            {"type": "function_call_output", "call_id": "c", "output": "done"},
            {"role": "user", "content": [{"type": "input_image", "image_url": PIXEL, "detail": "low"}]},
        ],
    )
    assert asked.request.messages == (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("hi"),)),
        Message("assistant", (ToolCall("c", "f", "{}"),)),
        Message("tool", (ToolResult("c", (Text("done"),)),)),
        Message("user", (Image(PIXEL, "low"),)),
    )
    assert asked.notes == ()
    assert request(messages=None, input="hi").messages == (Message("user", (Text("hi"),)),)
    assert notes(input="hi", instructions="x") == ["field:input", "field:instructions"]
    assert request(messages=[], input="hi").messages == (Message("user", (Text("hi"),)),)
    assert notes(messages=[], input="hi") == []
    items = [
        {"role": "user", "content": "hi"},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "p", "input": "x", "status": "completed"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
    ]
    patched = parse(messages=None, input=items)
    assert patched.request.messages[1].parts == (ToolCall("c", "p", '{"input":"x"}'),)
    assert patched.request.messages[2].parts == (ToolResult("c", (Text("done"),)),)
    assert patched.notes == ()
    assert refused(messages=None, input=7).param == "messages"
    assert refused(messages=None, input=[{"type": "item_reference", "id": "x"}]).param == "messages[0].role"


def test_thoughts_among_the_items_of_input() -> None:
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
    sealed = {"type": "reasoning", "summary": [], "encrypted_content": "x"}
    called = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    returned = {"type": "function_call_output", "call_id": "c", "output": "done"}
    turn = parse(messages=None, input=[USER, sealed, thought, called, returned, sealed, USER])
    assert [message.role for message in turn.request.messages] == ["user", "assistant", "tool", "user"]
    assert turn.request.messages[1].parts == (Reasoning("hm"), ToolCall("c", "f", "{}"))
    assert turn.notes == ()


def test_what_servers_of_other_apis_did_is_left_out_of_an_answer() -> None:
    """As LangChain sends the answers of ChatAnthropic, and of its class for Responses, on to chat completions."""
    said: list[Json] = [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "Found."},
    ]
    turn = parse(messages=[USER, {"role": "assistant", "content": said}, USER])
    assert [part for part in turn.request.messages[1].parts if part != Text("")] == [Text("Found.")]
    assert [note.name for note in turn.notes] == ["redacted_thinking", "server_tool_use", "web_search_tool_result"]
    assert refused(messages=[{"role": "user", "content": said}]).param == "messages[0].content[0].type"
    strict = Context(id="0" * 24, clock=lambda: 0, policy=Policy(hosted_tools="reject"))
    refusal = refused(strict, messages=[USER, {"role": "assistant", "content": said}])
    assert refusal.param == "messages[1].content[1].type"


def test_a_free_form_call_of_responses_in_content_is_taken_once() -> None:
    made = {"type": "custom_tool_call", "id": "ctc", "call_id": "c", "name": "p", "input": "x", "status": "completed"}
    spoken = {"role": "assistant", "content": [made], "tool_calls": [call("c", "p", '{"__arg1": "x"}')]}
    turn = parse(tools=[custom("p")], messages=[USER, spoken, result("c")])
    assert turn.request.messages[1].parts == (ToolCall("c", "p", '{"input":"x"}'),)
    assert turn.notes == ()


def test_a_thought_may_come_in_chunks() -> None:
    chunks: list[Json] = [{"type": "text", "text": "Well, "}, {"type": "text", "text": "yes."}]
    thought: Json = {"type": "thinking", "thinking": chunks, "signature": None, "closed": True}
    said = {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes."}]}
    turn = parse(messages=[USER, said, USER])
    assert turn.request.messages[1].parts == (Reasoning("Well, yes."), Text("Yes."))
    assert turn.notes == ()

    chunks.append({"type": "reference", "reference_ids": [3]})
    assert parse(messages=[USER, said, USER]).notes == (Note("field", "messages.content.thinking.reference_ids"),)
    chunks[1]["text"] = 5
    assert refused(messages=[USER, said, USER]).param == "messages[1].content[0].thinking[1].text"
    thought["thinking"] = ["Well"]
    assert refused(messages=[USER, said, USER]).param == "messages[1].content[0].thinking"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"reasoning_details": [{"type": "reasoning.summary", "summary": "a"}, {"text": "b"}]}, "ab"),
        ({"thinking_blocks": [{"type": "thinking", "thinking": "a", "signature": "s"}]}, "a"),
        ({"reasoning_details": [{"text": "a"}], "thinking_blocks": [{"thinking": "a"}], "reasoning": "c"}, "c"),
    ],
)
def test_reasoning_is_also_read_from_lists(fields: Json, text: str) -> None:
    turn = parse(messages=[USER, {"role": "assistant", "content": "x", **fields}, USER])
    assert turn.request.messages[1].parts == (Reasoning(text), Text("x"))
    assert turn.notes == ()


def test_reasoning_beside_the_text_of_a_part() -> None:
    """As OpenAI's Agents SDK for JavaScript sends the message of a whole answer back."""
    rest: Json = {"role": "assistant", "refusal": None, "annotations": [], "reasoning_content": "Well."}
    turn = parse(messages=[USER, {"role": "assistant", "content": [{"type": "text", "text": "Yes.", **rest}]}, USER])
    assert turn.request.messages[1].parts == (Reasoning("Well."), Text("Yes."))
    assert turn.notes == ()

    both = {"role": "assistant", "reasoning": "Well.", "content": [{"type": "text", "text": "Yes.", **rest}]}
    assert said(USER, both, USER)[1].parts == (Reasoning("Well."), Text("Yes."))
    asked = {"role": "user", "content": [{"type": "text", "text": "q", "reasoning_content": "Well."}]}
    assert notes(messages=[asked]) == ["field:messages.content.reasoning_content"]
