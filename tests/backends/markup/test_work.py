"""Hostile text costs each family work that is linear in it, in small pieces and in one."""

from __future__ import annotations

from collections import deque
from functools import partial

import pytest

from dragoman.backends.markup import FAMILIES, open_markup
from dragoman.backends.markup.calls import MEND_LIMIT
from dragoman.backends.markup.scanner import RESCAN_LIMIT, SLICE
from dragoman.backends.markup.text import HEADER_LIMIT
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Request, Tool
from dragoman.translators.parts import Parts
from tests.counting_work import assert_linear

TOOL = Tool("run", "", {"type": "object", "properties": {"a": {"type": "string"}, "o": {"type": "object"}}})
REQUEST = Request(id="s", model="m", messages=(), tools=(TOOL,))
UNREAD = RESCAN_LIMIT + SLICE + HEADER_LIMIT + 64

BEGINNINGS = (
    "",
    '{"name": "run", "arguments": {"a": "',
    '{"arguments": {"a": "',
    '[{"name": "run", "arguments": {"a": [',
    "run\n",
    "run(a=[",
    "<function=run><parameter=a>",
)
REPEATED = ("x", " ", "\n", '"', "[", "[]", "<", "</", "\\", "{", "`")


def openers(family: str) -> list[str]:
    found = FAMILIES[family]
    bare = [""] if found.bare is not None else []
    return [*found.openers, *found.thinking, *(found.headers.openers if found.headers is not None else ()), *bare]


def hostile(family: str) -> list[tuple[str, str]]:
    """A beginning, and what follows it again and again."""
    tags = openers(family)
    endless = [(opener + beginning, more) for opener in tags for beginning in BEGINNINGS for more in REPEATED]
    thoughts = [*FAMILIES[family].thinking, ""]
    again = [(thought, opener + beginning) for thought in thoughts for opener in tags for beginning in BEGINNINGS]
    return [*endless, *((begin, more) for begin, more in again if more)]


def read(family: str, text: str, size: int) -> None:
    parts = Parts.of(REQUEST, 1 << 40)
    markup = open_markup(family, parts, request=REQUEST)
    try:
        for at in range(0, len(text), size):
            markup.feed(text[at : at + size])
            parts.take()
            assert len(markup._text.all) <= UNREAD
        markup.finish()
    except GatewayError:  # more calls than an answer may have
        assert parts._calls == 0


def read_of_length(family: str, begin: str, more: str, size: int, length: int) -> None:
    read(family, begin + more * (length // len(more)), size)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_looked_at_again_is_bounded(family: str) -> None:
    for begin, more in hostile(family)[::5]:
        read(family, begin + more * (3000 // len(more)), 3)


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 1 << 30], ids=["pieces", "whole"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_work_is_linear(family: str, size: int) -> None:
    for begin, more in hostile(family)[:: 23 if size < 100 else 7]:
        assert_linear(partial(read_of_length, family, begin, more, size), 8000)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_endless_value_is_bounded_though_nothing_of_it_has_left(family: str) -> None:
    for opener in openers(family):
        for beginning in BEGINNINGS[::2]:
            parts = Parts.of(REQUEST, 40_000)
            markup = open_markup(family, parts, request=REQUEST)
            markup.feed(opener + beginning)
            with pytest.raises(GatewayError):
                deque(map(markup.feed, ["[1"] * 2000), maxlen=0)


def test_the_end_of_very_long_arguments_is_not_mended() -> None:
    parts = Parts.of(REQUEST)
    markup = open_markup("hermes", parts, request=REQUEST)
    markup.feed('<tool_call>\n{"name": "run", "arguments": {"a": "')
    markup.feed("x" * MEND_LIMIT)
    markup.finish()
    assert not parts._open.arguments.endswith('"}')  # type: ignore[union-attr]
