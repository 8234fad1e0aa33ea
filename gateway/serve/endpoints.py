"""The endpoints of the client protocols: which one a path means, and whose words an error on it has."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import dropwhile

from dragoman.translators.protocol import Protocol


class Endpoints:
    """`protocols` holds them by the path of their endpoint, `forwarded` those whose bodies are passed through."""

    def __init__(self, protocols: Sequence[Protocol], forwarded: Collection[Protocol] = ()) -> None:
        self.protocols = {f"/v1/{each.path}": each for each in protocols}
        self.forwarded = {f"/v1/{each.path}": each for each in forwarded}
        self._first_segments = {"models", *(each.path.partition("/")[0] for each in (*protocols, *forwarded))}

    @property
    def posts(self) -> list[str]:
        """The paths that take POST: calls first, then counts, then what is passed through."""
        counts = [f"/v1/{each.count.path}" for each in self.protocols.values() if each.count is not None]
        return [*self.protocols, *counts, *self.forwarded]

    def canonical(self, path: str) -> str:
        """The path as it is routed, for every base URL that people paste: with `/v1`, without it (as Anthropic's
        clients want theirs), with the base's and the client's own, with extra slashes. Other paths stay as they are, so
        that nothing turns into `/healthz` or `/metrics`, which may be open without a key."""
        segments = list(dropwhile(lambda segment: segment == "v1", filter(None, path.split("/"))))
        return f"/v1/{'/'.join(segments)}" if segments and segments[0] in self._first_segments else path

    def owner(self, path: str) -> Protocol | None:
        """The protocol whose endpoint a canonical path is, or is below."""
        every = {**self.forwarded, **self.protocols}
        found = [base for base in every if path == base or path.startswith(f"{base}/")]
        return every[max(found, key=len)] if found else None
