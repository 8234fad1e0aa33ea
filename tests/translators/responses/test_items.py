"""Input items of a Responses request: each becomes what the model should see, or is refused with its place."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Image, Message, Note, Part, Reasoning, Refusal, Role, Text, ToolCall, ToolResult
from dragoman.translators.protocol import Context, Json, Policy
from dragoman.translators.responses import PROTOCOL
from tests.responses_requests import PNG, messages, parse, parts, refused, user

# ---------------------------------------------------------------------------------------------------------------- input


def test_a_string_is_one_user_message() -> None:
    assert parse(input="Say hello.").request.messages == (Message("user", (Text("Say hello."),)),)


def test_instructions_come_first_as_system() -> None:
    assert messages(user(), instructions="Be brief.") == [
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("x"),)),
    ]


@pytest.mark.parametrize("instructions", [None, ""])
def test_no_instructions_are_no_message(instructions: str | None) -> None:
    assert [message.role for message in messages(user(), instructions=instructions)] == ["user"]


@pytest.mark.parametrize("role", ["user", "assistant", "system", "developer"])
@pytest.mark.parametrize(
    "content", ["x", [{"type": "input_text", "text": "x"}], [{"type": "output_text", "text": "x"}]]
)
def test_easy_messages_need_no_type(role: Role, content: Any) -> None:
    assert messages({"role": role, "content": content}) == [Message(role, (Text("x"),))]


def test_system_and_developer_messages_keep_their_places() -> None:
    roles = [
        m.role for m in messages({"role": "developer", "content": "a"}, user(), {"role": "system", "content": "b"})
    ]
    assert roles == ["developer", "user", "system"]


def test_status_phase_ids_and_annotations_are_dropped() -> None:
    item = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "incomplete",
        "phase": "commentary",
        "content": [{"type": "output_text", "text": "x", "annotations": [], "logprobs": []}],
        "internal_chat_message_metadata_passthrough": {"turn_id": "t"},
    }
    assert messages(item) == [Message("assistant", (Text("x"),))]


def test_a_refusal_stays_a_refusal() -> None:
    assert parts({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}) == [Refusal("No.")]


def test_empty_strings_are_tolerated() -> None:
    assert parts(user("")) == [Text("")]
    assert messages(user(), {"role": "assistant", "content": ""}, user()) == [Message("user", (Text("x"),))] * 2


def test_assistant_items_become_one_turn() -> None:
    items = [
        user(),
        {"type": "reasoning", "id": "r", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "g", "arguments": '{"x": 1}'},
        {"type": "function_call_output", "call_id": "b", "output": "2"},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
    ]
    turn = parse(input=items)
    calls = (ToolCall("a", "f", "{}"), ToolCall("b", "g", '{"x": 1}'))
    assert turn.request.messages[1:] == (
        Message("assistant", (Reasoning("hm"), Text("I look."), *calls)),
        Message("tool", (ToolResult("a", (Text("1"),)),)),
        Message("tool", (ToolResult("b", (Text("2"),)),)),
    )
    assert turn.notes == (Note("repair", "reordered_output"),)


@pytest.mark.parametrize(("call", "result"), [("function_call", {}), ("custom_tool_call", {"input": "x"})])
def test_a_tool_may_return_nothing_and_a_turn_may_say_nothing(call: str, result: dict[str, Any]) -> None:
    made = {"type": call, "call_id": "a", "name": "f", "arguments": "{}", **result}
    items = [user(), {"role": "assistant", "content": None}, made]
    turn = parse(input=[*items, {"type": f"{call}_output", "call_id": "a", "output": None}])
    assert [message.role for message in turn.request.messages] == ["user", "assistant", "tool"]
    assert turn.request.messages[-1].parts == (ToolResult("a", (Text(""),)),)


def test_an_output_without_a_call_begins_a_turn_as_the_users() -> None:
    """Codex's app starts scheduled tasks, and hands messages from thread to thread, with such an output."""
    alone = {
        "type": "function_call_output",
        "id": "fco_1",
        "call_id": None,
        "name": "move_note",
        "namespace": "desk",
        "output": [{"type": "input_text", "text": "Note 7 moved."}],
    }
    label = Text("[Output of desk.move_note, which was not called in this conversation]")
    turn = parse(input=[alone], policy=Policy(strict_history=True))
    assert turn.request.messages == (Message("user", (label, Text("Note 7 moved."))),)
    assert turn.notes == ()
    (said,) = messages({"type": "function_call_output", "output": "x"})
    assert said.parts[0] == Text("[Output of a tool, which was not called in this conversation]")


def test_encrypted_content_in_an_output_has_a_text_in_its_place() -> None:
    """What OpenAI's own tools return is only for its own models, and stays in the session."""
    call = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    output = [{"type": "input_text", "text": "x"}, {"type": "encrypted_content", "encrypted_content": "gAAA"}]
    items = [user(), call, {"type": "function_call_output", "call_id": "a", "output": output}]
    turn = parse(input=items)
    left_out = Text("[Encrypted content left out: this gateway cannot read it]")
    assert turn.request.messages[-1].parts == (ToolResult("a", (Text("x"), left_out)),)
    assert turn.notes == (Note("item", "encrypted_content"),)
    assert refused(Policy(unreadable="reject"), input=items).param == "input[2].output[1].type"


@pytest.mark.parametrize(
    ("value", "param", "code"),
    [
        (None, "input", "missing_required_parameter"),
        (5, "input", "invalid_type"),
        ({}, "input", "invalid_type"),
        ([], "input", "empty_array"),
        ([5], "input[0]", "invalid_type"),
        (["text"], "input[0]", "invalid_type"),
        ([user(), {}], "input[1].type", "missing_required_parameter"),
        ([{"type": 7}], "input[0].type", "invalid_type"),
        ([{"type": "message", "content": "x"}], "input[0].role", "missing_required_parameter"),
        ([{"role": "tool", "content": "x"}], "input[0].role", "invalid_value"),
        ([{"role": "user"}], "input[0].content", "missing_required_parameter"),
        ([user(None)], "input[0].content", "invalid_type"),
        ([user(5)], "input[0].content", "invalid_type"),
        ([user(["x"])], "input[0].content[0]", "invalid_type"),
        ([user([{"text": "x"}])], "input[0].content[0].type", "missing_required_parameter"),
        ([user([{"type": "smell"}])], "input[0].content[0].type", "invalid_value"),
        ([user([{"type": "input_text", "text": 5}])], "input[0].content[0].text", "invalid_type"),
        ([user([{"type": "input_text"}])], "input[0].content[0].text", "missing_required_parameter"),
        ([user([{"type": "input_audio"}])], "input[0].content[0].type", "unsupported_value"),
        ([user([{"type": "input_video", "video_url": "x"}])], "input[0].content[0].type", "unsupported_value"),
        (
            [{"role": "assistant", "content": [{"type": "input_image", "image_url": PNG}]}],
            "input[0].content[0].type",
            None,
        ),
        ([{"type": "item_reference", "id": "msg_1"}], "input[0].id", "invalid_value"),
        ([{"id": "msg_1"}], "input[0].id", "invalid_value"),
        ([{"type": None, "id": "msg_1"}], "input[0].id", "invalid_value"),
        ([{"type": "compaction_trigger"}], "input[0].type", "unsupported_value"),
        ([{"type": "compaction"}], "input[0].encrypted_content", "missing_required_parameter"),
    ],
)
def test_wrong_input_is_named(value: Any, param: str, code: str | None) -> None:
    error = refused(input=value)
    assert error.param == param
    assert code is None or error.code == code


def test_items_of_an_unknown_type_are_left_out_unless_histories_are_strict() -> None:
    items = [user("a"), {"type": "hologram", "id": "h"}, {"type": "new_call", "call_id": "c"}, user("b")]
    turn = parse(input=items)
    assert [part for message in turn.request.messages for part in message.parts] == [Text("a"), Text("b")]
    assert turn.notes == (Note("item", "hologram"), Note("item", "new_call"))
    many = parse(input=[user(), *({"type": f"kind{index}"} for index in range(100)), {"type": "kind0"}])
    assert [(note.name, note.count) for note in many.notes[::16]] == [("kind0", 2), ("kind16", 1), ("+68", 68)]
    error = refused(Policy(strict_history=True), input=items)
    assert (error.param, error.code) == ("input[1].type", "invalid_value")


def test_the_sentence_says_what_was_expected() -> None:
    error = refused(input=[user([{"type": "input_text", "text": 5}])])
    assert error.message == (
        "Invalid type for 'input[0].content[0].text': expected a string, but got an integer instead."
    )


def test_input_may_not_be_left_out() -> None:
    with pytest.raises(GatewayError) as caught:
        PROTOCOL.parse({"model": "m"}, Context(id="0" * 24, clock=lambda: 1))
    assert (caught.value.param, caught.value.code) == ("input", "missing_required_parameter")


# ------------------------------------------------------------------------------------------------------------ reasoning


def reasoning(**fields: Any) -> Json:
    return {"type": "reasoning", "id": "rs_1", "summary": [], **fields}


SUMMARY = [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (reasoning(content=[{"type": "reasoning_text", "text": "a"}, {"type": "text", "text": "b"}]), "ab"),
        (
            reasoning(content=[{"type": "reasoning_text", "text": "a"}], encrypted_content="ours:z", summary=SUMMARY),
            "a",
        ),
        (reasoning(content=None, encrypted_content="ours:z", summary=SUMMARY), "z"),
        (reasoning(encrypted_content="gAAA", summary=SUMMARY), "a\n\nb"),
        (reasoning(summary=SUMMARY, encrypted_content=None), "a\n\nb"),
        (reasoning(content=[], summary=[{"type": "text", "text": "a"}]), "a"),
    ],
)
def test_reasoning_is_read_where_it_is_plainest(item: Json, text: str) -> None:
    assert parts(item) == [Reasoning(text)]


def test_reasoning_as_litellm_writes_it_is_read() -> None:
    said: list[Json] = [{"type": "output_text", "text": "hm", "annotations": [], "logprobs": None}]
    turn = parse(input=[user(), reasoning(role="assistant", status="completed", content=said)])
    assert (turn.request.messages[-1].parts, turn.notes) == ((Reasoning("hm"),), ())


def test_reasoning_that_nobody_here_can_read_is_left_out_visibly() -> None:
    turn = parse(input=[user(), reasoning(encrypted_content="gAAA")])
    assert len(turn.request.messages) == 1
    assert turn.notes == (Note("item", "reasoning"),)


def test_empty_reasoning_is_nothing() -> None:
    turn = parse(input=[user(), reasoning(), {"type": "reasoning"}])
    assert (len(turn.request.messages), turn.notes) == (1, ())


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (reasoning(summary="x"), "input[0].summary"),
        (reasoning(summary=[{"type": "summary_text"}]), "input[0].summary[0].text"),
        (reasoning(content=[{"type": "input_text", "text": "x"}]), "input[0].content[0].type"),
        (reasoning(encrypted_content=5), "input[0].encrypted_content"),
    ],
)
def test_wrong_reasoning_is_named(item: Json, param: str) -> None:
    assert refused(input=[item]).param == param


def test_our_own_compaction_is_opened() -> None:
    item = {"type": "compaction", "encrypted_content": "ours:what happened so far"}
    assert messages(item) == [Message("user", (Text("what happened so far"),))]


def test_a_compaction_of_another_server_says_that_it_cannot_be_read() -> None:
    items = [user("a"), {"type": "compaction", "encrypted_content": "gAAA"}, user("b")]
    turn = parse(input=items)
    texts = [part.text for message in turn.request.messages for part in message.parts if isinstance(part, Text)]
    assert texts == ["a", "[A summary of the conversation up to here is encrypted and cannot be read here.]", "b"]
    assert turn.notes == (Note("item", "compaction"),)
    error = refused(Policy(unreadable="reject"), input=items)
    assert (error.param, error.code) == ("input[1].encrypted_content", "invalid_encrypted_content")


def test_an_agents_message_is_the_users() -> None:
    content = [
        {"type": "input_text", "text": "Check it."},
        {"type": "encrypted_content", "encrypted_content": "ours:now"},
    ]
    (message,) = messages({"type": "agent_message", "author": "/main", "recipient": "/main/a", "content": content})
    assert message == Message("user", (Text("[Message from /main]\nCheck it.\nnow"),))


def test_an_agents_message_for_others_eyes_says_so() -> None:
    content = [{"type": "encrypted_content", "encrypted_content": "gAAA"}]
    turn = parse(input=[{"type": "agent_message", "content": content}])
    assert "cannot be read" in str(turn.request.messages[0].parts)
    assert turn.notes == (Note("item", "agent_message"),)


# ---------------------------------------------------------------------------------------------------- calls and results


def pair(call: Json, output: Json) -> tuple[ToolCall, ToolResult]:
    """The call and the result that two items become, with their ids checked."""
    first, second = messages(call, output)
    (made,), (answered,) = first.parts, second.parts
    assert isinstance(made, ToolCall)
    assert isinstance(answered, ToolResult)
    assert made.id == answered.call_id
    return made, answered


FUNCTION_CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("output", "content"),
    [
        ("text", (Text("text"),)),
        ("", (Text(""),)),
        ([], (Text(""),)),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}], (Text("a"), Text("b"))),
        ([{"type": "input_image", "image_url": PNG, "detail": "high"}], (Image(PNG, "high"),)),
    ],
)
@pytest.mark.parametrize("kind", ["function_call_output", "custom_tool_call_output"])
def test_outputs(kind: str, output: Any, content: tuple[Part, ...]) -> None:
    _, answered = pair(FUNCTION_CALL, {"type": kind, "call_id": "c", "output": output})
    assert answered.content == content


def test_a_custom_call_reads_as_the_model_wrote_it() -> None:
    item = {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": 'a\n"ü"'}
    made, _ = pair(item, {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"})
    assert (made.name, json.loads(made.arguments)) == ("apply_patch", {"input": 'a\n"ü"'})


def test_a_local_shell_call_is_matched_by_the_id_of_its_item() -> None:
    action: Json = {"type": "exec", "command": ["ls"], "env": {}, "timeout_ms": None, "working_directory": "/w"}
    item = {"type": "local_shell_call", "id": "lsh_1", "call_id": "c", "action": action, "status": "completed"}
    made, answered = pair(item, {"type": "local_shell_call_output", "id": "lsh_1", "output": "a.txt"})
    assert made == ToolCall("c", "local_shell", '{"command":["ls"],"env":{},"working_directory":"/w"}')
    assert answered.content == (Text("a.txt"),)
    pair(item, {"type": "local_shell_call_output", "id": "c", "output": "a.txt"})
    pair(item, {"type": "local_shell_call_output", "id": "x", "call_id": "c", "output": "a.txt"})


def test_a_shell_call() -> None:
    action = {"commands": ["pwd"], "timeout_ms": 5, "max_output_length": None}
    output = [{"stdout": "/w", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}, "created_by": "x"}]
    made, answered = pair(
        {"type": "shell_call", "call_id": "c", "action": action},
        {"type": "shell_call_output", "call_id": "c", "output": output},
    )
    assert made == ToolCall("c", "shell", '{"commands":["pwd"],"timeout_ms":5}')
    (text,) = answered.content
    assert isinstance(text, Text)
    assert json.loads(text.text) == [{"stdout": "/w", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]


@pytest.mark.parametrize(
    ("environment", "notes"),
    [
        ({"type": "local"}, []),
        (None, []),
        ({"type": "container_reference", "container_id": "c"}, ["field:input.environment"]),
    ],
)
def test_a_shell_call_says_where_it_ran(environment: Json | None, notes: list[str]) -> None:
    """As the gateway's own answers do."""
    call = {"type": "shell_call", "call_id": "c", "action": {"commands": ["pwd"]}, "environment": environment}
    turn = parse(input=[call, {"type": "shell_call_output", "call_id": "c", "output": "/w"}])
    assert [f"{note.kind}:{note.name}" for note in turn.notes] == notes


@pytest.mark.parametrize(
    ("status", "output", "text"), [("completed", None, "completed"), ("completed", "ok", "ok"), ("failed", "no", "no")]
)
def test_an_apply_patch_call(status: str, output: str | None, text: str) -> None:
    operation = {"type": "update_file", "path": "a", "diff": "@@"}
    made, answered = pair(
        {"type": "apply_patch_call", "call_id": "c", "status": "completed", "operation": operation},
        {"type": "apply_patch_call_output", "call_id": "c", "status": status, "output": output},
    )
    assert made == ToolCall("c", "apply_patch", '{"type":"update_file","path":"a","diff":"@@"}')
    assert (answered.content, answered.is_error) == ((Text(text),), status == "failed")


@pytest.mark.parametrize("call_id", ["c", None])
def test_a_tool_search(call_id: str | None) -> None:
    made, answered = pair(
        {"type": "tool_search_call", "call_id": call_id, "execution": "client", "arguments": {"query": "x"}},
        {"type": "tool_search_output", "call_id": call_id, "execution": "client", "tools": []},
    )
    assert (made.name, made.arguments) == ("tool_search", '{"query":"x"}')
    assert answered.content == (Text("No tools were found."),)


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[0].call_id"),
        ({"type": "function_call", "call_id": "", "name": "f", "arguments": "{}"}, "input[0].call_id"),
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, "input[0].name"),
        ({"type": "function_call", "call_id": "c", "name": "f"}, "input[0].arguments"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}, "input[0].arguments"),
        ({**FUNCTION_CALL, "namespace": 5}, "input[0].namespace"),
        ({"type": "custom_tool_call_output", "output": "x"}, "input[0].call_id"),
        ({"type": "custom_tool_call_output", "call_id": None, "output": "x"}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": "", "output": "x"}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": 5, "output": "x"}, "input[0].call_id"),
        ({"type": "function_call_output"}, "input[0].output"),
        ({"type": "function_call_output", "call_id": "c"}, "input[0].output"),
        ({"type": "function_call_output", "call_id": "c", "output": {}}, "input[0].output"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": {}}, "input[0].input"),
        ({"type": "local_shell_call", "call_id": "c"}, "input[0].action"),
        ({"type": "local_shell_call_output", "output": "x"}, "input[0].id"),
        ({"type": "shell_call_output", "call_id": "c", "output": ["x"]}, "input[0].output[0]"),
        ({"type": "apply_patch_call", "call_id": "c", "operation": "x"}, "input[0].operation"),
        ({"type": "apply_patch_call_output", "call_id": "c"}, "input[0].status"),
        ({"type": "tool_search_call", "call_id": "c", "arguments": "{}"}, "input[0].arguments"),
        ({"type": "tool_search_call", "call_id": 5, "arguments": {}}, "input[0].call_id"),
        ({"type": "tool_search_output", "call_id": "c"}, "input[0].tools"),
        ({"type": "additional_tools", "role": "developer"}, "input[0].tools"),
    ],
)
def test_wrong_calls_and_results_are_named(item: Json, param: str) -> None:
    assert refused(input=[item]).param == param


def test_strict_history_refuses_what_is_unpaired() -> None:
    orphan = {"type": "function_call_output", "call_id": "c", "output": "x"}
    error = refused(Policy(strict_history=True), input=[user(), orphan])
    assert error.param == "input"
    assert error.message == "No tool call found for function call output with call_id c."
    assert refused(Policy(strict_history=True), input=[FUNCTION_CALL, user()]).param == "input"
    assert parse(input=[user(), orphan]).notes == (Note("repair", "orphan_output"),)


HOSTED = [
    "file_search_call",
    "computer_call",
    "computer_call_output",
    "web_search_call",
    "image_generation_call",
    "code_interpreter_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "program",
    "program_output",
]


@pytest.mark.parametrize("kind", HOSTED)
def test_history_of_hosted_tools_follows_the_policy(kind: str) -> None:
    turn = parse(input=[user(), {"type": kind, "id": "x"}])
    assert turn.notes == (Note("item", kind),)
    error = refused(Policy(hosted_tools="reject"), input=[user(), {"type": kind, "id": "x"}])
    assert (error.param, error.code) == ("input[1].type", "unsupported_value")


def test_a_search_that_openai_ran_is_hosted_but_its_tools_count() -> None:
    tool = {"type": "function", "name": "f", "parameters": None}
    call = {"type": "tool_search_call", "execution": "server", "arguments": {}}
    turn = parse(input=[user(), call, {"type": "tool_search_output", "execution": "server", "tools": [tool]}])
    assert [tool.name for tool in turn.request.tools] == ["f"]
    assert [note.name for note in turn.notes] == ["tool_search_call", "tool_search_output"]


# ----------------------------------------------------------------------------------------------------- images and files


@pytest.mark.parametrize(
    "url", [PNG, "https://example.test/a.png", "http://example.test/a", "data:image/jpeg;base64,AA=="]
)
def test_images(url: str) -> None:
    assert parts(user([{"type": "input_image", "image_url": url, "detail": "original"}])) == [Image(url, "original")]


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ({"image_url": {"url": PNG}}, "image_url"),
        ({}, "image_url"),
        ({"file_id": 1}, "file_id"),
        ({"image_url": PNG, "detail": 5}, "detail"),
    ],
)
def test_wrong_images_are_named(part: Json, key: str) -> None:
    assert refused(input=[user([{"type": "input_image", **part}])]).param == f"input[0].content[0].{key}"


def data_url(text: bytes, media: str = "text/plain") -> str:
    return f"data:{media};base64,{base64.b64encode(text).decode()}"


def test_a_text_file_is_read() -> None:
    file = {"type": "input_file", "filename": "a.txt", "file_data": data_url("Grüße".encode())}
    assert parts(user([file])) == [Text("[File: a.txt]\nGrüße")]
    assert parts(user([{"type": "input_file", "file_data": "data:text/csv,a%2Cb"}])) == [Text("a,b")]


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ({}, "file_data"),
        ({"file_id": ["file_1"]}, "file_id"),
        ({"file_url": {}}, "file_url"),
        ({"file_data": 5}, "file_data"),
        ({"file_data": data_url(b"x"), "filename": 5}, "filename"),
    ],
)
def test_wrong_files_are_named(part: Json, key: str) -> None:
    assert refused(input=[user([{"type": "input_file", **part}])]).param == f"input[0].content[0].{key}"


def test_what_openais_sdk_made_of_an_answer_is_no_news() -> None:
    part = {"type": "output_text", "text": '{"a": 1}', "annotations": [], "parsed": {"a": 1}}
    call = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}", "parsed_arguments": {"a": 1}}
    result = {"type": "function_call_output", "call_id": "c", "output": "3"}
    turn = parse(input=[{"type": "message", "role": "assistant", "content": [part]}, call, result])
    assert turn.notes == ()


def test_that_the_model_itself_made_a_call_is_no_news() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}", "caller": {"type": "direct"}}
    result = {"type": "function_call_output", "call_id": "c", "output": "3", "caller": {"type": "direct"}}
    assert parse(input=[call, result]).notes == ()
    call["caller"] = {"type": "program", "caller_id": "p"}
    assert parse(input=[call, result]).notes == (Note("field", "input.caller"),)


def test_a_message_may_have_an_empty_type() -> None:
    turn = parse(input=[{"type": "", "role": "user", "content": "hi"}])
    assert turn.request.messages == (Message("user", (Text("hi"),)),)
    assert turn.notes == ()
    assert parse(input=[{"role": "user", "content": "hi"}, {"type": ""}]).notes == (Note("item", ""),)


def test_a_namespace_of_the_tools_own_name_is_none() -> None:
    """OpenAI and VS Code write it of a tool without a namespace that a search has found."""
    found = {"type": "function", "name": "say", "parameters": {"type": "object"}, "defer_loading": True}
    searched: list[Json] = [
        {"type": "tool_search_call", "call_id": "s", "execution": "client", "arguments": {"query": "x"}},
        {"type": "tool_search_output", "call_id": "s", "execution": "client", "tools": [found]},
    ]
    called: list[Json] = [
        {"type": "function_call", "call_id": "c", "name": "say", "namespace": "say", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "done"},
    ]
    search = {"type": "tool_search", "execution": "client", "description": "d", "parameters": {"type": "object"}}
    assert messages(user(), *searched, *called, tools=[search])[3].parts == (ToolCall("c", "say", "{}"),)

    own = {"type": "namespace", "name": "say", "description": "d", "tools": [found]}
    assert messages(user(), *called, tools=[own])[1].parts == (ToolCall("c", "say__say", "{}"),)
