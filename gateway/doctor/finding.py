"""What a probe found, as one line for the person at the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "weak", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`weak` works, but an agent will miss something. `advice` says what would help."""

    verdict: Verdict
    probe: str
    result: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:<5} {self.probe:<22} {self.result}"
        return f"{line}\n{'':<29}→ {self.advice}" if self.advice else line
