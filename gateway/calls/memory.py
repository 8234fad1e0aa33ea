"""What the gateway remembers of conversations, for protocols whose clients keep them here.

`recall` comes before a body is parsed: it puts the conversation that the body continues before its own items. `keep`
comes between the last delta and the end of the answer, which says whether the answer is stored: no delta waits for the
store, and an answer whose store is down or too slow says that it is not stored, and is noted. A connection's own last
answer (`gateway.calls.socket`) comes before the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from dragoman.gateway.calls.answer import Answer
from dragoman.gateway.calls.body import BodyReader
from dragoman.gateway.calls.call import Call
from dragoman.gateway.calls.exchange import Remembered
from dragoman.gateway.store.kept import Kept, StoreDown
from dragoman.gateway.store.lazy import LazyStore
from dragoman.gateway.telemetry.logs import log
from dragoman.translators.ir import Note
from dragoman.translators.protocol import Json, State

NOT_STORED = Note("answer", "not_stored")
NAMED_AGAIN = Note("repair", "duplicate_reference")


@dataclass(slots=True)
class Recollection:
    """`body` is what the call asks for, with all that it continues. `own` are its own items, `earlier` those before
    them, of `size` bytes where the connection knows. `stores`: the answer is to be kept."""

    body: Json
    state: State
    own: list[Json]
    earlier: list[Json]
    size: int | None
    previous: str | None
    stores: bool

    def remembered(self, answer: Json, stored: bool) -> Remembered:
        """The whole conversation, with the answer."""
        new = [*self.own, *self.state.items(answer)]
        size = len(orjson.dumps(self.earlier)) if self.size is None else self.size
        return Remembered(answer["id"], [*self.earlier, *new], size + len(orjson.dumps(new)), stored)


class Memory:
    """`store`: None where answers are not kept. `bodies` has the memory for what is found there."""

    def __init__(self, store: LazyStore | None, bodies: BodyReader) -> None:
        self._store = store
        self._bodies = bodies

    async def recall(
        self, call: Call, state: State, body: Json, last: Remembered | None = None, remembers: bool = False
    ) -> Recollection:
        """`last` is what the connection remembers, and `remembers` whether it will remember this call. Raises for what
        cannot be found, and `StoreDown`."""
        if named := state.references(body):
            if len(unique := dict.fromkeys(named)) < len(named):
                call.notes.append(NAMED_AGAIN)
                named = [*unique]
            body = state.resolved(body, await self._items(call, state, named, last))
        previous, earlier = state.previous(body), list[Json]()
        stored, size = True, 0 if previous is None else None
        own = body
        if previous is not None:
            if last is not None and last.id == previous:
                earlier, size, stored = last.items, last.size, last.stored
                await self._bodies.room(call.share).wait(last.size)
            else:
                earlier = await self._conversation(call, state, previous)
            body = state.continued(body, earlier)
        stores = self._stores(call, state, body, stored)
        items = state.own_items(own, call.id) if stores or remembers else []
        return Recollection(body, state, items, earlier, size, previous, stores)

    def _stores(self, call: Call, state: State, body: Json, continues_stored: bool) -> bool:
        if self._store is None or call.counts or not state.stores(body):
            return False
        if not self._store.down and continues_stored:
            self._store.expect()  # while the model answers
            return True
        call.notes.append(NOT_STORED)
        return False

    async def _items(self, call: Call, state: State, named: Sequence[str], last: Remembered | None) -> dict[str, Json]:
        """The items that a body names. Where none are kept, the protocol says so when it parses the body."""
        found: dict[str, Json] = {}
        if last is not None:
            wanted = set(named)
            found = {item["id"]: item for item in last.items if item.get("id") in wanted}
            if found:
                await self._bodies.room(call.share).wait(last.size)  # at most
        if self._store is None:
            return found
        if missing := [id for id in named if id not in found]:
            found |= await self._store.items(call.client.owner, missing, self._bodies.room(call.share))
        for id in named:
            if id not in found:
                raise state.unknown_item(id)
        return found

    async def _conversation(self, call: Call, state: State, id: str) -> list[Json]:
        found = None
        if self._store is not None:
            found = await self._store.conversation(call.client.owner, id, self._bodies.room(call.share))
        if found is None:
            raise state.not_found(id)
        return found

    async def keep(self, call: Call, recalled: Recollection, answer: Answer) -> bool:
        """Whether the answer is stored. Its end waits for this, bounded."""
        if self._store is None or answer.held is None:
            return False
        stored = False
        try:
            stored = await self._put(self._store, call, recalled, answer.body())
        finally:  # also when the gateway ends the call: no answer is left without its end
            if stored:
                answer.release()
            else:
                call.notes.append(NOT_STORED)
                answer.release(recalled.state.unstored(answer.stream))
        return stored

    async def keep_failed(self, call: Call, recalled: Recollection, whole: Json) -> None:
        """An answer that failed once its client knew its id: some continue from there, and their question with it."""
        if self._store is not None and not await self._put(self._store, call, recalled, whole):
            call.notes.append(NOT_STORED)

    async def _put(self, store: LazyStore, call: Call, recalled: Recollection, whole: Json) -> bool:
        kept = Kept(
            whole["id"],
            call.client.owner,
            recalled.previous,
            int(whole["created_at"]),
            {name: value for name, value in whole.items() if name != "output"},
            recalled.own,
            recalled.state.items(whole),
        )
        try:
            await store.put(kept)
            return True
        except StoreDown:
            pass
        except Exception:
            log.exception("an answer could not be stored")
        return False
