"""The context window: what is counted, what is clamped, what is refused before the server sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.base import Prepared
from dragoman.gateway.calls.context_window import SAFE, estimate, fit, overflow, shortened, size_bound, weight
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Image, Message, Note, Request, Text, Tool, ToolCall, ToolResult
from tests.gateway_fakes import FakeBackend

WINDOW = 4096


def asking(text: str, max_tokens: int | None = None) -> Prepared:
    return Prepared(Request("0" * 24, "m", (Message("user", (Text(text),)),), max_tokens=max_tokens))


class Counting(FakeBackend):
    def __init__(self, tokens: int | None) -> None:
        super().__init__()
        self.tokens = tokens
        self.counts = 0

    async def count(self, prepared: Prepared) -> int | None:
        self.counts += 1
        return self.tokens


async def test_without_a_window_nothing_changes() -> None:
    prepared = asking("x" * 100_000, 32_000)
    assert await fit(Counting(1), prepared, None) == ()
    assert prepared.request.max_tokens == 32_000


async def test_a_small_prompt_is_not_counted_and_its_limit_is_cut_to_what_is_left() -> None:
    backend = Counting(1)
    prepared = asking("hello", 32_000)
    assert await fit(backend, prepared, WINDOW) == (Note("repair", "max_tokens"),)
    assert backend.counts == 0
    assert prepared.request.max_tokens == WINDOW - size_bound(prepared.request)


async def test_a_limit_that_fits_and_no_limit_at_all_stay() -> None:
    for limit in (None, 100):
        prepared = asking("hello", limit)
        assert await fit(Counting(1), prepared, WINDOW) == ()
        assert prepared.request.max_tokens == limit


async def test_a_prompt_that_may_be_too_long_is_counted_and_passes_when_it_is_not() -> None:
    backend = Counting(3000)
    prepared = asking("x" * 8000, 32_000)
    await fit(backend, prepared, WINDOW)
    assert backend.counts == 1
    assert prepared.request.max_tokens == WINDOW - 3000
    assert prepared.tokens == 3000


async def test_a_size_that_is_known_is_not_counted_again_and_is_exact() -> None:
    backend = Counting(1)
    prepared = asking("hello", 32_000)
    prepared.tokens = 7
    await fit(backend, prepared, WINDOW)
    assert backend.counts == 0
    assert prepared.request.max_tokens == WINDOW - 7


async def test_an_overflow_is_refused_with_both_numbers() -> None:
    with pytest.raises(GatewayError) as caught:
        await fit(Counting(5000), asking("x" * 20_000), WINDOW)
    error = caught.value
    assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, 5000, WINDOW)
    assert "4096" in error.message
    assert "5000" in error.message


async def test_where_nobody_can_count_the_server_decides() -> None:
    prepared = asking("x" * 20_000, 32_000)
    assert await fit(Counting(None), prepared, WINDOW) == ()
    assert prepared.request.max_tokens == 32_000


async def test_a_prompt_that_leaves_no_room_for_an_answer_overflows() -> None:
    with pytest.raises(GatewayError):
        await fit(Counting(WINDOW - 10), asking("x" * 8000), WINDOW)


async def test_a_short_answer_needs_little_room() -> None:
    prepared = asking("x" * 8000, 10)
    assert await fit(Counting(WINDOW - 10), prepared, WINDOW) == ()
    assert prepared.request.max_tokens == 10


def talk(turns: int, **more: Any) -> Request:
    """Instructions, and turns of a question, a call, its result and an answer."""
    messages = [Message("system", (Text("rules"),))]
    for number in range(turns):
        messages += [
            Message("user", (Text(f"question {number} " + "x" * 1000),)),
            Message("assistant", (ToolCall(f"c{number}", "f", "{}"),)),
            Message("tool", (ToolResult(f"c{number}", (Text("result"),)),)),
            Message("assistant", (Text("answer"),)),
        ]
    return Request("0" * 24, "m", tuple(messages), truncates=True, **more)


def test_a_conversation_that_may_be_cut_loses_its_oldest_turns_whole() -> None:
    cut = shortened(talk(10), overflow(8000, 4000))
    assert cut is not None
    assert [message.role for message in cut.messages[:4]] == ["system", "user", "assistant", "tool"]
    first = cut.messages[1].parts[0]
    assert isinstance(first, Text)
    assert first.text.startswith("question 6 ")
    assert cut.messages[1:] == talk(10).messages[-16:]


@pytest.mark.parametrize("request_", [replace(talk(10), truncates=False), talk(1)])
def test_one_that_may_not_be_cut_or_is_one_turn_stays(request_: Request) -> None:
    assert shortened(request_, overflow(8000, 4000)) is None


def test_the_last_turn_is_never_cut() -> None:
    cut = shortened(talk(3), overflow(1_000_000, 4000))
    assert cut is not None
    assert cut.messages == (talk(3).messages[0], *talk(3).messages[-4:])
    assert shortened(cut, overflow(1_000_000, 4000)) is None


@given(st.text(max_size=300), st.integers(0, 40))
def test_everything_in_a_request_counts(text: str, times: int) -> None:
    plain = asking(text).request
    larger = Request(
        plain.id,
        "m",
        (
            *plain.messages,
            Message("assistant", (ToolCall("c", "f", "{}" * times),)),
            Message("tool", (ToolResult("c", (Text(text), Image("data:image/png;base64,AAAA"))),)),
        ),
        tools=(Tool("f", text, {"type": "object"}),),
    )
    assert size_bound(larger) > size_bound(plain) >= len(text.encode("utf-8", "replace")) // 2
    assert 1 <= estimate(plain) <= size_bound(plain) + 1


def test_the_bound_is_believed_well_below_the_window_only() -> None:
    assert 0.5 < SAFE < 0.9


def test_a_long_conversation_is_weighed_once_to_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed = 0

    def counted(message: Message) -> int:
        nonlocal weighed
        weighed += 1
        return weight(message)

    monkeypatch.setattr("dragoman.gateway.calls.context_window.weight", counted)
    assert shortened(talk(200), overflow(1_000_000, 4000)) is not None
    assert weighed <= 3 * len(talk(200).messages)
