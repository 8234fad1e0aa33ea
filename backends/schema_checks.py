"""Whether a client's schema can be used, and whether an answer fits it: checked in child processes, within a time.

A schema of some kilobytes can take seconds to check, and an answer against it even longer, so nothing of it runs in the
loop. What cannot be decided in time passes: the check may be too lenient, never too strict. All backends of a process
share the children, which are started when a schema is first checked; verdicts on schemas are remembered by content,
also those that were not reached, so that a slow schema costs its time once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from dragoman.backends.child_process import Children, NoReply
from dragoman.backends.enforce import Undecided
from dragoman.translators.constraints.forced import Plan, checked_schema
from dragoman.translators.constraints.schema_check import MAX_SCHEMA
from dragoman.translators.errors import GatewayError, Kind

log = logging.getLogger(__name__)

# For one check, the wait for a child included. Ordinary schemas take milliseconds; one of 200 kB takes half a second.
SECONDS = 2.0
REMEMBERED = 1024  # verdicts on schemas
_WORKER = "dragoman.backends.schema_worker:answer"


@dataclass(slots=True)
class _Shared:
    children: Children = field(default_factory=lambda: Children(_WORKER))
    users: int = 0
    verdicts: OrderedDict[bytes, str | None] = field(default_factory=OrderedDict)


_SHARED: dict[asyncio.AbstractEventLoop, _Shared] = {}  # while somebody uses it


class SchemaChecks:
    """One backend's access to the checks. `close` ends the children once nobody uses them."""

    def __init__(self) -> None:
        self._shared: _Shared | None = None

    async def check(self, plan: Plan) -> None:
        """Raises INVALID where the plan has to check answers against a schema that cannot be used."""
        if (schema := checked_schema(plan)) is None:
            return
        if (fault := await self._unusable(schema)) is not None:
            raise GatewayError(Kind.INVALID, f"The JSON schema cannot be used: {fault}", code="invalid_json_schema")

    async def faults(self, text: str, schema: Mapping[str, Any]) -> str | None:
        """What does not fit in JSON text, None where everything does; raises `Undecided`."""
        if (raw := _bytes(schema)) is None or len(raw) > MAX_SCHEMA:
            raise Undecided
        try:
            return await self._ask(b'{"schema":' + raw + b',"text":' + json.dumps(text).encode() + b"}")
        except NoReply as error:
            log.warning("an answer could not be checked against its schema: %s", error)
            raise Undecided from None

    async def close(self) -> None:
        if (shared := self._shared) is None:
            return
        self._shared = None
        shared.users -= 1
        if not shared.users:
            _SHARED.pop(asyncio.get_running_loop(), None)
            await shared.children.close()

    async def _unusable(self, schema: Mapping[str, Any]) -> str | None:
        if (raw := _bytes(schema)) is None:
            return "it is nested too deeply"
        if len(raw) > MAX_SCHEMA:
            return f"it is larger than {MAX_SCHEMA} characters"
        verdicts, digest = self._used().verdicts, hashlib.blake2b(raw, digest_size=16).digest()
        if digest in verdicts:
            verdicts.move_to_end(digest)
            return verdicts[digest]
        fault = None
        try:
            fault = await self._ask(b'{"schema":' + raw + b"}")
        except NoReply as error:
            log.warning("a schema could not be checked: %s", error)
            if not error.late:
                return None
        verdicts[digest] = fault
        while len(verdicts) > REMEMBERED:
            verdicts.popitem(last=False)
        return fault

    async def _ask(self, question: bytes) -> str | None:
        reply = json.loads(await self._used().children.ask(question, SECONDS))
        fault: str | None = reply["fault"]
        return fault

    def _used(self) -> _Shared:
        if self._shared is None:
            self._shared = _SHARED.setdefault(asyncio.get_running_loop(), _Shared())
            self._shared.users += 1
        return self._shared


def _bytes(schema: Mapping[str, Any]) -> bytes | None:
    try:
        return orjson.dumps(schema, default=dict)
    except TypeError:  # nested deeper than the encoder goes
        return None
