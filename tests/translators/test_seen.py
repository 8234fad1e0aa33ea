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
from dragoman.translators.seen import Seen, once
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
