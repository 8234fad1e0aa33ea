"""A part that is open or waits to be opened, as `translators.parts` keeps it."""

from __future__ import annotations

from enum import Enum
from io import StringIO
from typing import Any

from dragoman.translators.ir import PartKind
from dragoman.translators.json_text import Balance


class Stage(Enum):
    WAITING = 0
    OPEN = 1
    ENDED = 2


class PendingPart:
    """`pieces` is what has not been sent yet."""

    __slots__ = ("kind", "logprobs", "pieces", "stage")

    def __init__(self, kind: PartKind) -> None:
        self.kind = kind
        self.pieces = StringIO()
        self.logprobs: list[dict[str, Any]] | None = None
        self.stage = Stage.WAITING

    @property
    def ready(self) -> bool:
        """Whether it may be opened."""
        return True

    @property
    def whole(self) -> bool:
        """Whether it may be ended because something else has begun."""
        return True


class CallPart(PendingPart):
    """A call, as the caller that began it may read it: `id` and `name` as they were given, which are not always those
    that the client gets; `balance` and `size` of the arguments so far, and `closing`, the last bracket while it is
    held."""

    __slots__ = ("_sent", "balance", "closing", "id", "name", "size")

    def __init__(self, id: str, name: str) -> None:
        super().__init__("call")
        self.id = id
        self.name = name
        self.balance = Balance()
        self.size = 0
        self.closing = ""
        self._sent = StringIO()

    @property
    def ready(self) -> bool:
        return bool(self.name) and self.balance.begun

    @property
    def whole(self) -> bool:
        return self.balance.complete

    @property
    def arguments(self) -> str:
        return self._sent.getvalue()

    def accept(self, piece: str) -> tuple[str, str]:
        """What of `piece` belongs to the arguments, and what comes too late for them."""
        length = self.balance.feed(piece) if self.stage is not Stage.ENDED else 0
        taken = piece[:length]
        if taken:
            self._sent.write(taken)
            self.size += length
        return taken, piece[length:]
