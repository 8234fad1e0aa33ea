"""Models that search the web: the turns of one answer, what the client sees of them, and how they come back."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.grammar import messages, responses
from tests.scripted import Script, ScriptedServer, call_stream, chunk, sse, text_stream, usage
from tests.scripted_search import Json, found, page, searching
from tests.serving_gateway import PATHS, Served, asking, over, served
from tests.waiting import until

SEARCH: dict[str, Json] = {
    "messages": {"type": "web_search_20250305", "name": "web_search"},
    "responses": {"type": "web_search"},
}
CLIENTS: dict[str, Json] = {
    "messages": {"name": "ls", "input_schema": {"type": "object"}},
    "responses": {"type": "function", "name": "ls", "parameters": {"type": "object"}},
}
CHECK: dict[str, Any] = {"messages": messages, "responses": responses}
PAGES = "Page 1\nhttps://example.org/1\nWords of page 1.\n\nPage 2\nhttps://example.org/2\nWords of page 2."
both = pytest.mark.parametrize("protocol", ["messages", "responses"])


def wants(query: str, *more: tuple[str, str], **options: Any) -> Script:
    return Script(call_stream(("web_search", json.dumps({"query": query})), *more, **options))


def says(text: str) -> Script:
    return Script(text_stream(text))


async def ask(it: Served, protocol: str, body: Json, stream: bool = True) -> Json:
    """The whole answer, checked."""
    async with it.session.post(it.url + PATHS[protocol], json={**body, "stream": stream}) as answer:
        assert answer.status == 200, await answer.text()
        sent = await answer.read()
    if stream:
        checked: Json = CHECK[protocol].check_stream(sent)
        return checked
    whole: Json = json.loads(sent)
    CHECK[protocol].check_response(whole)
    return whole


def request(protocol: str, text: str = "What is new?", **more: Any) -> Json:
    return asking(protocol, text, **{"tools": [SEARCH[protocol], CLIENTS[protocol]], **more})


def answered(protocol: str, answer: Json) -> list[Json]:
    """What the client sends back of it."""
    if protocol == "messages":
        return [{"role": "assistant", "content": answer["content"]}]
    items: list[Json] = answer["output"]
    return items


def with_more(protocol: str, body: Json, *more: Json) -> Json:
    key = "messages" if protocol == "messages" else "input"
    before = body[key] if isinstance(body[key], list) else [{"role": "user", "content": body[key]}]
    return {**body, key: [*before, *more]}


def kinds(protocol: str, answer: Json) -> list[str]:
    return [each["type"] for each in (answer["content"] if protocol == "messages" else answer["output"])]


def prompt(it: Served, place: int) -> list[Json]:
    body = it.server.chats[place].body
    assert body is not None
    prompt: list[Json] = body["messages"]
    return prompt


def usage_of(protocol: str, answer: Json) -> tuple[int, int]:
    return answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]


# ---------------------------------------------------------------------------------------------------- the model's turns


@both
@pytest.mark.parametrize("stream", [True, False])
async def test_the_model_is_asked_again_with_what_was_found(protocol: str, stream: bool) -> None:
    turns = wants("dragoman", text="Let me look."), says("It is at https://example.org/2.")
    async with searching() as service, served(*turns, search={"url": service.url}) as it:
        answer = await ask(it, protocol, request(protocol), stream)
        assert service.queries == ["dragoman"]
        assert len(it.server.chats) == 2
        first, second = prompt(it, 0), prompt(it, 1)
        assert it.metric("dragoman_web_searches_total", outcome="found") == 1
    assert second[: len(first)] == first
    call, result = second[len(first) :]
    assert (call["role"], call["content"]) == ("assistant", "Let me look.")
    assert json.loads(call["tool_calls"][0]["function"]["arguments"]) == {"query": "dragoman"}
    assert (result["role"], result["tool_call_id"], result["content"]) == ("tool", call["tool_calls"][0]["id"], PAGES)
    assert usage_of(protocol, answer) == (22, 14)
    if protocol == "messages":
        assert kinds(protocol, answer) == ["text", "server_tool_use", "web_search_tool_result", "text"]
        assert answer["usage"]["server_tool_use"] == {"web_search_requests": 1, "web_fetch_requests": 0}
        assert answer["stop_reason"] == "end_turn"
    else:
        assert kinds(protocol, answer) == ["message", "web_search_call", "message"]
        assert answer["output"][1]["action"]["sources"][0] == {"type": "url", "url": "https://example.org/1"}
        (cited,) = answer["output"][2]["content"][0]["annotations"]
        assert (cited["url"], cited["title"]) == ("https://example.org/2", "Page 2")


@both
async def test_the_prompt_of_a_turn_begins_that_of_the_next(protocol: str) -> None:
    turns = wants("one", ("web_search", '{"query": "two"}')), wants("three", text="More."), says("Done."), says("Bye.")
    async with searching() as service, served(*turns, search={"url": service.url}) as it:
        service.answer = found(
            page(1, published="x", publishedDate="2026-11-01"), page(2, content="“ä” 漢 <b>bold</b>")
        )
        body = request(protocol)
        answer = await ask(it, protocol, body)
        more = with_more(protocol, body, *answered(protocol, answer), {"role": "user", "content": "Thanks."})
        await ask(it, protocol, more)
        prompts = [prompt(it, place) for place in range(4)]
        assert service.queries == ["one", "two", "three"]
    for before, after in itertools.pairwise(prompts):
        assert after[: len(before)] == before
    assert prompts[3][len(prompts[2]) :] == [
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Thanks."},
    ]


@both
async def test_a_call_of_the_client_ends_the_answer_after_the_search_beside_it(protocol: str) -> None:
    turns = wants("one", ("ls", "{}")), says("Done.")
    async with searching() as service, served(*turns, search={"url": service.url}) as it:
        body = request(protocol)
        answer = await ask(it, protocol, body)
        assert len(it.server.chats) == 1
        if protocol == "messages":
            assert kinds(protocol, answer) == ["server_tool_use", "web_search_tool_result", "tool_use"]
            assert answer["stop_reason"] == "tool_use"
            result = {"type": "tool_result", "tool_use_id": answer["content"][2]["id"], "content": "a file"}
            output: Json = {"role": "user", "content": [result]}
        else:
            assert kinds(protocol, answer) == ["web_search_call", "function_call"]
            output = {"type": "function_call_output", "call_id": answer["output"][1]["call_id"], "output": "a file"}
        await ask(it, protocol, with_more(protocol, body, *answered(protocol, answer), output))
        sent = prompt(it, 1)
    assert [each["role"] for each in sent] == ["user", "assistant", "tool", "assistant", "tool"]
    assert [sent[2]["content"], sent[4]["content"]] == [PAGES, "a file"]


@both
async def test_a_call_of_the_client_before_the_search_ends_the_answer_too(protocol: str) -> None:
    both_calls = Script(call_stream(("ls", "{}"), ("web_search", '{"query": "one"}')))
    async with searching() as service, served(both_calls, says("Done."), search={"url": service.url}) as it:
        body = request(protocol)
        answer = await ask(it, protocol, body)
        assert len(it.server.chats) == 1
        id = answer["content"][0]["id"] if protocol == "messages" else answer["output"][0]["call_id"]
        result = {"type": "tool_result", "tool_use_id": id, "content": "a file"}
        output = {"type": "function_call_output", "call_id": id, "output": "a file"}
        more = {"role": "user", "content": [result]} if protocol == "messages" else output
        await ask(it, protocol, with_more(protocol, body, *answered(protocol, answer), more))
        told = [each["content"] for each in prompt(it, 1) if each["role"] == "tool"]
    assert sorted(told) == [PAGES, "a file"]


@both
async def test_where_one_call_may_be_made_a_search_after_it_is_not_run(protocol: str) -> None:
    both_calls = Script(call_stream(("ls", "{}"), ("web_search", '{"query": "one"}')))
    alone: Json = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    async with searching() as service, served(both_calls, search={"url": service.url}) as it:
        body = request(protocol, **(alone if protocol == "messages" else {"parallel_tool_calls": False}))
        answer = await ask(it, protocol, body)
        assert not service.asked
    assert kinds(protocol, answer) == ["tool_use" if protocol == "messages" else "function_call"]


@both
async def test_the_searches_of_an_answer_are_bounded_and_the_model_is_told(protocol: str) -> None:
    turns = wants("one"), wants("two"), wants("three", ("web_search", '{"query": "four"}')), says("Enough.")
    async with searching() as service, served(*turns, search={"url": service.url, "most": 2}) as it:
        answer = await ask(it, protocol, request(protocol))
        assert service.queries == ["one", "two"]
        assert "no more searches are allowed" in prompt(it, 3)[-1]["content"]
        assert ["tools" in (seen.body or {}) for seen in it.server.chats] == [True, True, True, False]
        assert it.metric("dragoman_web_searches_total", outcome="max_uses_exceeded") == 1
        assert it.metric("dragoman_notes_total", kind="drop", name="web_search") == 1
    if protocol == "messages":
        assert answer["content"][5]["content"]["error_code"] == "max_uses_exceeded"
        assert answer["usage"]["server_tool_use"]["web_search_requests"] == 2
    else:
        assert [each.get("status") for each in answer["output"]] == ["completed", "completed", "failed", "completed"]


@both
async def test_a_model_that_searches_without_end_is_ended(protocol: str) -> None:
    async with searching() as service, served(search={"url": service.url, "most": 2}) as it:
        it.server.default = wants("again")
        await ask(it, protocol, request(protocol))
        assert len(service.asked) == 2
        assert len(it.server.chats) == 4


async def test_what_the_client_allows_counts_where_it_is_less() -> None:
    async with searching() as service, served(search={"url": service.url}) as it:
        it.server.default = wants("again")
        tool = {**SEARCH["messages"], "max_uses": 1}
        await ask(it, "messages", request("messages", tools=[tool, CLIENTS["messages"]]))
        assert len(service.asked) == 1
        await ask(it, "responses", request("responses", max_tool_calls=3))
        assert len(service.asked) == 4


@both
async def test_the_client_is_shown_that_a_search_failed_and_the_model_goes_on(protocol: str) -> None:
    async def full(request: web.Request) -> web.Response:
        return web.Response(status=429)

    turns = wants("one"), wants("   "), wants("x" * 401), says("I do not know.")
    async with searching(full) as service, served(*turns, search={"url": service.url}) as it:
        answer = await ask(it, protocol, request(protocol))
        told = [each["content"] for each in prompt(it, 3) if each["role"] == "tool"]
        assert len(service.asked) == 1
    assert all(each.startswith("The search failed: ") for each in told)
    codes = ["too_many_requests", "invalid_tool_input", "query_too_long"]
    if protocol == "messages":
        assert [each["content"]["error_code"] for each in answer["content"][1:6:2]] == codes
        assert answer["usage"]["server_tool_use"]["web_search_requests"] == 0
    else:
        assert [each["error"]["code"] for each in answer["output"][:3]] == codes


@both
async def test_text_between_a_call_and_its_results_is_left_out(protocol: str) -> None:
    first = sse(
        chunk({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "web_search"}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"query": "one"}'}}]}),
        chunk({"content": "I found that …"}),
        chunk({}, "tool_calls"),
        chunk(None, usage=usage()),
    )
    async with searching() as service, served(Script(first), says("Done."), search={"url": service.url}) as it:
        answer = await ask(it, protocol, request(protocol))
        assert "I found" not in json.dumps([answer, prompt(it, 1)])
        assert it.metric("dragoman_notes_total", kind="drop", name="after_search") == 1


@both
async def test_a_search_that_the_limit_cut_is_not_run(protocol: str) -> None:
    first = Script(call_stream(("web_search", '{"query": "on'), finish="length", text="Let me look."))
    async with searching() as service, served(first, search={"url": service.url}) as it:
        answer = await ask(it, protocol, request(protocol))
        assert not service.asked
        assert it.metric("dragoman_notes_total", kind="drop", name="cut_search") == 1
    assert answer.get("stop_reason", answer.get("status")) in ("max_tokens", "incomplete")


@both
async def test_a_forced_search_is_forced_once_and_the_limit_of_the_answer_is_for_all_turns(protocol: str) -> None:
    choice = {"type": "tool", "name": "web_search"} if protocol == "messages" else {"type": "web_search_preview"}
    limit: Json = {"max_tokens": 50} if protocol == "messages" else {"max_output_tokens": 50}
    async with searching() as service, served(wants("one"), says("Done."), search={"url": service.url}) as it:
        await ask(it, protocol, request(protocol, tool_choice=choice, **limit))
        first, second = ((seen.body or {}) for seen in it.server.chats)
    assert first["tool_choice"] == {"type": "function", "function": {"name": "web_search"}}
    assert second.get("tool_choice", "auto") == "auto"
    assert second["tools"] == first["tools"]
    assert [each.get("max_tokens") or each.get("max_completion_tokens") for each in (first, second)] == [50, 43]


async def test_an_answer_that_has_used_its_limit_ends_after_the_search() -> None:
    script = Script(call_stream(("web_search", '{"query": "one"}'), counts=usage(11, 64)))
    async with searching() as service, served(script, search={"url": service.url}) as it:
        answer = await ask(it, "messages", request("messages"))
        assert len(it.server.chats) == 1
    assert answer["stop_reason"] == "max_tokens"
    assert kinds("messages", answer) == ["server_tool_use", "web_search_tool_result"]


@both
async def test_a_model_server_that_breaks_after_the_search_fails_the_answer(protocol: str) -> None:
    broken = Script(text_stream("Half an answer"), cut_at=120)
    async with (
        searching() as service,
        served(wants("one"), broken, search={"url": service.url}) as it,
        it.session.post(it.url + PATHS[protocol], json={**request(protocol), "stream": True}) as answer,
    ):
        sent = await answer.read()
    end = CHECK[protocol].check_stream(sent)
    assert end.get("type") == "error" or end["status"] == "failed"


@both
async def test_a_client_that_leaves_ends_the_search(protocol: str) -> None:
    async def never(request: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        raise AssertionError

    async with searching(never) as service, served(wants("one"), search={"url": service.url, "timeout": 3600}) as it:
        async with aiohttp.ClientSession() as leaving:
            answer = await leaving.post(it.url + PATHS[protocol], json={**request(protocol), "stream": True})
            await until(lambda: service.running == 1)
            answer.close()
        await until(lambda: service.left == 1)
        await until(lambda: not it.gateway.handler.calls)
        assert len(it.server.chats) == 1
        assert it.metric("dragoman_web_searches_total", outcome="left") == 1


@both
async def test_keepalives_come_while_the_search_runs(protocol: str) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return await found(page(1))(request)

    mark = b"ping" if protocol == "messages" else b"response.in_progress"
    turns = wants("one"), says("Done.")
    async with (
        searching(slow) as service,
        served(*turns, search={"url": service.url}, timeouts={"keepalive": 0.05}) as it,
        it.session.post(it.url + PATHS[protocol], json={**request(protocol), "stream": True}) as answer,
    ):
        sent = b""
        while not (service.running and sent.count(b"event: " + mark) >= 4):
            sent += await answer.content.readany()
        go_on.set()
        sent += await answer.read()
    CHECK[protocol].check_stream(sent)


async def test_a_later_turn_may_be_answered_by_another_server() -> None:
    """Nothing of it has been sent yet."""

    def turn(asked: Json) -> Script:
        return says("Done.") if asked["messages"][-1]["role"] == "tool" else wants("one")

    def once(asked: Json) -> Script:
        return Script.json({"error": {"message": "overloaded"}}, 503) if turn(asked) == says("Done.") else turn(asked)

    async with (
        searching() as service,
        ScriptedServer(default=once) as one,
        ScriptedServer(default=turn) as two,
        over(one.url, two.url, search={"url": service.url}) as it,
    ):
        for _ in range(2):
            async with it.session.post(it.url + PATHS["messages"], json=request("messages")) as answer:
                assert (await answer.json())["content"][-1]["text"] == "Done."


# --------------------------------------------------------------------------------------- where a search is not declared


async def test_without_the_declaration_nothing_is_searched() -> None:
    """A model may have invented the call, or know it from the history."""
    async with searching() as service, served(search={"url": service.url}) as it:
        it.server.default = wants("one")
        for protocol, kind in (("messages", "tool_use"), ("responses", "function_call")):
            answer = await ask(it, protocol, request(protocol, tools=[CLIENTS[protocol]]))
            assert kinds(protocol, answer) == [kind]
        allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "ls"}]}
        answer = await ask(it, "responses", request("responses", tool_choice=allowed))
        assert kinds("responses", answer) == ["function_call"]
        assert not service.asked


async def test_a_cache_of_openais_is_left_out_as_before() -> None:
    async with searching() as service, served(says("hi"), search={"url": service.url}) as it:
        body = request("responses", tools=[{"type": "web_search", "external_web_access": False}])
        async with it.session.post(it.url + PATHS["responses"], json=body) as answer:
            assert answer.headers["x-dragoman-ignored"] == "tool:web_search"
        assert "tools" not in (it.server.chats[0].body or {})


async def test_chat_completions_has_no_such_tool() -> None:
    async with searching() as service, served(says("hi"), search={"url": service.url}) as it:
        body = asking("chat_completions", "hi", web_search_options={})
        async with it.session.post(it.url + PATHS["chat_completions"], json=body) as answer:
            assert answer.headers["x-dragoman-ignored"] == "tool:web_search"
        assert "tools" not in (it.server.chats[0].body or {})


# ----------------------------------------------------------------------------------------------- a request for a search


def one_search(query: str = "old maps", **more: Any) -> Json:
    text = f"Perform a web search for the query: {query}"
    return asking("messages", text, **{"tools": [SEARCH["messages"]], **more})


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("choice", [{"type": "tool", "name": "web_search"}, {"type": "auto"}])
async def test_a_request_for_one_search_is_answered_without_a_model(
    stream: bool, choice: Json, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dragoman")
    async with searching() as service, served(search={"url": service.url}) as it:
        answer = await ask(it, "messages", one_search(tool_choice=choice), stream)
        assert not it.server.chats
        assert service.queries == ["old maps"]
    call, result, text = answer["content"]
    assert (call["name"], call["input"]) == ("web_search", {"query": "old maps"})
    assert result["tool_use_id"] == call["id"]
    shown = [(each["url"], each["title"]) for each in result["content"]]
    assert shown == [("https://example.org/1", "Page 1"), ("https://example.org/2", "Page 2")]
    assert text["text"] == PAGES
    assert answer["usage"]["server_tool_use"]["web_search_requests"] == 1
    assert (answer["stop_reason"], usage_of("messages", answer)) == ("end_turn", (0, 0))
    (line,) = [getattr(record, "fields", {}) for record in caplog.records if record.message == "request"]
    assert (line["outcome"], line["searches"]) == ("completed", {"found": 1})


async def test_a_search_that_fails_says_why_and_nothing_else() -> None:
    async def broken(request: web.Request) -> web.Response:
        return web.Response(status=500)

    async with searching(broken) as service, served(search={"url": service.url}) as it:
        answer = await ask(it, "messages", one_search())
        assert kinds("messages", answer) == ["server_tool_use", "web_search_tool_result"]
        assert answer["content"][1]["content"] == {"type": "web_search_tool_result_error", "error_code": "unavailable"}
        assert answer["usage"]["server_tool_use"]["web_search_requests"] == 0
        answer = await ask(it, "messages", one_search(""))
        assert answer["content"][1]["content"]["error_code"] == "invalid_tool_input"


async def test_a_question_is_for_the_model_also_where_it_has_no_other_tool() -> None:
    async with searching() as service, served(wants("one"), says("Done."), search={"url": service.url}) as it:
        answer = await ask(it, "messages", asking("messages", "What is new?", tools=[SEARCH["messages"]]))
        assert answer["content"][-1]["text"] == "Done."
        assert len(it.server.chats) == 2


async def test_domains_are_kept_to() -> None:
    pages = [page(1, "docs.python.org"), page(2, "evil-python.org"), page(3, "python.org"), page(4, "example.org")]
    async with searching(found(*pages)) as service, served(search={"url": service.url}) as it:
        tool = {**SEARCH["messages"], "allowed_domains": ["python.org"]}
        answer = await ask(it, "messages", one_search(tools=[tool]))
        assert [each["title"] for each in answer["content"][1]["content"]] == ["Page 1", "Page 3"]
        assert service.queries == ["old maps site:python.org"]
        tool = {**SEARCH["messages"], "blocked_domains": ["python.org"]}
        answer = await ask(it, "messages", one_search(tools=[tool]))
        assert [each["title"] for each in answer["content"][1]["content"]] == ["Page 2", "Page 4"]


async def test_a_count_has_the_tool_in_it() -> None:
    async with searching() as service, served(search={"url": service.url}) as it:
        counts = []
        for tools in ([SEARCH["messages"]], []):
            body = {key: value for key, value in one_search(tools=tools).items() if key != "max_tokens"}
            async with it.session.post(it.url + "/v1/messages/count_tokens", json=body) as answer:
                counts.append((await answer.json())["input_tokens"])
        assert counts[0] > counts[1]
        assert not service.asked


# -------------------------------------------------------------------------------------------------- kept conversations


async def test_a_conversation_that_is_kept_here_goes_on_with_what_was_found() -> None:
    turns = wants("one"), says("Done."), says("Bye.")
    async with searching() as service, served(*turns, search={"url": service.url}, store={"url": "memory"}) as it:
        answer = await ask(it, "responses", request("responses"))
        again = {
            "model": "m",
            "input": "And?",
            "previous_response_id": answer["id"],
            "tools": request("responses")["tools"],
        }
        await ask(it, "responses", again)
        before, after = prompt(it, 1), prompt(it, 2)
    assert after[: len(before)] == before
    assert before[-1]["content"] == PAGES


# --------------------------------------------------------------------------------------------------------- odd streams


@both
@pytest.mark.parametrize("split", ["bytes", 1, 2, 3])
async def test_however_the_servers_bytes_are_cut_the_answer_is_the_same(protocol: str, split: Any) -> None:
    def turns(**cut: Any) -> tuple[Script, Script]:
        call = call_stream(("web_search", '{"query": "one"}'), ("web_search", '{"query": "two"}'), text="Let me look.")
        return Script(call, **cut), Script(text_stream("It is ", "there.", reasoning=["Now I", " know."]), **cut)

    async with searching() as service, served(*turns(), *turns(split=split), search={"url": service.url}) as it:
        whole, cut = [await ask(it, protocol, request(protocol)) for _ in range(2)]
    key = "content" if protocol == "messages" else "output"
    assert without_ids(whole[key]) == without_ids(cut[key])
    assert [prompt(it, 0), prompt(it, 1)] == [prompt(it, 2), prompt(it, 3)]


def without_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [without_ids(each) for each in value]
    if isinstance(value, dict):
        return {key: without_ids(each) for key, each in value.items() if key not in ("id", "tool_use_id", "signature")}
    return value


async def test_the_beginning_of_an_answer_goes_on_in_the_turn_that_searches() -> None:
    turns = wants("one", text=" so:"), says("Done.")
    said = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "It is"}]
    backend = {"preset": "vllm"}
    async with searching() as service, served(*turns, backend=backend, search={"url": service.url}) as it:
        await ask(it, "messages", request("messages", messages=said))
        first, second = ((seen.body or {}) for seen in it.server.chats)
    assert first["continue_final_message"] is True
    assert "continue_final_message" not in second
    assert [each["role"] for each in second["messages"]] == ["user", "assistant", "tool"]
    assert second["messages"][1]["content"] == "It is so:"


@both
async def test_without_parallel_calls_a_search_does_not_count_as_one(protocol: str) -> None:
    alone: Json = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    turns = wants("one"), Script(call_stream(("ls", "{}"), ("ls", "{}"))), says("never")
    async with searching() as service, served(*turns, search={"url": service.url}) as it:
        body = request(protocol, **(alone if protocol == "messages" else {"parallel_tool_calls": False}))
        answer = await ask(it, protocol, body)
        assert len(it.server.chats) == 2
    call = "tool_use" if protocol == "messages" else "function_call"
    assert kinds(protocol, answer).count(call) == 1
    assert len(service.asked) == 1
