"""Calls over a WebSocket: one after another on a connection that remembers its last answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dragoman.gateway.calls import socket as socket_module
from dragoman.gateway.calls.socket import WAITING
from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Grant, read
from tests.grammar import responses as grammar
from tests.scripted import Script, call_stream, text_stream
from tests.serving_gateway import Served, served
from tests.waiting import LIMIT, until

Json = dict[str, Any]
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}


def user(text: str) -> Json:
    return {"type": "message", "role": "user", "content": text}


class Talk:
    """A client's side of a connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    def write(self, data: bytes) -> None:
        """Frames, or parts of them."""
        connection = self.socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.write(data)

    async def say(self, **message: Any) -> None:
        await self.socket.send_str(json.dumps({"type": "response.create", "model": "m", "store": False, **message}))

    async def event(self) -> Json:
        message = await self.socket.receive(LIMIT)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        event: Json = json.loads(message.data)
        return event

    async def events(self) -> list[Json]:
        """Those of one answer, up to its end."""
        found = [await self.event()]
        ends = ("response.completed", "response.incomplete", "response.failed")
        while found[-1]["type"] not in ends and "status" not in found[-1]:
            found.append(await self.event())
        return found

    async def ask(self, **message: Any) -> Json:
        """The whole answer."""
        await self.say(**message)
        events = await self.events()
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        answer: Json = events[-1]["response"]
        return answer

    async def refused(self, **message: Any) -> Json:
        await self.say(**message)
        event = await self.event()
        assert event["type"] == "error"
        return event


@asynccontextmanager
async def talking(*scripts: Script, **settings: Any) -> AsyncIterator[tuple[Talk, Served]]:
    async with (
        served(*scripts, **settings) as it,
        it.session.ws_connect(it.url + "/v1/responses", max_msg_size=0) as socket,
    ):
        yield Talk(socket), it


def sent(it: Served) -> list[list[Json]]:
    """The conversations that the server was sent."""
    return [seen.body["messages"] for seen in it.server.chats if seen.body is not None]


async def test_the_events_are_those_of_the_stream_each_a_message() -> None:
    async with talking(Script(text_stream("hel", "lo"))) as (talk, _):
        await talk.say(input="hi")
        events = await talk.events()
        frames = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)
        whole = grammar.check_stream(frames + b"data: [DONE]\n\n")
        assert whole is not None
        assert whole["output"][0]["content"][0]["text"] == "hello"


async def test_a_call_continues_the_last_answer_of_its_connection() -> None:
    async with talking(Script(call_stream(("add", "{}"))), Script(text_stream("three"))) as (talk, it):
        first = await talk.ask(input=[user("add them")], tools=[TOOL], instructions="be short")
        call = first["output"][0]
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "3"}
        second = await talk.ask(previous_response_id=first["id"], input=[result], tools=[TOOL])
        assert second["previous_response_id"] == first["id"]
        before, after = sent(it)
        assert before[0] == {"role": "system", "content": "be short"}
        assert [message["role"] for message in after] == ["user", "assistant", "tool"]
        assert after[1]["tool_calls"][0]["id"] == call["call_id"]


async def test_the_prompt_is_that_of_the_whole_conversation() -> None:
    async with talking(*(Script(text_stream(word)) for word in ("a", "b", "c", "c"))) as (talk, it):
        one = await talk.ask(input="1")
        two = await talk.ask(previous_response_id=one["id"], input="2")
        await talk.ask(previous_response_id=two["id"], input="3")
        whole = [user("1"), *one["output"], user("2"), *two["output"], user("3")]
        async with it.ask(input=whole) as answer:
            assert answer.status == 200
        assert it.server.chats[2].raw == it.server.chats[3].raw


async def test_another_connection_knows_nothing_of_it() -> None:
    async with talking(Script(text_stream("a"))) as (talk, it):
        first = await talk.ask(input="1")
        async with it.session.ws_connect(it.url + "/v1/responses") as other:
            error = await Talk(other).refused(previous_response_id=first["id"], input="2")
            assert error["status"] == 400
            assert error["error"]["code"] == "previous_response_not_found"


async def test_a_refusal_leaves_the_connection_open_and_a_failed_continuation_is_forgotten() -> None:
    async with talking(*(Script(text_stream(word)) for word in ("a", "b"))) as (talk, _):
        first = await talk.ask(input="1")
        assert (await talk.refused(previous_response_id=first["id"], input=5))["error"]["param"] == "input"
        gone = await talk.refused(previous_response_id=first["id"], input="2")
        assert gone["error"]["code"] == "previous_response_not_found"
        assert (await talk.ask(input="again"))["status"] == "completed"


@pytest.mark.parametrize(
    "message",
    [
        "{",
        '{"type": "response.steer", "input": []}',
        '{"type": "response.create", "input": "x"}',
        '{"type": "response.create", "model": "m", "input": 5, "store": false}',
        '{"type": "response.create", "model": "m", "input": "x", "previous_response_id": "resp_other"}',
    ],
)
async def test_a_refusal_of_something_else_leaves_the_last_answer_remembered(message: str) -> None:
    async with talking(*(Script(text_stream(word)) for word in ("a", "b"))) as (talk, _):
        first = await talk.ask(input="1")
        await talk.socket.send_str(message)
        assert (await talk.event())["type"] in ("error", "response.steer.failed")
        assert (await talk.ask(previous_response_id=first["id"], input="2"))["status"] == "completed"


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ('{"type": "response.cancel"}', "type", "invalid_value"),
        ("{", None, "invalid_json"),
        ("[]", None, "invalid_json"),
        ('{"type": "response.create", "input": "x"}', "model", "missing_required_parameter"),
        ('{"type": "response.create", "model": "m", "input": "x", "stream_id": 5}', "stream_id", "invalid_stream_id"),
        ('{"type": "response.create", "model": "m", "input": "x", "stream_id": ""}', "stream_id", "invalid_stream_id"),
        ('{"type": "response.create", "model": "m", "input": "x", "generate": 0}', "generate", "invalid_type"),
        (
            '{"type": "response.create", "model": "m", "input": "x", "generate": false, "prompt_cache_options": "x"}',
            "prompt_cache_options",
            "invalid_type",
        ),
    ],
)
async def test_a_message_that_asks_for_nothing_is_refused(message: str, param: str | None, code: str) -> None:
    async with talking() as (talk, _):
        await talk.socket.send_str(message)
        error = await talk.event()
        assert (error["type"], error["status"]) == ("error", 400)
        assert (error["error"]["param"], error["error"]["code"]) == (param, code)


@pytest.mark.parametrize("status", [503, 500])
async def test_a_server_that_may_recover_is_in_words_after_which_clients_ask_again(status: int) -> None:
    """Codex gives up at `server_is_overloaded`, which it is over HTTP; openai-agents asks again if there is none."""
    async with talking(Script.json({"error": "the queue is full"}, status)) as (talk, _):
        error = await talk.refused(input="1")
        assert error["status"] == (503 if status == 503 else 502)
        assert (error["error"]["type"], error["error"]["code"]) == ("server_error", None)


async def test_a_server_that_is_full_says_when_to_come_back() -> None:
    """Codex obeys it as the header of an answer over HTTP."""
    full = Script.json({"error": "the queue is full"}, 429, {"retry-after": "7"})
    async with talking(full, Script.json({"error": {"message": "no"}}, 400)) as (talk, _):
        assert (await talk.refused(input="1"))["headers"] == {"retry-after": "7"}
        assert "headers" not in await talk.refused(input="1")


@pytest.mark.parametrize("steer", [{"previous_response_id": "resp_1", "input": "Stop."}, {}])
async def test_what_should_steer_a_response_comes_back(steer: Json) -> None:
    """As an event of its own: an `error` would belong to the response that is asked for next."""
    async with talking(Script(text_stream("a"))) as (talk, _):
        await talk.say(input="1")
        await talk.socket.send_json({"type": "response.steer", **steer})
        assert (await talk.events())[-1]["type"] == "response.completed"
        failed = await talk.event()
        assert failed.pop("error").keys() == {"type", "code", "message"}
        assert failed == {"type": "response.steer.failed", "sequence_number": 0, "steer": steer}


async def test_a_warm_up_asks_for_one_token_says_nothing_and_can_be_continued() -> None:
    async with talking(Script(text_stream("x", finish="length")), Script(text_stream("hello"))) as (talk, it):
        warm = await talk.ask(generate=False, input=[{**user("the rules"), "role": "developer"}], tools=[TOOL])
        assert (warm["status"], warm["output"]) == ("completed", [])
        assert it.server.chats[0].body is not None
        assert it.server.chats[0].body["max_tokens"] == 1
        answer = await talk.ask(previous_response_id=warm["id"], input="hi", tools=[TOOL])
        assert answer["output"][0]["content"][0]["text"] == "hello"
        assert [message["role"] for message in sent(it)[1]] == ["system", "user"]


async def test_a_lane_is_named_in_every_event() -> None:
    async with talking(Script(text_stream("a"))) as (talk, _):
        await talk.say(input="1", stream_id="left")
        assert {event["stream_id"] for event in await talk.events()} == {"left"}
        await talk.say(input=7, stream_id="right")
        assert (await talk.event())["stream_id"] == "right"


async def test_each_lane_continues_its_own_answer_and_may_fork_that_of_another() -> None:
    plays = [Script(text_stream(word)) for word in ("a", "b", "c", "d")]
    async with talking(*plays, Script.json({}, 500)) as (talk, it):
        left = await talk.ask(input="1", stream_id="left")
        right = await talk.ask(input="2", stream_id="right")
        left = await talk.ask(input="3", stream_id="left", previous_response_id=left["id"])
        assert [message["content"] for message in sent(it)[-1]] == ["1", "a", "3"]
        await talk.ask(input="4", stream_id="new", previous_response_id=right["id"])
        assert [message["content"] for message in sent(it)[-1]] == ["2", "b", "4"]
        assert (await talk.refused(input="5", stream_id="new", previous_response_id=left["id"]))["status"] == 502
        it.server.add(Script(text_stream("e")))
        await talk.ask(input="6", stream_id="left", previous_response_id=left["id"])
        assert [message["content"] for message in sent(it)[-1]] == ["1", "a", "3", "c", "6"]


@pytest.mark.parametrize(("lane", "known"), [("left", False), ("fork", True)])
async def test_a_continuation_that_fails_forgets_what_it_continues_on_its_own_lane_alone(
    lane: str, known: bool
) -> None:
    failing = Script.json({"error": "CUDA error"}, 500)
    async with talking(Script(text_stream("a")), failing, Script(text_stream("b"))) as (talk, _):
        first = await talk.ask(input="1", stream_id="left")
        await talk.refused(input="2", stream_id=lane, previous_response_id=first["id"])
        await talk.say(input="3", stream_id="left", previous_response_id=first["id"])
        last = (await talk.events())[-1]
        assert (last["type"] == "response.completed") is known


async def test_what_means_nothing_here_is_passed_over() -> None:
    async with talking(Script(text_stream("a"))) as (talk, _):
        answer = await talk.ask(input="1", stream=False, background=True, stream_options={"include_usage": True})
        assert answer["status"] == "completed"


async def test_messages_that_come_early_wait_for_their_turn() -> None:
    async with talking(*(Script(text_stream(word)) for word in "abc")) as (talk, _):
        for text in "123":
            await talk.say(input=text)
        texts = [(await talk.events())[-1]["response"]["output"][0]["content"][0]["text"] for _ in "123"]
        assert texts == ["a", "b", "c"]


async def test_a_failure_of_the_server_is_one_event_after_which_the_connection_goes_on() -> None:
    """Clients end a response at `error` and at `response.failed`, and what came after the first would end the next."""
    cut = text_stream("a", "b")
    async with talking(Script(cut, cut_at=len(cut) // 2), Script(text_stream("whole"))) as (talk, _):
        await talk.say(input="1")
        events = await talk.events()
        assert events[-1]["response"]["error"]["code"] == "server_error"
        # clients would take what follows an `error` for the next answer
        assert "error" not in [event["type"] for event in events]
        assert (await talk.ask(input="2"))["status"] == "completed"


@pytest.mark.parametrize("orderly", [True, False])
async def test_a_client_that_leaves_ends_its_call(orderly: bool) -> None:
    async with talking(Script(text_stream("a", "b"), hang_at=300)) as (talk, it):
        await talk.say(input="1")
        await it.server.until(lambda: bool(it.server.chats) and it.server.chats[0].sent >= 300)
        if orderly:
            await talk.socket.close()
        else:
            talk.socket._response.close()
        await it.server.until(lambda: it.server.chats[0].outcome == "client_gone")
        await until(lambda: not it.gateway.handler.calls)


async def test_a_client_that_does_not_read_holds_the_server_back() -> None:
    long = Script(text_stream(*["x" * 20_000] * 3000))
    async with talking(long, limits={"answer_bytes": 1 << 30}) as (talk, it):
        await talk.say(input="1")
        await it.server.until(lambda: bool(it.server.chats))
        await asyncio.sleep(0.3)
        held = it.server.chats[0].sent
        await asyncio.sleep(0.2)
        assert it.server.chats[0].outcome == "open"
        assert it.server.chats[0].sent == held
        assert (await talk.events())[-1]["type"] == "response.completed"


async def test_refusals_are_not_heaped_up_for_a_client_that_does_not_read() -> None:
    """A refused `response.steer` brings its input back."""
    steer = json.dumps({"type": "response.steer", "previous_response_id": "resp_1", "input": "x" * 1024 * 1024})
    async with talking(timeouts={"client": 0.5}) as (talk, it):
        (here,) = it.gateway.sockets._open
        wire, most = here.request.transport, 0
        assert wire is not None
        with contextlib.suppress(ConnectionError):
            for _ in range(60):
                await talk.socket.send_str(steer)
                await asyncio.sleep(0)
                most = max(most, wire.get_write_buffer_size())
        assert most < 3 * 1024 * 1024
        await until(lambda: not it.gateway.sockets._open)


async def test_pings_are_answered_while_a_call_runs() -> None:
    async with talking(Script(text_stream("a"), head_delay=0.5)) as (talk, it):
        await talk.say(input="1")
        await it.server.until(lambda: bool(it.server.chats))
        await talk.socket.ping(b"there?")
        message = await talk.socket.receive(LIMIT)
        while message.type is aiohttp.WSMsgType.TEXT and "completed" not in message.data:
            message = await talk.socket.receive(LIMIT)
        assert message.type is aiohttp.WSMsgType.TEXT


async def test_binary_messages_end_the_connection() -> None:
    async with talking() as (talk, _):
        await talk.socket.send_bytes(b"{}")
        message = await talk.socket.receive(LIMIT)
        assert (message.type, talk.socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1003)


async def test_a_message_beyond_the_limit_ends_the_connection() -> None:
    async with talking(limits={"body_bytes": 10_000}) as (talk, _):
        await talk.say(input="x" * 20_000)
        message = await talk.socket.receive(LIMIT)
        assert (message.type, talk.socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1009)


async def test_a_gateway_that_leaves_lets_the_call_end_and_closes() -> None:
    async with talking(Script(text_stream("a"), head_delay=0.2)) as (talk, it):
        await talk.say(input="1")
        await it.server.until(lambda: bool(it.server.chats))
        leaving = asyncio.create_task(it.gateway.sockets.leave())
        assert (await talk.events())[-1]["type"] == "response.completed"
        message = await talk.socket.receive(LIMIT)
        assert (message.type, talk.socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1001)
        await leaving


async def test_an_idle_connection_is_closed_when_the_gateway_leaves() -> None:
    async with talking() as (talk, it):
        leaving = asyncio.create_task(it.gateway.sockets.leave())
        message = await talk.socket.receive(LIMIT)
        assert (message.type, talk.socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1001)
        await leaving


async def refusal(it: Served, **options: Any) -> int:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await it.session.ws_connect(it.url + "/v1/responses", **options)
    return caught.value.status


async def test_a_page_of_another_site_cannot_connect() -> None:
    async with served() as it:
        assert await refusal(it, origin="http://evil.example") == 403
        assert await refusal(it, origin="null") == 403
        assert await refusal(it, origin="http://[") == 403
        assert await refusal(it, origin="http://evil.example", headers={"Authorization": "Basic OnB3"}) == 403
        async with it.session.ws_connect(it.url + "/v1/responses", origin=it.url):
            pass


@pytest.mark.parametrize("key", [{"Authorization": "Bearer any"}, {"x-api-key": "any"}])
async def test_a_program_with_a_key_can_connect_through_a_proxy_that_changes_the_host(key: dict[str, str]) -> None:
    """websocket-client sends an Origin, and no page can send a key."""
    async with (
        served(Script(text_stream("a"))) as it,
        it.session.ws_connect(it.url + "/v1/responses", origin="https://models.example", headers=key) as socket,
    ):
        assert (await Talk(socket).ask(input="1"))["status"] == "completed"


async def test_a_client_has_so_many_connections_and_no_more() -> None:
    async with talking(limits={"sockets": 2}) as (_, it):
        async with it.session.ws_connect(it.url + "/v1/responses"):
            assert await refusal(it) == 429
        async with it.session.ws_connect(it.url + "/v1/responses"):
            pass


async def test_a_key_that_was_removed_ends_the_connection_at_its_next_message(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key-one-one-one\nkey-two-two-two\n")
    secrets = read(Config(api_keys_file=keys), {})
    headers = {"Authorization": "Bearer key-one-one-one"}
    async with (
        served(Script(text_stream("a")), api_keys_file=keys, secrets=secrets) as it,
        it.session.ws_connect(it.url + "/v1/responses", headers=headers) as socket,
    ):
        assert await refusal(it) == 401
        talk = Talk(socket)
        await talk.ask(input="1")
        it.gateway._keys._take({"key-two-two-two": Grant()})
        error = await talk.refused(input="2")
        assert error["status"] == 401
        message = await socket.receive(LIMIT)
        assert (message.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1008)
        assert len(it.server.chats) == 1


async def test_so_many_messages_may_wait_and_no_more() -> None:
    async with talking(Script(text_stream("a"), hang_at=20)) as (talk, it):
        await talk.say(input="1")
        await it.server.until(lambda: bool(it.server.chats))
        for _ in range(WAITING + 1):
            await talk.say(input="more")
        while (message := await talk.socket.receive(LIMIT)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert (message.type, talk.socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1008)
        await until(lambda: not it.gateway.handler.calls)
        assert len(it.server.chats) == 1


async def test_a_conversation_beyond_the_limit_is_forgotten() -> None:
    plays = [Script(text_stream("x" * 4_000))] * 3
    async with talking(*plays, limits={"body_bytes": 10_000}) as (talk, _):
        first = await talk.ask(input="1")
        second = await talk.ask(input="2", previous_response_id=first["id"])
        third = await talk.ask(input="3" * 2_000, previous_response_id=second["id"])
        error = await talk.refused(input="4", previous_response_id=third["id"])
        assert error["error"]["code"] == "previous_response_not_found"


async def test_of_all_connections_the_one_that_has_rested_longest_forgets_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket_module, "REMEMBERED", 12_000)
    plays = [Script(text_stream("x" * 4_000))] * 5
    async with talking(*plays) as (talk, it), it.session.ws_connect(it.url + "/v1/responses") as socket:
        other = Talk(socket)
        mine, its = await talk.ask(input="1"), await other.ask(input="1")
        mine = await talk.ask(input="2" * 1_000, previous_response_id=mine["id"])
        error = await other.refused(input="2", previous_response_id=its["id"])
        assert error["error"]["code"] == "previous_response_not_found"
        await talk.ask(input="3", previous_response_id=mine["id"])


async def test_an_idle_client_is_pinged_and_one_that_has_vanished_is_cut_off() -> None:
    async with served(timeouts={"keepalive": 0.1, "client": 0.3}) as it:
        async with it.session.ws_connect(it.url + "/v1/responses", autoping=False) as socket:
            assert (await socket.receive(LIMIT)).type is aiohttp.WSMsgType.PING
            while (message := await socket.receive(LIMIT)).type is aiohttp.WSMsgType.PING:
                pass
            assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        async with it.session.ws_connect(it.url + "/v1/responses") as socket:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.8):
                    await socket.receive()  # pings are answered meanwhile
            assert not socket.closed


async def test_what_waits_when_the_gateway_leaves_is_not_answered() -> None:
    async with talking(Script(text_stream("a"), head_delay=0.2)) as (talk, it):
        await talk.say(input="1")
        await it.server.until(lambda: bool(it.server.chats))
        await talk.say(input="2")
        await it.gateway.sockets.leave()
        assert (await talk.events())[-1]["type"] == "response.completed"
        message = await talk.socket.receive(LIMIT)
        assert (message.type, talk.socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1001)
        await until(lambda: not it.gateway.handler.calls)
        assert len(it.server.chats) == 1


async def test_nobody_can_connect_to_a_gateway_that_drains() -> None:
    async with served() as it:
        it.gateway.handler.draining = True
        assert await refusal(it) == 503


async def test_who_connects_while_load_balancers_are_given_time_is_served() -> None:
    async with served(Script(text_stream("a"))) as it:
        it.gateway.handler.leaving = True
        async with it.session.ws_connect(it.url + "/v1/responses") as socket:
            await socket.send_json({"type": "response.create", "model": "m", "input": "Hi"})
            assert (await socket.receive_json())["type"] == "response.created"


async def test_an_item_of_the_connection_can_be_named() -> None:
    async with talking(Script(text_stream("a")), Script(text_stream("b"))) as (talk, it):
        first = await talk.ask(input="1")
        reference = {"type": "item_reference", "id": first["output"][0]["id"]}
        await talk.ask(input=[reference, user("2")])
        assert [message["content"] for message in sent(it)[1]] == ["a", "2"]


async def test_what_continues_something_unstored_is_not_stored_and_says_so() -> None:
    plays = [Script(text_stream(word)) for word in "abc"]
    async with talking(*plays, store={"url": "memory"}) as (talk, it):
        first = await talk.ask(input="1")
        second = await talk.ask(input="2", previous_response_id=first["id"], store=True)
        assert second["store"] is False
        assert it.metric("dragoman_notes_total", kind="answer", name="not_stored") == 1
        assert (await talk.ask(input="3", store=True))["store"] is True


async def test_other_protocols_have_no_socket() -> None:
    async with served() as it:
        for path in ("/v1/messages", "/v1/chat/completions"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await it.session.ws_connect(it.url + path)
            assert caught.value.status == 426


@pytest.mark.parametrize(
    "left",
    [{}, {"Connection": "close"}, {"Upgrade": "websocket"}, {"Upgrade": "websocket", "Connection": "keep-alive"}],
)
async def test_a_handshake_that_a_proxy_has_cut_is_426_after_which_codex_asks_over_http(left: Json) -> None:
    handshake = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
    async with served() as it, it.session.get(it.url + "/v1/responses", headers={**handshake, **left}) as answer:
        assert answer.status == 426
        error = (await answer.json())["error"]
        assert error["code"] == "upgrade_required"
        assert "Connection: Upgrade" in error["message"]


async def test_messages_that_arrive_have_no_more_memory_than_all_bodies_may_take() -> None:
    """However many connections there are."""
    mib = 1024 * 1024
    limits = {"body_bytes": 8 * mib, "bodies_bytes": 10 * mib}
    message = json.dumps({"type": "response.create", "model": "m", "store": False, "input": "x" * 6 * mib}).encode()
    sent = struct.pack("!BBQ4x", 0x81, 0x80 | 127, len(message)) + message
    async with (
        talking(*[Script(text_stream("ok"))] * 2, limits=limits) as (talk, it),
        it.session.ws_connect(it.url + "/v1/responses", max_msg_size=0) as socket,
    ):
        memory, other = it.gateway.handler.bodies.memory, Talk(socket)
        talk.write(sent[: 6 * mib])
        await until(lambda: memory.taken > 5 * mib)
        other.write(sent)
        await until(lambda: memory._waiting)
        assert memory.taken < 11 * mib
        talk.write(sent[6 * mib :])
        for each in (talk, other):
            assert (await each.events())[-1]["type"] == "response.completed"
        await until(lambda: memory.taken == 0)


async def test_a_large_conversation_that_a_connection_remembers_counts_while_it_is_continued() -> None:
    async with talking(Script(text_stream("a")), Script(text_stream("b"), head_delay=60.0)) as (talk, it):
        memory = it.gateway.handler.bodies.memory
        first = await talk.ask(input="word " * 400_000)
        await until(lambda: memory.taken == 0)
        await talk.say(input="more", previous_response_id=first["id"])
        await it.server.until(lambda: len(it.server.chats) == 2)
        assert memory.taken > 2_000_000


async def test_a_large_message_that_does_not_arrive_in_time_ends_the_connection() -> None:
    async with talking(timeouts={"body": 0.2}) as (talk, it):
        talk.write(struct.pack("!BBQ4x", 0x81, 0x80 | 127, 3 * 1024 * 1024) + b"x" * 2 * 1024 * 1024)
        message = await talk.socket.receive(LIMIT)
        assert (message.type, talk.socket.close_code) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.POLICY_VIOLATION)
        await until(lambda: it.gateway.handler.bodies.memory.taken == 0)
