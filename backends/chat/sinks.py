"""Where the text of a chat delta goes: shown, thought, the arguments of a call, or read for calls."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from dragoman.backends.chat.call_deltas import CallDeltas
from dragoman.backends.markup import Markup
from dragoman.backends.markup.unread import BEGINS, UnreadCalls, may_begin
from dragoman.translators.ir import Deltas
from dragoman.translators.parts import Parts


class TextSink(Protocol):
    """Where text goes. `texts` does as `text` for each of them."""

    def text(self, text: str, logprobs: list[dict[str, Any]] | None = None, /) -> None: ...

    def texts(self, several: Deltas, /) -> None: ...


class WatchedText:
    """Text in which the server has read no call so far, and should have read those that it shows."""

    __slots__ = ("_parts", "_unread")

    def __init__(self, unread: UnreadCalls, parts: Parts) -> None:
        self._unread = unread
        self._parts = parts

    def text(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> None:
        if BEGINS.search(text) or self._unread.reading:
            self._unread.feed(text)
        self._parts.text(text, logprobs)

    def texts(self, several: Deltas) -> None:
        if self._unread.reading or may_begin(several.text):
            self._unread.feed(several.text)
        self._parts.texts(several)


class ReasoningSink:
    """What the model thinks."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def text(self, text: str, logprobs: object = None) -> None:
        self._parts.reasoning(text)

    def texts(self, several: Deltas) -> None:
        self._parts.texts(several, "reasoning")


class ArgumentsSink:
    """The arguments of a call, whose deltas have this header."""

    __slots__ = ("text", "texts")

    def __init__(self, calls: CallDeltas, index: int | None, id: str, name: str) -> None:
        self.text = partial(calls.feed, index, id, name)
        self.texts = partial(calls.feed_all, index, id, name)


class MarkedText:
    """Text that is read for calls and reasoning."""

    __slots__ = ("_markup",)

    def __init__(self, markup: Markup) -> None:
        self._markup = markup

    def text(self, text: str, logprobs: object = None) -> None:
        self._markup.feed(text)

    def texts(self, several: Deltas) -> None:
        self._markup.feed_all(several)
