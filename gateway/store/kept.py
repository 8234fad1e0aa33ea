"""What is kept of a call, what seals it, and what can go wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from dragoman.translators.errors import GatewayError, Kind

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer with what was asked for it. `answer` is the whole answer without its items; `asked` are the request's
    own items, `answered` the answer's, each with an id. `previous` is the answer that it continues. Nobody but the
    `owner` finds it."""

    id: str
    owner: str
    previous: str | None
    created_at: int
    answer: Json
    asked: list[Json] = field(default_factory=list)
    answered: list[Json] = field(default_factory=list)


class Sealing(Protocol):
    """`gateway.keys.reasoning_seal`; `open` gives None for what no known key has sealed."""

    def seal(self, text: str) -> str: ...

    def open(self, sealed: str) -> str | None: ...


class Room(Protocol):
    """The memory that what is found may take, in bytes."""

    def takes(self, size: int) -> bool:
        """At once; False where it is to be waited for."""
        ...

    async def wait(self, size: int) -> None:
        """Raises a `GatewayError` when there is none in time."""
        ...


class StoreDown(GatewayError):
    """The store cannot be reached now. What needs it is refused at once; everything else goes on."""

    def __init__(self) -> None:
        message = "Stored conversations cannot be reached now; try again, or send the whole conversation."
        super().__init__(Kind.BUSY, message, code="store_unavailable", retry_after=5)


class TooMuch(GatewayError):
    """What a request continues or names in the store is more than a request may bring."""

    def __init__(self, most: float) -> None:
        message = f"What this request continues is larger than {most:.0f} bytes, as a whole request may not be."
        super().__init__(Kind.TOO_LARGE, message, code="request_too_large")
