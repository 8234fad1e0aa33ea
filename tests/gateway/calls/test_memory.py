"""Conversations that clients keep at the gateway: over HTTP, with a store."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from dragoman.backends.background import end
from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Secrets, read
from dragoman.gateway.store.kept import StoreDown
from dragoman.gateway.store.lazy import LazyStore
from dragoman.translators.errors import GatewayError, Kind
from tests.grammar import responses as grammar
from tests.scripted import Script, call_delta, call_stream, chunk, sse, text_stream
from tests.serving_gateway import Served, Serving, served
from tests.waiting import until

Json = dict[str, Any]
KEEPS: Json = {"store": {"url": "memory"}}
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}


async def ask(it: Serving, **body: Any) -> Json:
    async with it.ask(**body) as answer:
        assert answer.status == 200, await answer.text()
        whole: Json = await answer.json()
        return whole


async def refused(it: Serving, status: int = 400, **body: Any) -> Json:
    async with it.ask(**body) as answer:
        assert answer.status == status, await answer.text()
        error: Json = (await answer.json())["error"]
        return error


async def get(it: Serving, path: str | URL, status: int = 200, method: str = "GET", **options: Any) -> Json:
    url = path if isinstance(path, URL) else f"{it.url}/v1/responses/{path}"
    async with it.session.request(method, url, **options) as answer:
        assert answer.status == status, await answer.text()
        body: Json = await answer.json()
        return body


def texts(page: Json) -> list[str]:
    """Those of the messages of a list."""
    return [item["content"][0]["text"] for item in page["data"]]


def store_of(it: Served) -> LazyStore:
    store = it.gateway.store
    assert store is not None
    return store


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_is_kept_and_found_again_as_it_was(stream: bool) -> None:
    async with served(Script(text_stream("hello")), **KEEPS) as it:
        if stream:
            async with it.ask(stream=True) as answer:
                raw = await answer.read()
            whole = grammar.check_stream(raw)
            assert whole is not None
        else:
            whole = await ask(it)
        assert whole["store"] is True
        assert await get(it, whole["id"]) == whole


async def test_a_call_continues_a_stored_answer_with_its_calls_and_results() -> None:
    scripts = (Script(call_stream(("add", "{}"))), Script(text_stream("three")), Script(text_stream("three")))
    async with served(*scripts, **KEEPS) as it:
        first = await ask(it, input="add them", tools=[TOOL])
        (call,) = first["output"]
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "3"}
        second = await ask(it, input=[result], previous_response_id=first["id"], tools=[TOOL])
        assert second["previous_response_id"] == first["id"]
        whole = [{"type": "message", "role": "user", "content": "add them"}, call, result]
        await ask(it, input=whole, tools=[TOOL], store=False)
        assert it.server.chats[1].raw == it.server.chats[2].raw  # the prompt is that of the whole history


async def test_a_conversation_may_branch() -> None:
    async with served(*(Script(text_stream(word)) for word in "abc"), **KEEPS) as it:
        first = await ask(it, input="1")
        for text in ("2", "3"):
            await ask(it, input=text, previous_response_id=first["id"])
        asked = [[m["content"] for m in seen.body["messages"]] for seen in it.server.chats if seen.body]
        assert asked == [["1"], ["1", "a", "2"], ["1", "a", "3"]]


async def test_what_is_not_to_be_stored_is_not() -> None:
    async with served(Script(text_stream("a")), **KEEPS) as it:
        whole = await ask(it, store=False)
        assert whole["store"] is False
        assert (await get(it, whole["id"], 404))["error"]["code"] == "response_not_found"
        error = await refused(it, previous_response_id=whole["id"])
        assert error["code"] == "previous_response_not_found"


async def test_only_a_call_that_uses_the_store_opens_it_and_does_so_before_the_model_answers() -> None:
    body = {"type": "response.create", "model": "m", "input": "hi", "store": False}
    scripts = (Script(text_stream("a")), Script(text_stream("a")), Script(text_stream("a"), hang_at=0))
    async with served(*scripts, **KEEPS) as it:
        await ask(it, store=False)
        async with it.session.ws_connect(it.url + "/v1/responses") as socket:
            await socket.send_str(json.dumps(body))
            async for message in socket:
                if "response.completed" in message.data:
                    break
        store = store_of(it)
        assert (store._store, store._opening) == (None, None)
        asked = asyncio.create_task(ask(it))
        await until(lambda: store._store is not None)
        assert not asked.done()
        await end(asked)


async def test_without_a_store_nothing_is_kept_and_that_is_said() -> None:
    async with served(Script(text_stream("a"))) as it:
        whole = await ask(it, store=True)
        assert whole["store"] is False
        error = await refused(it, previous_response_id=whole["id"])
        assert "'store': false" in error["message"]


async def test_a_stored_item_can_be_named() -> None:
    async with served(Script(text_stream("a")), Script(text_stream("b")), **KEEPS) as it:
        first = await ask(it, input="1")
        reference = {"type": "item_reference", "id": first["output"][0]["id"]}
        await ask(it, input=[{"role": "user", "content": "1"}, reference, {"role": "user", "content": "2"}])
        assert it.server.chats[1].body is not None
        assert [m["content"] for m in it.server.chats[1].body["messages"]] == ["1", "a", "2"]
        error = await refused(it, 404, input=[{"type": "item_reference", "id": "msg_other"}])
        assert "msg_other" in error["message"]


@pytest.mark.parametrize("type", [{}, {"type": None}, {"type": "item_reference"}])
async def test_a_stored_item_is_named_by_its_id_alone_too(type: Json) -> None:
    async with served(Script(text_stream("a")), Script(text_stream("b")), **KEEPS) as it:
        first = await ask(it, input="1")
        await ask(it, input=[{**type, "id": first["output"][0]["id"]}, {"role": "user", "content": "2"}])
        assert it.server.chats[1].body is not None
        assert [m["content"] for m in it.server.chats[1].body["messages"]] == ["a", "2"]
        error = await refused(it, 404, input=[{**type, "id": "msg_other"}])
        assert "msg_other" in error["message"]


@pytest.mark.parametrize("types", [("item_reference", "item_reference"), ("item_reference", None)])
async def test_an_item_that_is_named_twice_stands_there_once(types: tuple[str | None, ...]) -> None:
    """OpenAI refuses it, and a small request could hold a large item very often."""
    async with served(Script(text_stream("a")), Script(text_stream("b")), **KEEPS) as it:
        first = await ask(it, input="1")
        named = [{"type": type, "id": first["output"][0]["id"]} for type in types]
        async with it.ask(input=[named[0], {"role": "user", "content": "2"}, named[1]]) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["x-dragoman-ignored"] == "repair:duplicate_reference"
        assert it.server.chats[1].body is not None
        assert [m["content"] for m in it.server.chats[1].body["messages"]] == ["a", "2"]


async def test_a_reference_without_an_id_is_refused_for_that() -> None:
    async with served(**KEEPS) as it:
        for reference in ({"type": "item_reference"}, {"type": "item_reference", "id": 7}):
            assert (await refused(it, input=[reference]))["param"] == "input[0].id"


async def test_the_request_s_own_items_are_listed_in_pages() -> None:
    items = [{"type": "message", "role": "user", "content": str(number)} for number in range(5)]
    async with served(Script(text_stream("a")), **KEEPS) as it:
        whole = await ask(it, input=items)
        path = f"{whole['id']}/input_items"
        newest = await get(it, path, params={"limit": "2"})
        assert texts(newest) == ["4", "3"]
        assert newest["has_more"] is True
        more = await get(it, path, params={"limit": "2", "after": newest["last_id"]})
        assert texts(more) == ["2", "1"]
        oldest = await get(it, path, params={"order": "asc", "limit": "100"})
        assert texts(oldest) == list("01234")
        assert (oldest["first_id"], oldest["has_more"]) == (oldest["data"][0]["id"], False)
        for query in (
            *({"limit": limit} for limit in ("0", "101", "x", "9" * 5000)),
            {"order": "up"},
            {"after": "none"},
        ):
            assert (await get(it, path, 400, params=query))["error"]["param"] == next(iter(query))


async def test_pages_come_to_an_end_where_several_items_have_one_id() -> None:
    """As clients send them that take one message apart."""
    items = [{"type": "message", "id": "msg_1", "role": "user", "content": str(number)} for number in range(5)]
    async with served(Script(text_stream("a")), **KEEPS) as it:
        path = f"{(await ask(it, input=items))['id']}/input_items"
        found, page = list[str](), await get(it, path, params={"limit": "2"})
        for _ in range(2):
            found += texts(page)
            page = await get(it, path, params={"limit": "2", "after": page["last_id"]})
        assert [*found, *texts(page)] == list("43210")
        assert not page["has_more"]


async def test_a_conversation_that_no_request_could_bring_is_not_continued() -> None:
    """What is kept takes little room in the store, whatever its size."""
    large = {"role": "user", "content": "1", "ignored": "x" * 30_000}
    async with served(*[Script(text_stream("a"))] * 3, limits={"body_bytes": 50_000}, **KEEPS) as it:
        first = await ask(it, input=[large])
        second = await ask(it, input=[large], previous_response_id=first["id"])
        for names in (
            {"previous_response_id": second["id"]},
            {"input": [{"id": (await get(it, f"{each['id']}/input_items"))["last_id"]} for each in (first, second)]},
        ):
            error = await refused(it, **names)
            assert (error["code"], "50000 bytes" in error["message"]) == ("request_too_large", True)
        await get(it, second["id"])
        await ask(it, previous_response_id=first["id"])


async def test_a_deleted_answer_is_gone() -> None:
    async with served(Script(text_stream("a")), **KEEPS) as it:
        whole = await ask(it)
        assert await get(it, whole["id"], method="DELETE") == {"id": whole["id"], "object": "response", "deleted": True}
        for method in ("GET", "DELETE"):
            await get(it, whole["id"], 404, method)
        assert (await refused(it, previous_response_id=whole["id"]))["code"] == "previous_response_not_found"


async def test_what_a_stored_answer_cannot_do_is_refused() -> None:
    async with served(Script(text_stream("a")), **KEEPS) as it:
        whole = await ask(it)
        assert (await get(it, whole["id"], 400, params={"stream": "true"}))["error"]["param"] == "stream"
        assert (await get(it, f"{whole['id']}/cancel", 400, "POST"))["error"]["param"] == "background"
        await get(it, "resp_none/cancel", 404, "POST")


@pytest.mark.parametrize("store", ["memory", "off"])
async def test_what_could_be_an_endpoint_and_is_none_is_not_found(store: str) -> None:
    async with served(store={"url": store}) as it:
        for name in ("compact", "resp_1"):
            assert (await get(it, name, 404, "POST", json={"model": "m"}))["error"]["code"] == "not_found"
        assert (await get(it, "input_tokens", 405))["error"]["code"] == "method_not_allowed"
        assert (await get(it, "resp_1", 405, "PUT"))["error"]["code"] == "method_not_allowed"


async def test_another_key_finds_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key-one-one-one\nkey-two-two-two\n")
    config = Config(api_keys_file=keys)
    mine, other = ({"Authorization": f"Bearer key-{word}-{word}-{word}"} for word in ("one", "two"))
    settings: Json = {**KEEPS, "api_keys_file": keys, "secrets": read(config, {})}
    async with served(Script(text_stream("a")), Script(text_stream("b")), **settings) as it:
        async with it.ask(mine) as answer:
            id = (await answer.json())["id"]
        await get(it, id, 404, headers=other)
        await get(it, id, 404, "DELETE", headers=other)
        async with it.ask(other, previous_response_id=id) as answer:
            assert answer.status == 400
        await get(it, id, headers=mine)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("more", [{}, {"prompt_cache_options": {"prewarm": True}}], ids=["answer", "prewarm"])
async def test_an_answer_whose_store_fails_says_that_it_is_not_kept(
    more: Json, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def put(_kept: Any) -> None:
        await asyncio.sleep(0.05)
        raise StoreDown

    async with served(Script(text_stream("a", "b")), **KEEPS) as it:
        monkeypatch.setattr(store_of(it), "put", put)
        async with it.ask(stream=stream, **more) as answer:
            raw = await answer.read()
        whole = grammar.check_stream(raw) if stream else json.loads(raw)
        assert whole is not None
        assert (whole["status"], whole["store"]) == ("completed", False)
        assert it.metric("dragoman_notes_total", kind="answer", name="not_stored") == 1


async def test_while_the_store_is_down_only_what_needs_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(Script(text_stream("a")), Script(text_stream("b")), **KEEPS) as it:
        first = await ask(it)
        store = await store_of(it).opened()
        monkeypatch.setattr(store, "down", True)
        assert (await ask(it))["store"] is False
        error = await refused(it, 503, previous_response_id=first["id"])
        assert "cannot be reached" in error["message"]
        await get(it, first["id"], 503)
        monkeypatch.setattr(store, "down", False)
        await get(it, first["id"])


async def test_no_delta_waits_for_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = asyncio.Event()

    async def put(_kept: Any) -> None:
        await let_go.wait()

    async with served(Script(text_stream("first", "last")), **KEEPS) as it:
        monkeypatch.setattr(store_of(it), "put", put)
        async with it.ask(stream=True) as answer:
            seen = b""
            while b"response.output_item.done" not in seen:
                seen += await answer.content.readany()
            assert b"response.completed" not in seen
            let_go.set()
            seen += await answer.content.read()
        assert grammar.check_stream(seen) is not None


async def test_an_answer_that_is_ended_while_it_is_kept_has_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(Script(text_stream("a")), **KEEPS) as it:
        waits = asyncio.Event()

        async def put(_kept: Any) -> None:
            waits.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(store_of(it), "put", put)
        async with it.ask(stream=True) as answer:
            await waits.wait()
            for call in it.gateway.handler.calls:
                call.end(0.0, GatewayError(Kind.DRAINING, "The gateway is shutting down."))
            whole = grammar.check_stream(await answer.read())
        assert whole is not None
        assert whole["store"] is False


async def test_a_silent_store_gets_no_keepalive_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    async def put(_kept: Any) -> None:
        await asyncio.sleep(0.3)

    async with served(Script(text_stream("a")), timeouts={"keepalive": 0.05}, **KEEPS) as it:
        monkeypatch.setattr(store_of(it), "put", put)
        async with it.ask(stream=True) as answer:
            assert grammar.check_stream(await answer.read()) is not None


async def test_a_call_may_add_nothing_to_what_it_continues() -> None:
    async with served(Script(text_stream("a")), Script(text_stream("b")), **KEEPS) as it:
        first = await ask(it, input="1")
        body = {"model": "m", "previous_response_id": first["id"]}
        async with it.session.post(f"{it.url}/v1/responses", json=body) as answer:
            assert answer.status == 200, await answer.text()


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ("x", "input[1]"),
        ({"type": "function_call", "call_id": "c", "name": "add"}, "input[1].arguments"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "input[1].content[0].type"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "https://a/b"}]},
            "input[1].content[0].image_url",
        ),
    ],
)
async def test_what_is_wrong_is_named_by_its_place_in_what_the_client_has_sent(item: Any, param: str) -> None:
    async with served(Script(text_stream("a")), **KEEPS) as it:
        first = await ask(it, input=[{"role": "user", "content": str(number)} for number in range(3)])
        error = await refused(it, input=[{"role": "user", "content": "4"}, item], previous_response_id=first["id"])
        assert error["param"] == param


async def test_searches_without_an_id_are_told_apart_by_their_place_in_the_whole_conversation() -> None:
    search: Json = {"type": "tool_search_call", "execution": "client", "arguments": {}}
    found: Json = {"type": "tool_search_output", "execution": "client", "tools": []}
    async with served(*[Script(text_stream("a"))] * 3, **KEEPS) as it:
        first = await ask(it, input=[search, found])
        await ask(it, input=[search, found], previous_response_id=first["id"])
        await ask(it, input=[search, found, *first["output"], search, found])
        assert it.server.chats[1].raw == it.server.chats[2].raw


async def test_an_incomplete_answer_is_kept() -> None:
    async with served(Script(text_stream("a", finish="length")), **KEEPS) as it:
        whole = await ask(it, metadata={"a": "b"})
        assert whole["status"] == "incomplete"
        assert await get(it, whole["id"]) == whole


@pytest.mark.parametrize("id", ["%00", "resp_%27%20or%201%3D1", "%ED%A0%80", "x" * 500, "a%2Fb"])
async def test_an_odd_id_is_an_unknown_one(id: str) -> None:
    async with served(**KEEPS) as it:
        for path in (id, f"{id}/input_items"):
            assert (await get(it, URL(f"{it.url}/v1/responses/{path}", encoded=True), 404))["error"]["message"]
        assert (await refused(it, previous_response_id=id))["code"] == "previous_response_not_found"


def half_call(index: int, arguments: str) -> Json:
    return chunk(call_delta(index, "add", arguments, f"call_{index}"))


async def test_an_answer_that_failed_can_be_continued_by_who_has_read_its_id() -> None:
    """Microsoft's Agent Framework takes the id from the first event, and goes on from there whatever comes after it."""
    cut = sse(chunk({"content": "Well, "}), half_call(0, "{}"), half_call(1, '{"a": '), done=False)
    async with served(Script(cut, unterminated=True), Script(text_stream("b")), **KEEPS) as it:
        async with it.ask(input="1", stream=True, tools=[TOOL]) as answer:
            failed = grammar.check_stream(await answer.read())
        assert failed is not None
        assert failed["status"] == "failed"
        kept = await get(it, failed["id"])
        assert (kept["status"], kept["error"]) == ("failed", failed["error"])
        assert (await ask(it, input="2", previous_response_id=failed["id"]))["status"] == "completed"
        assert it.server.chats[1].body is not None
        asked = [
            (each["role"], each.get("content"), len(each.get("tool_calls", ())))
            for each in it.server.chats[1].body["messages"]
        ]
    lost = "[No output was recorded for this call.]"
    assert asked == [("user", "1", 0), ("assistant", "Well, ", 1), ("tool", lost, 0), ("user", "2", 0)]


async def test_a_failed_answer_whose_store_fails_has_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def put(_kept: Any) -> None:
        await asyncio.sleep(0.3)
        raise StoreDown

    cut = Script(sse(chunk({"content": "a"}), done=False), unterminated=True)
    async with served(cut, timeouts={"keepalive": 0.05}, **KEEPS) as it:
        monkeypatch.setattr(store_of(it), "put", put)
        async with it.ask(stream=True) as answer:
            failed = grammar.check_stream(await answer.read())
        assert failed is not None
        assert failed["status"] == "failed"
        assert it.metric("dragoman_notes_total", kind="answer", name="not_stored") == 1


async def test_an_answer_that_failed_before_its_id_was_known_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    async def put(it: Any) -> None:
        kept.append(it)

    async with served(Script.json({"error": "CUDA error"}, 500), **KEEPS) as it:
        monkeypatch.setattr(store_of(it), "put", put)
        async with it.ask(stream=True) as answer:
            assert answer.status == 502
    assert not kept


async def test_over_a_socket_a_stored_answer_can_be_continued_after_a_reconnect() -> None:
    async with served(Script(text_stream("a")), Script(text_stream("b")), **KEEPS) as it:
        first = await ask(it, input="1")
        async with it.session.ws_connect(it.url + "/v1/responses") as socket:
            body = {"type": "response.create", "model": "m", "input": "2", "previous_response_id": first["id"]}
            await socket.send_str(json.dumps(body))
            async for message in socket:
                if "response.completed" in message.data:
                    break
        assert it.server.chats[1].body is not None
        assert [m["content"] for m in it.server.chats[1].body["messages"]] == ["1", "a", "2"]


async def test_a_conversation_that_is_too_long_is_cut_where_the_request_says_so() -> None:
    items = [{"role": "user", "content": f"question {number} " + "x " * 400} for number in range(8)]
    backend = {"preset": "vllm", "window": 1024}
    async with served(Script(text_stream("a")), backend=backend) as it:
        it.server.on("POST", "/tokenize", lambda body: Script.json({"count": 200 * len(body["messages"])}))
        async with it.ask(input=items, truncation="auto", max_output_tokens=16) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["x-dragoman-ignored"] == "repair:truncation"
            assert (await answer.json())["truncation"] == "auto"
        assert it.server.chats[0].body is not None
        sent = [message["content"][:10] for message in it.server.chats[0].body["messages"]]
        assert sent == [f"question {number}" for number in range(4, 8)]
        error = await refused(it, input=items)
        assert error["code"] == "context_length_exceeded"


# ----------------------------------------------------------------------------------------------- the memory for them

MIB = 1024 * 1024
LARGE = json.dumps({"model": "m", "input": "word " * (3 * MIB // 5)}).encode()


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("names", ["previous_response_id", "item_reference"])
async def test_a_small_request_for_a_large_conversation_waits_as_a_large_request_does(names: str, sealed: bool) -> None:
    limits = {"body_bytes": 4 * MIB, "bodies_bytes": 5 * MIB}
    settings: Json = {
        "store": {**KEEPS["store"], "sealed": sealed},
        "secrets": Secrets(seal_keys=("0" * 64,)),
        "limits": limits,
        "timeouts": {"body": 0.3},
    }
    async with served(Script(text_stream("ok")), **settings) as it:
        async with it.session.post(f"{it.url}/v1/responses", data=io.BytesIO(LARGE)) as answer:
            stored = await answer.json()
        item = (await get(it, f"{stored['id']}/input_items"))["data"][0]["id"]
        more: Json = {"previous_response_id": stored["id"]}
        if names == "item_reference":
            more = {"input": [{"type": "item_reference", "id": item}]}
        it.server.default = Script(text_stream("ok"), head_delay=60.0)
        first = asyncio.ensure_future(ask(it, **more))
        await it.server.until(lambda: len(it.server.chats) == 2)
        it.server.default = Script(text_stream("ok"))
        assert (await refused(it, 503, **more))["message"].startswith("The gateway holds as many large requests")
        await get(it, stored["id"], 503)
        second = asyncio.ensure_future(ask(it, **more))
        await until(lambda: it.gateway.handler.bodies.memory._waiting)
        first.cancel()
        await second
        assert (await get(it, stored["id"]))["id"] == stored["id"]
        await until(lambda: it.gateway.handler.bodies.memory.taken == 0)
