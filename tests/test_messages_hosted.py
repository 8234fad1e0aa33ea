"""A request whose every tool is one that nobody runs here, over the gateway: who may ask it, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config
from gateway.secrets import Secrets, read
from tests.grammar.messages import check_response, check_stream
from tests.whole_gateway import Served, served
from translators.protocol import Json

SEARCH: Json = {"type": "web_search_20250305", "name": "web_search"}


def secrets_of(tmp_path: Path, line: str) -> Secrets:
    path = tmp_path / "keys"
    path.write_text(line + "\n")
    return read(Config(api_keys_file=path), {})


def searching(**fields: Any) -> Json:
    said = {"role": "user", "content": "Perform a web search for the query: old maps"}
    return {"model": "m", "max_tokens": 64, "messages": [said], "tools": [SEARCH], **fields}


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
