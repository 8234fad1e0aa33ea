"""Arrays of a request that the same client has sent before, with what was made of them then.

The gateway finds them by their bytes (`gateway.calls.request_memo`) and puts them into the body in place of equal ones.
Whoever makes something of such an array that follows from the array alone makes it `once`. Such arrays, and what was
made of them, are shared between requests: nobody changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from dragoman.translators.errors import GatewayError
from dragoman.translators.fields import Unread
from dragoman.translators.ir import Note
from dragoman.translators.protocol import Json

T = TypeVar("T")


class Seen(list[Any]):
    """`made` holds what was made of it, by what it was made for."""

    __slots__ = ("made",)

    def __init__(self, values: list[Any]) -> None:
        super().__init__(values)
        self.made: dict[Hashable, Made[Any]] = {}


@dataclass(frozen=True, slots=True)
class Made(Generic[T]):
    """`notes` and `unread` are what was noted on the way."""

    value: T
    notes: tuple[Note, ...]
    unread: Unread


def array_of(body: Json, name: str, checked: list[Any] | None) -> list[Any] | None:
    """A member of a body; a model that has `checked` it may hold a copy."""
    array = body.get(name)
    return array if type(array) is Seen else checked


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
