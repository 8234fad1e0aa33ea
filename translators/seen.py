"""Arrays of a request that the same client has sent before, with what was made of them then.

The gateway finds them by their bytes (`gateway.calls.request_memo`, `gateway.calls.conversation_memo`) and puts them
into the body in place of equal ones. Whoever makes something of such an array that follows from the array alone makes
it `once`. Of a conversation only the beginning is the same: what was made of an element follows from it and from those
before it, and is kept for each element (`read_each`). Such values, and what was made of them, are shared between
requests: nobody changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar, cast

from dragoman.translators.errors import GatewayError
from dragoman.translators.fields import Unread
from dragoman.translators.ir import Message, Note, Reasoning, Refusal, Text, ToolCall, ToolResult
from dragoman.translators.protocol import Json

T = TypeVar("T")


class Seen(list[Any]):
    """`made` holds what was made of it, by what it was made for."""

    __slots__ = ("made",)

    def __init__(self, values: list[Any]) -> None:
        super().__init__(values)
        self.made: dict[Hashable, Made[Any]] = {}


class Conversation(list[Any]):
    """`made` holds what was made of each element, by what it was made for, and `kept` what else is kept for the next
    turn: whoever uses that must look whether it is of the same beginning."""

    __slots__ = ("kept", "made")

    def __init__(self, elements: list[Any], made: list[dict[Hashable, Read]], kept: dict[Hashable, Any]) -> None:
        super().__init__(elements)
        self.made = made
        self.kept = kept


@dataclass(frozen=True, slots=True)
class Read:
    """What an element of a conversation says, and of how many objects it is made."""

    messages: tuple[Message, ...]
    objects: int


@dataclass(frozen=True, slots=True)
class Made(Generic[T]):
    """`notes` and `unread` are what was noted on the way."""

    value: T
    notes: tuple[Note, ...]
    unread: Unread


def array_of(body: Json, name: str, checked: list[Any] | None) -> list[Any] | None:
    """A member of a body; a model that has `checked` it may hold a copy."""
    array = body.get(name)
    return array if type(array) is Seen or type(array) is Conversation else checked


def once(
    array: list[Any], key: Hashable, read: Callable[[list[Note], Unread], T], notes: list[Note], unread: Unread
) -> T:
    """What `read` makes of the array, which follows from the array and `key`. `notes` and `unread` grow as if it had
    been read now."""
    if type(array) is not Seen:
        return read(notes, unread)
    made = cast(Made[T] | None, array.made.get(key))
    if made is None:
        own, fresh = list[Note](), unread.fresh()
        try:
            made = Made(read(own, fresh), tuple(own), fresh)
        except GatewayError:
            return read(notes, unread)  # raises too, perhaps at an earlier place
        if fresh.complete:
            array.made[key] = made
    if not unread.takes(made.unread):
        return read(notes, unread)  # raises where there are too many objects
    notes.extend(made.notes)
    return made.value


# ------------------------------------------------------------------------------------------------------ conversations


def kept_of(elements: object) -> dict[Hashable, Any] | None:
    return elements.kept if type(elements) is Conversation else None


class ConversationReader(Protocol):
    """Reads the elements of a conversation one by one."""

    messages: list[Message]
    unread: Unread

    def element(self, value: Any, index: int) -> None:
        """Reads one, in its order: appends to `messages`, and changes whatever else."""
        ...

    def state(self) -> object:
        """All else that reading changes, but for what only elements that are not `plain` do."""
        ...

    def plain(self, value: Any) -> bool:
        """Whether an element that was read well is of a kind that says the same after the same others."""
        ...


def read_each(elements: list[Any], reader: ConversationReader, key: Hashable) -> None:
    """Has `reader` read the elements, except for those that it has read before, after the same ones and with the same
    `key`, where they changed nothing but the messages. `key` is what reading depends on beside the elements, None where
    that is not known."""
    if type(elements) is not Conversation or key is None:
        for index, value in enumerate(elements):
            reader.element(value, index)
        return
    messages, unread = reader.messages, reader.unread
    for index, made in enumerate(elements.made):
        if (known := made.get(key)) is not None and unread.count_again(known.objects):
            messages += known.messages
            continue
        begun, left, before = len(messages), unread.left, reader.state()
        reader.element(elements[index], index)
        said = tuple(messages[begun:])
        if all(map(_is_text, said)) and reader.plain(elements[index]) and reader.state() == before:
            made.clear()  # with other tools or another policy it is seldom sent again
            made[key] = Read(said, left - unread.left)


_TEXTS = frozenset({Text, Reasoning, Refusal, ToolCall})


def _is_text(message: Message) -> bool:
    return all(
        type(part) in _TEXTS or (type(part) is ToolResult and all(type(item) is Text for item in part.content))
        for part in message.parts
    )


def reading(tools: list[Any] | None, key: Hashable) -> Hashable:
    """Stands for `key` and the tools of a request, for `read_each`; None where they may be others next time."""
    if not tools:
        return _short(key)
    if type(tools) is not Seen:
        return None
    return once(tools, ("reading", key), lambda notes, unread: object(), [], Unread())


@lru_cache(64)
def _short(key: Hashable) -> object:
    """Stands for a key that takes long to compare."""
    return object()
