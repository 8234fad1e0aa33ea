"""Arrays that were sent before give the same requests, notes and errors as if they were read for the first time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.translators.errors import GatewayError
from dragoman.translators.fields import Unread
from dragoman.translators.ir import Delta, Finished, PartEnded, PartStarted, Started, StopReason
from dragoman.translators.protocol import Context, Policy
from dragoman.translators.registry import PROTOCOLS
from dragoman.translators.seen import Conversation, Seen, once
from tests.golden_files import request, requests

EVENTS = (Started(), PartStarted("text"), Delta("hi"), PartEnded(), Finished(StopReason.STOP))
POLICIES = (Policy(), Policy(hosted_tools="reject"), Policy(max_items=20), Policy(max_tools=1), Policy(web_search=True))
BODIES = [(protocol, path) for protocol in PROTOCOLS for path in requests(protocol.name) if request(path).get("tools")]


def parsed(protocol: Any, body: dict[str, Any], policy: Policy) -> Any:
    """Everything that a client or a server sees of it, or the error."""
    try:
        turn = protocol.parse(body, Context(id="0" * 24, clock=lambda: 0, policy=policy))
    except GatewayError as error:
        return error.kind, error.message, error.param, error.code
    counts = [(note, note.count) for note in turn.notes]
    return turn.request, counts, turn.streaming, turn.searched, turn.stream.feed(EVENTS), turn.stream.body()


@pytest.mark.parametrize("policy", POLICIES, ids=["default", "reject", "items", "tools", "search"])
@pytest.mark.parametrize(
    ("protocol", "path"), BODIES, ids=lambda each: getattr(each, "stem", getattr(each, "name", ""))
)
def test_a_request_with_tools_of_before_is_the_same_request(protocol: Any, path: Path, policy: Policy) -> None:
    body = request(path)
    wanted = parsed(protocol, copy.deepcopy(body), policy)
    seen = Seen(body["tools"])
    before = orjson.dumps(seen)
    for _ in range(3):
        assert parsed(protocol, {**body, "tools": seen}, policy) == wanted
    assert orjson.dumps(seen) == before
    other = Policy(strict_history=True)
    assert parsed(protocol, {**body, "tools": seen}, other) == parsed(protocol, copy.deepcopy(body), other)


@given(
    st.lists(st.sampled_from([f"key{n}" for n in range(40)]), max_size=60),
    st.lists(st.sampled_from([f"key{n}" for n in range(40)]), max_size=60),
    st.integers(0, 3),
)
def test_what_was_not_read_is_counted_as_if_it_had_been_read_now(
    earlier: list[str], keys: list[str], less: int
) -> None:
    array = [{key: 1} for key in keys]

    def read(notes: object, unread: Unread) -> int:
        for place, each in enumerate(array):
            unread.given(each, f"tools[{place}]").close()
        return len(array)

    def counted(value: list[Any]) -> object:
        unread = Unread(max(1, len(earlier) + len(keys) - less))
        for key in earlier:
            unread.given({key: 1}, "x").close()
        try:
            return once(value, "key", read, [], unread), [(note, note.count) for note in unread.notes()]
        except GatewayError as error:
            return error.message, error.param

    def whole(value: list[Any]) -> object:
        try:
            return counted(value)
        except GatewayError as error:  # too many even before the array
            return error.message

    seen = Seen(array)
    assert whole(seen) == whole(seen) == whole(array)


# ------------------------------------------------------------------------------------------------------ conversations

MEMBER = {"responses": "input", "messages": "messages", "chat_completions": "messages"}
TALKS = [
    (protocol, path)
    for protocol in PROTOCOLS
    for path in requests(protocol.name)
    if isinstance(request(path).get(MEMBER[protocol.name]), list)
]


def fresh(protocol: Any, body: dict[str, Any], count: int) -> dict[str, Any]:
    """The body as one whose first elements nobody else shares."""
    elements = copy.deepcopy(body[MEMBER[protocol.name]][:count])
    tools = {"tools": Seen(copy.deepcopy(body["tools"]))} if body.get("tools") else {}
    return {**copy.deepcopy(body), MEMBER[protocol.name]: Conversation(elements, [{} for _ in elements], {}), **tools}


@pytest.mark.parametrize("policy", POLICIES, ids=["default", "reject", "items", "tools", "search"])
@pytest.mark.parametrize(("protocol", "path"), TALKS, ids=lambda each: getattr(each, "stem", getattr(each, "name", "")))
def test_a_conversation_that_goes_on_is_read_as_if_it_were_new(protocol: Any, path: Path, policy: Policy) -> None:
    """Turn by turn, each with one element more, and once more from its middle."""
    body, member = request(path), MEMBER[protocol.name]
    whole = body[member]
    if len(whole) > 40:
        whole = whole[:40]
    kept = fresh(protocol, body, len(whole))
    turns = [*range(1, len(whole) + 1), len(whole), max(1, len(whole) // 2)]
    for count in turns:
        talk = Conversation(kept[member][:count], kept[member].made[:count], kept[member].kept)
        wanted = parsed(protocol, {**copy.deepcopy(body), member: copy.deepcopy(whole[:count])}, policy)
        before = orjson.dumps(talk)
        assert (
            parsed(protocol, {**body, member: talk, **({"tools": kept["tools"]} if "tools" in kept else {})}, policy)
            == wanted
        )
        assert orjson.dumps(talk) == before


def test_what_was_read_before_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from dragoman.translators.responses.items import Items

    read: list[int] = []
    inner = Items.element

    def element(self: Items, value: Any, index: int) -> None:
        read.append(index)
        inner(self, value, index)

    monkeypatch.setattr(Items, "element", element)
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "seen"},
        {"type": "reasoning", "summary": [], "encrypted_content": "sealed elsewhere"},
        {"type": "message", "role": "assistant", "content": "well", "annotation": 1},
        {"type": "function_call", "call_id": "d", "name": "unknown", "arguments": "{}"},
        {"type": "message", "role": "user", "content": "and now?"},
    ]
    tools = Seen([{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}])
    talk = Conversation(items, [{} for _ in items], {})
    for _ in range(2):
        parsed(PROTOCOLS[0], {"model": "m", "input": talk, "tools": tools}, Policy())
    assert read == [*range(7), 3, 4, 5]  # what is sealed, what has keys that nobody reads, what names a tool


@pytest.mark.parametrize("content", [{"content": "b"}, {"content": [{"type": "text", "text": "b"}]}, {}])
def test_what_a_later_message_clears_is_not_kept(content: dict[str, Any]) -> None:
    said = {"role": "system", "clear_at": "next_user_message", "output_config": {"effort": "low"}, **content}
    user = {"role": "user", "content": "a"}
    talk = [user, said, said, {"role": "assistant", "content": "c"}, user]
    made: list[dict[Any, Any]] = [{} for _ in talk]
    for count in (3, 3, 4, 5):
        plain = {"model": "m", "max_tokens": 1, "messages": copy.deepcopy(talk[:count])}
        known = {**plain, "messages": Conversation(talk[:count], made[:count], {})}
        assert parsed(PROTOCOLS[1], known, Policy()) == parsed(PROTOCOLS[1], plain, Policy())


@pytest.mark.parametrize("changed", [Policy(max_items=100), Policy(hosted_tools="reject")])
def test_what_was_read_with_another_policy_or_other_tools_is_read_again(changed: Policy) -> None:
    call = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f.g", "arguments": "{}"}}]}
    talk = Conversation(
        [{"role": "user", "content": "hi"}, call, {"role": "tool", "tool_call_id": "c", "content": "a"}],
        [{}, {}, {}],
        {},
    )
    one, other = (Seen([{"type": "function", "function": {"name": name}}]) for name in ("f.g", "f_g"))
    for tools, policy in ((one, Policy()), (other, Policy()), (one, changed), (None, Policy()), ([], changed)):
        body: dict[str, Any] = {"model": "m", "messages": talk, **({} if tools is None else {"tools": tools})}
        plain = {**copy.deepcopy(body), "messages": [*map(copy.deepcopy, talk)]}
        assert parsed(PROTOCOLS[2], body, policy) == parsed(PROTOCOLS[2], plain, policy)
