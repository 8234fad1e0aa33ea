"""A request whose every tool is one that nobody runs here: its answer, who may ask it, and what is logged of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Secrets, read
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Message, Note, Text
from dragoman.translators.messages import PROTOCOL
from dragoman.translators.protocol import Context, Json, Policy, Turn
from tests.grammar.messages import check_response, check_stream
from tests.serving_gateway import Served, served

SEARCH: Json = {"type": "web_search_20250305", "name": "web_search"}
LS: Json = {"name": "ls", "input_schema": {"type": "object"}}
HELLO: Json = {"role": "user", "content": "Hello"}


def secrets_of(tmp_path: Path, line: str) -> Secrets:
    path = tmp_path / "keys"
    path.write_text(line + "\n")
    return read(Config(api_keys_file=path), {})


def searching(query: str = "old maps", **fields: Any) -> Json:
    said = {"role": "user", "content": f"Perform a web search for the query: {query}\n"}
    return {"model": "m", "max_tokens": 64, "messages": [said], "tools": [SEARCH], **fields}


def parse(body: Json, policy: Policy | None = None) -> Turn:
    return PROTOCOL.parse(body, Context(id="0" * 32, clock=lambda: 0, policy=policy or Policy()))


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "web_search"}, {"type": "auto"}, None])
def test_where_all_tools_are_left_out_no_model_is_asked(choice: Json | None) -> None:
    turn = parse(searching(tool_choice=choice))
    dropped = choice is not None and choice["type"] != "auto"
    assert turn.notes == (Note("tool", SEARCH["type"]), *([Note("field", "tool_choice")] if dropped else []))
    stream = b"".join(turn.stream.feed(turn.events))
    whole = turn.stream.body()
    check_response(whole)
    assert check_stream(stream) == whole
    call, result = whole["content"]
    assert (call["name"], call["input"]) == ("web_search", {"query": "old maps"})
    assert result["tool_use_id"] == call["id"]
    assert result["content"] == {"type": "web_search_tool_result_error", "error_code": "unavailable"}
    assert (whole["stop_reason"], whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == ("end_turn", 0, 0)
    said = [("user", "a"), ("assistant", whole["content"]), ("user", "b")]
    history = parse(searching(tools=[LS], messages=[{"role": role, "content": content} for role, content in said]))
    assert history.request.messages == (Message("user", (Text("a"), Text("b"))),)
    assert [note.name for note in history.notes] == ["server_tool_use", "web_search_tool_result"]


@pytest.mark.parametrize(
    ("tools", "choice", "family"),
    [
        ([{"type": "web_fetch_20260318", "name": "web_fetch"}], None, "web_fetch"),
        ([{"type": "code_execution_20260521", "name": "code_execution"}], None, "code_execution"),
        ([{"type": "mcp_toolset", "mcp_server_name": "x"}, SEARCH], None, "web_search"),
        ([SEARCH, {"type": "web_fetch_1", "name": "f"}], {"type": "tool", "name": "f"}, "web_fetch"),
    ],
)
def test_each_tool_that_has_words_for_it_says_that_it_is_unavailable(
    tools: list[Json], choice: Json | None, family: str
) -> None:
    turn = parse(searching(tools=tools, tool_choice=choice, messages=[HELLO]))
    stream = b"".join(turn.stream.feed(turn.events))
    assert check_stream(stream) == turn.stream.body()
    call, result = turn.stream.body()["content"]
    assert (call["name"], call["input"], result["type"]) == (family, {}, f"{family}_tool_result")
    assert result["content"] == {"type": f"{family}_tool_result_error", "error_code": "unavailable"}


def test_a_query_with_half_a_character_is_repeated_without_it() -> None:
    turn = parse(searching("a\ud800b"))
    assert check_stream(b"".join(turn.stream.feed(turn.events)))["content"][0]["input"] == {"query": "a?b"}


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([SEARCH], {"type": "none"}),
        ([SEARCH, LS], {"type": "tool", "name": "web_search"}),
        ([SEARCH, LS], None),
        ([], None),
    ],
)
def test_otherwise_the_model_is_asked(tools: list[Json], choice: Json | None) -> None:
    turn = parse(searching(tools=tools, tool_choice=choice, messages=[HELLO]))
    assert turn.events == ()
    assert turn.request.tool_choice == ("none" if choice == {"type": "none"} else "auto")
    assert (Note("field", "tool_choice") in turn.notes) == (choice == {"type": "tool", "name": "web_search"})


def test_with_hosted_tools_rejected_nothing_is_left_out() -> None:
    with pytest.raises(GatewayError) as refused:
        parse(searching(), Policy(hosted_tools="reject"))
    assert refused.value.param == "tools.0.type"


# ---------------------------------------------------------------------------------------------------- over the gateway


async def ask(it: Served, body: Json, key: str = "") -> tuple[int, bytes, str]:
    headers = {"x-api-key": key} if key else {}
    async with it.session.post(it.url + "/v1/messages", json=body, headers=headers) as reply:
        return reply.status, await reply.read(), reply.headers.get("x-dragoman-ignored", "")


@pytest.mark.parametrize("stream", [True, False])
async def test_the_answer_says_that_it_is_unavailable_and_no_server_is_asked(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dragoman")
    async with served() as it:
        choice = {"type": "tool", "name": "web_search"}
        status, sent, ignored = await ask(it, searching(stream=stream, tool_choice=choice))
        assert (status, ignored) == (200, "tool:web_search_20250305, field:tool_choice")
        assert not it.server.chats
        labels = {"route": "messages", "client_kind": "other", "status": "200", "outcome": "completed"}
        assert it.metric("dragoman_requests_total", **labels) == 1
        assert it.metric("dragoman_notes_total", kind="tool", name="web_search_20250305") == 1
        assert it.metric("dragoman_requests_in_flight", route="messages") == 0
    if stream:
        answer = check_stream(sent)
    else:
        answer = json.loads(sent)
        check_response(answer)
    assert [block["type"] for block in answer["content"]] == ["server_tool_use", "web_search_tool_result"]
    (line,) = [getattr(record, "fields", {}) for record in caplog.records if record.message == "request"]
    assert (line["status"], line["outcome"], line["stream"]) == (200, "completed", stream)
    assert (line.get("backend"), line["tokens_in"], line["tokens_out"]) == (None, 0, 0)


async def test_a_key_and_its_limits_hold_here_too(tmp_path: Path) -> None:
    async with served(secrets=secrets_of(tmp_path, "key models=m rpm=2 tpm=4000")) as it:
        assert (await ask(it, searching()))[0] == 401
        assert (await ask(it, searching(model="other"), "key"))[0] == 403
        statuses = [(await ask(it, searching(max_tokens=4000), "key"))[0] for _ in range(3)]
        assert statuses == [200, 200, 429]


async def test_it_costs_no_tokens(tmp_path: Path) -> None:
    async with served(secrets=secrets_of(tmp_path, "key tpm=4000")) as it:
        for _ in range(5):  # estimated at about 2,000 each, were a model asked
            assert (await ask(it, searching(max_tokens=4000), "key"))[0] == 200


async def test_a_tool_without_words_for_it_is_refused_with_its_place() -> None:
    async with served() as it:
        status, sent, _ = await ask(it, searching(tools=[{"type": "mcp_toolset", "mcp_server_name": "x"}]))
        assert status == 400
        assert json.loads(sent)["error"]["message"].startswith("tools.0.type: Tools of type 'mcp_toolset' cannot be")
        assert not it.server.chats
