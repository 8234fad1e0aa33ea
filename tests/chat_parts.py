"""Parts whose calls come as the deltas of a chat server, as the chat decoder puts the two together."""

from __future__ import annotations

from collections.abc import Collection

from dragoman.backends.chat.call_deltas import CallDeltas
from dragoman.translators.ir import StopReason, Usage
from dragoman.translators.parts import Parts


class ChatParts(Parts):
    def __init__(self, seed: str, *, taken: Collection[str] = (), names: Collection[str] = ()) -> None:
        super().__init__(seed, taken=taken, names=names)
        self.deltas = CallDeltas(self)

    def call(
        self, index: int | None, id: str = "", name: str = "", arguments: str = "", *, whole: bool = False
    ) -> None:
        self.deltas.feed(index, id, name, arguments, whole=whole)

    def finish(
        self, reason: StopReason, usage: Usage | None, stop_sequence: str | None = None, *, in_call: bool = False
    ) -> None:
        self.deltas.finish()
        super().finish(reason, usage, stop_sequence, in_call=in_call)

    def abort(self) -> None:
        self.deltas.abort()
        super().abort()
