"""What is wrong in a Messages request is refused with its place."""

import pytest

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.messages import PROTOCOL, parse_count
from dragoman.translators.protocol import Json, Policy
from tests.grammar.messages import check_error
from tests.translators.messages.asked import (
    LS,
    PNG,
    SEARCH,
    assistant,
    body,
    context,
    image,
    parse,
    refusal,
    result,
    text,
    use,
    user,
)

PDF: Json = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
COMPUTER: Json = {"type": "computer_20251124", "name": "computer"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0.5}, "max_tokens"),
        ({"max_tokens": 1e300}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "100"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [1]}, "messages.0"),
        ({"messages": [{"content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [user(None)]}, "messages.0.content"),
        ({"messages": [user([{"text": "a"}])]}, "messages.0.content.0.type"),
        ({"messages": [user([{"type": "text"}])]}, "messages.0.content.0.text"),
        ({"messages": [user([{"type": ["audio"]}])]}, "messages.0.content.0.type"),
        ({"messages": [user([use("t1")])]}, "messages.0.content.0.type"),
        ({"messages": [assistant(use(""))]}, "messages.0.content.0.id"),
        ({"messages": [assistant({**use("t1"), "input": "{}"})]}, "messages.0.content.0.input"),
        ({"messages": [assistant(image(**PNG))]}, "messages.0.content.0.type"),
        ({"messages": [assistant({"type": "thinking", "signature": "x"})]}, "messages.0.content.0.thinking"),
        ({"messages": [user([{"type": "tool_result"}])]}, "messages.0.content.0.tool_use_id"),
        ({"messages": [user([result("t1", 5)])]}, "messages.0.content.0.content"),
        ({"messages": [user([result("t1", [use("t2")])])]}, "messages.0.content.0.content.0.type"),
        ({"messages": [user([result("t1", [{"type": "tool_reference"}])])]}, "messages.0.content.0.content.0.name"),
        ({"messages": [user([{"type": "image"}])]}, "messages.0.content.0.source"),
        ({"messages": [user([image(data="AA==")])]}, "messages.0.content.0.source.type"),
        ({"messages": [user([image(type="file")])]}, "messages.0.content.0.source.file_id"),
        ({"messages": [user([image(**PNG | {"media_type": 5})])]}, "messages.0.content.0.source.media_type"),
        ({"messages": [user([image(type="url", url=None)])]}, "messages.0.content.0.source.url"),
        (
            {"messages": [user([text("a"), {"type": "document", "source": "report.pdf"}])]},
            "messages.0.content.1.source",
        ),
        (
            {"messages": [user([{"type": "document", "source": PDF, "title": 5}])]},
            "messages.0.content.0.title",
        ),
        ({"messages": [{"role": "system", "content": [image(**PNG)]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "system", "content": [use("t1")]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "system", "content": [{"type": "tool_addition"}]}]}, "messages.0.content.0.tool"),
        ({"messages": [{"role": "system", "content": "a", "output_config": 5}]}, "messages.0.output_config"),
        ({"system": 5}, "system"),
        ({"system": [{"type": "fallback"}]}, "system.0.type"),
        ({"system": [{"type": "image"}]}, "system.0.type"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [""]}, "stop_sequences.0"),
        ({"stream": "yes"}, "stream"),
        ({"thinking": {"type": "enabled"}}, "thinking.enabled.budget_tokens"),
        ({"thinking": {"type": 5}}, "thinking.type"),
        ({"thinking": {"type": "Enabled"}}, "thinking.enabled.budget_tokens"),
        ({"thinking": {}}, "thinking.type"),
        ({"thinking": {"type": "adaptive", "display": True}}, "thinking.display"),
        ({"output_config": {"effort": 3}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "ls"}]}, "tools.0.input_schema"),
        ({"tools": [{**LS, "name": "l s"}]}, "tools.0.name"),
        ({"tools": [{**LS, "name": "x" * 129}]}, "tools.0.name"),
        ({"tools": [{**LS, "input_schema": {"type": "string"}}]}, "tools.0.input_schema.type"),
        ({"tools": [LS, LS]}, "tools.1.name"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "required"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}, "tools": [LS]}, "tool_choice.name"),
        ({"tool_choice": {"type": "tool", "name": "pwd"}, "tools": [LS]}, "tool_choice"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, "tools.0.type"),
        ({"tools": [SEARCH, COMPUTER], "tool_choice": {"type": "tool", "name": "computer"}}, "tools.1.type"),
        ({"tools": [COMPUTER, {"type": "new_1"}], "tool_choice": {"type": "any"}}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [{"type": "function", "function": "ls"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "l s"}}]}, "tools.0.function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "ls", "parameters": []}}]},
            "tools.0.function.parameters",
        ),
        ({"thread": {"id": "t"}}, "thread"),
        ({"container": {"skills": [{"skill_id": "s"}]}}, "container.skills"),
    ],
)
def test_a_fault_is_refused_with_its_place(fields: Json, param: str) -> None:
    given = {key: value for key, value in body(**fields).items() if value is not None}
    with pytest.raises(GatewayError) as refused:
        PROTOCOL.parse(given, context())
    error = refused.value
    assert error.param == param
    assert error.kind in (Kind.INVALID, Kind.UNSUPPORTED)
    reply = PROTOCOL.error(error, "req_1")
    check_error(reply.status, reply.body)
    assert reply.body["error"]["message"].startswith(f"{param}: ")


@pytest.mark.parametrize("thread", [{"type": "create"}, {"type": "continue", "previous_message_id": "msg_1"}, {}])
def test_sdks_are_told_to_send_the_whole_conversation_in_place_of_a_thread(thread: Json) -> None:
    for parsed in (PROTOCOL.parse, parse_count):
        with pytest.raises(GatewayError) as refused:
            parsed(body(thread=thread), context())
        reply = PROTOCOL.error(refused.value, "req_1")
        check_error(reply.status, reply.body)
        assert (reply.status, reply.body["error"]["type"]) == (400, "invalid_request_error")
        assert reply.body["error"]["details"] == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}


def test_no_other_refusal_speaks_of_threads() -> None:
    assert "details" not in PROTOCOL.error(refusal(container={"skills": [{"skill_id": "s"}]}), "req_1").body["error"]


def test_too_many_tools_are_refused() -> None:
    tools = [{**LS, "name": f"t{number}"} for number in range(3)]
    assert refusal(tools=tools, under=context(policy=Policy(max_tools=2))).param == "tools"


def test_with_strict_history_an_orphan_is_refused() -> None:
    with pytest.raises(GatewayError):
        parse(user([result("t1")]), under=context(policy=Policy(strict_history=True)))
