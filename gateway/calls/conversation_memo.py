"""Conversations of requests, found again by their bytes: an agent sends the same history with every turn, and little
that is new.

`cut` takes the longest known beginning out of a body before that is parsed, and its elements take their place
afterwards, with all that was made of them before (`translators.seen`). As in `gateway.calls.request_memo`, a string
that no client knows stands in for them: where the rest parses and the array begins with that string, they stood there;
elsewhere the body is parsed whole. Elements are compared one by one, since clients change the last ones, where they
mark what is to be cached. Only what is written in one of the ways that `text_in` knows is found again.

What a client sends is found only for the same client, by its key.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dragoman.gateway.calls.client_memory import ClientMemory, Shelf
from dragoman.gateway.calls.prompt_prefix import Prefixes
from dragoman.gateway.calls.request_memo import LEAST, RequestMemo, text_in
from dragoman.translators.seen import Conversation, Read

MEMBERS = ("input", "messages")
_TRIES = 4  # places that look like the member's
_MOST_COMPARED = 40_000  # elements, in one body
# Bytes of memory: for each byte of text (the text, the strings, and what is made of them), and for what is small.
COPIES = 4
ELEMENT = 1024
VALUE = 96
_MARK = secrets.token_hex(16)
_QUOTED = b'"%b"' % _MARK.encode()
_ENDS = (b",", b"]")  # of an element


@dataclass(eq=False, slots=True)
class KnownConversation:
    """A conversation and the text of each of its elements, with the space before it."""

    owner: str
    member: str
    texts: list[bytes] = field(default_factory=list)
    elements: list[Any] = field(default_factory=list)
    made: list[dict[Hashable, Read]] = field(default_factory=list)
    values: list[int] = field(default_factory=list)  # how many each element holds at most
    kept: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Of the texts, in bytes."""
        return sum(map(len, self.texts))

    @property
    def size(self) -> int:
        return COPIES * self.length + ELEMENT * len(self.texts) + VALUE * sum(self.values)

    def shared(self, raw: bytes, at: int, most: int) -> tuple[int, int]:
        """How many of the first elements stand in `raw` from `at` on, and where they end."""
        count = 0
        for text in self.texts[:most]:
            end = at + len(text)
            if not raw.startswith(text, at) or raw[end : end + 1] not in _ENDS:
                break
            count, at = count + 1, end + 1
        return count, at - 1

    def beginning(self, count: int) -> KnownConversation:
        parts = (self.texts[:count], self.elements[:count], self.made[:count], self.values[:count])
        return KnownConversation(self.owner, self.member, *parts)

    def extend(self, raw: bytes, at: int, elements: list[Any]) -> None:
        """Takes in those whose texts stand in `raw` from `at` on, one after another."""
        for element in elements:
            space = raw.startswith(b" ", at)
            text = text_in(raw, (at + space,), element)
            text = text if text is None or not space else b" " + text
            if text is None or raw[at + len(text) : at + len(text) + 1] not in _ENDS:
                return
            self.texts.append(text)
            self.elements.append(element)
            self.made.append({})
            self.values.append(1 + text.count(b",") + text.count(b"[") + text.count(b"{"))
            at += len(text) + 1

    def conversation(self, array: list[Any]) -> Conversation:
        """`array` with what was made of its elements; what is made of others is not kept."""
        return Conversation(array, [*self.made, *({} for _ in array[len(self.made) :])], self.kept)


@dataclass(frozen=True, slots=True)
class ConversationCut:
    """A body's text with a string in place of the first `count` elements of a known conversation, which stand at
    `at`."""

    rest: bytes
    known: KnownConversation
    count: int
    at: int

    @property
    def values(self) -> int:
        """How many values the elements hold at most."""
        return sum(self.known.values[: self.count])

    def restored(self, value: Any) -> bool:
        """Puts the elements back into what the rest was parsed to; False where they did not stand there."""
        array = value.get(self.known.member) if isinstance(value, dict) else None
        if not isinstance(array, list) or not array or array[0] != _MARK:
            return False
        array[0:1] = self.known.elements[: self.count]
        return True


class ConversationMemo:
    """`counted` is called for each body with a conversation: whether some of it was found, and how many bytes."""

    def __init__(self, memory: ClientMemory, counted: Callable[[bool, int], object] = lambda found, size: None) -> None:
        self._known = Shelf[KnownConversation](memory)
        self._counted = counted

    def cut(self, owner: str, raw: bytes) -> ConversationCut | None:
        """The body without the longest beginning of a conversation that this client has sent before."""
        kept = self._known.of(owner)
        left = _MOST_COMPARED
        best: tuple[int, int, int, KnownConversation] | None = None
        for member in {known.member for known in kept}:
            those = [known for known in kept if known.member == member]
            longest = max(len(known.texts) for known in those)
            for at in _arrays_in(raw, member):
                for known in those:
                    if left <= 0:
                        break
                    count, end = known.shared(raw, at, left)
                    left -= count + 1
                    if count and (best is None or count > best[0]):
                        best = (count, at, end, known)
                if best is not None and best[0] >= longest:  # nothing further on could have more
                    break
        if best is None:
            return None
        count, at, end, known = best
        return ConversationCut(b"".join((raw[:at], _QUOTED, raw[end:])), known, count, at)

    def keep(self, owner: str, raw: bytes, value: dict[str, Any], cut: ConversationCut | None = None) -> None:
        """Keeps the conversation of a body that was found good. `cut`: its beginning was known, and is in `value`."""
        if cut is not None:
            self._go_on(raw, value, cut)
        elif LEAST <= len(raw) <= self._known.most // COPIES:
            for member in MEMBERS:
                if isinstance(array := value.get(member), list):
                    self._begin(KnownConversation(owner, member), raw, array, value)

    def _begin(self, known: KnownConversation, raw: bytes, array: list[Any], value: dict[str, Any]) -> None:
        for at in _arrays_in(raw, known.member):
            known.extend(raw, at, array)
            if known.texts:
                break
        if known.length >= LEAST:
            self._counted(False, known.length)
            value[known.member] = known.conversation(array)
            self._known.add(known)

    def _go_on(self, raw: bytes, value: dict[str, Any], cut: ConversationCut) -> None:
        known, array = cut.known.beginning(cut.count), value[cut.known.member]
        self._counted(True, known.length)
        known.extend(raw, cut.at + known.length + cut.count, array[cut.count :])
        nothing_new = len(known.texts) == cut.count
        if nothing_new or 2 * cut.count >= len(cut.known.texts):  # else another one has begun in the same way
            known.kept = cut.known.kept
        value[known.member] = known.conversation(array)
        if nothing_new:
            self._known.used(cut.known)
            return
        if known.kept is cut.known.kept:
            self._known.drop(cut.known)  # it goes on in this one
        self._known.add(known)


def _arrays_in(raw: bytes, member: str) -> Iterator[int]:
    """Where the member's elements may begin, the first place first. In a string the quotes would be escaped."""
    for opens in (b'"%b":[' % member.encode(), b'"%b": [' % member.encode()):
        at = 0
        for _ in range(_TRIES):
            found = raw.find(opens, at)
            if found < 0:
                break
            yield (at := found + len(opens))


class Memos:
    """What clients have sent before: the text in `most` bytes, and of the last prompts their hashes."""

    def __init__(self, most: int, counted: Callable[[bool, int], object] = lambda found, size: None) -> None:
        self.memory = ClientMemory(most)
        self.tools = RequestMemo(self.memory, counted)
        self.conversations = ConversationMemo(self.memory, counted)
        self.prompts = Prefixes()

    def clear(self) -> None:
        self.memory.clear()
        self.prompts.clear()
