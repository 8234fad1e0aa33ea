"""What is remembered of clients, bounded in bytes for all of them together, and in number for each: what was not used
for the longest time is forgotten first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Any, Generic, Protocol, TypeVar

MOST_OF_CLIENT = 64  # of one kind, since they are compared one by one


class Memo(Protocol):
    """`owner` is the client, `size` in bytes. Two are never equal."""

    @property
    def owner(self) -> str: ...

    @property
    def size(self) -> int: ...


M = TypeVar("M", bound=Memo)


class ClientMemory:
    """`most` is in bytes, for every `Shelf` of it together; with 0 nothing is kept."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = 0
        self._all: OrderedDict[Memo, Shelf[Any]] = OrderedDict()  # in the order in which they were last used

    def clear(self) -> None:
        for memo, shelf in [*self._all.items()]:
            shelf.drop(memo)

    def _add(self, memo: Memo, shelf: Shelf[Any]) -> None:
        self._all[memo] = shelf
        self.size += memo.size
        while self.size > self.most:
            oldest, its_shelf = next(iter(self._all.items()))
            its_shelf.drop(oldest)


class Shelf(Generic[M]):
    """What is remembered of one kind."""

    def __init__(self, memory: ClientMemory) -> None:
        self._memory = memory
        self._of_client: dict[str, OrderedDict[M, None]] = {}

    @property
    def most(self) -> int:
        return self._memory.most

    def of(self, owner: str) -> Collection[M]:
        """What is kept of that client, the newest first."""
        return [*reversed(self._of_client.get(owner, ()))]

    def add(self, memo: M) -> None:
        if memo.size > self.most:
            return
        kept = self._of_client.setdefault(memo.owner, OrderedDict())
        kept[memo] = None
        if len(kept) > MOST_OF_CLIENT:
            self.drop(next(iter(kept)))
        self._memory._add(memo, self)

    def used(self, memo: M) -> None:
        if memo in self._memory._all:
            self._memory._all.move_to_end(memo)
            self._of_client[memo.owner].move_to_end(memo)

    def drop(self, memo: M) -> None:
        if self._memory._all.pop(memo, None) is None:
            return
        kept = self._of_client[memo.owner]
        del kept[memo]
        if not kept:
            del self._of_client[memo.owner]
        self._memory.size -= memo.size
