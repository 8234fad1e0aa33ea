"""What a probe found, and the settings that help.

`ok` needs nothing; `weak` works, but a client will miss something; `FAIL` is what agents break on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "weak", "FAIL"]
Key = tuple[str | int, ...]  # the way to a value of the configuration: ("backends", 0, "settings", "markup")
Changes = Mapping[Key, Any]

RANKS: Mapping[Verdict, int] = {"ok": 0, "weak": 1, "FAIL": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice` says what would help where no setting of the gateway does. `changes` are settings that were tried: with
    them the same probe had the result `tried`, and every later probe ran with them."""

    verdict: Verdict
    probe: str
    result: str
    advice: str = ""
    changes: Changes = field(default_factory=dict)
    tried: str = ""

    @property
    def mended(self) -> bool:
        return bool(self.changes)
