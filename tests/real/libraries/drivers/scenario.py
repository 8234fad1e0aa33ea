"""What every driver in Python shares: it reads scenarios and prints what the user of its library saw.

A line of the standard input is a scenario as JSON, with the fields of `Scenario`; a line of the standard output is what
came of it, with the fields of `Seen`. Runs inside the library's environment; pydantic is in all of them. A driver
judges nothing: what its library raises is part of what the user sees.
"""

import asyncio
import base64
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

SYSTEM = "Answer after asking."


class Reading(BaseModel):
    """A temperature."""

    model_config = ConfigDict(extra="forbid")
    city: str
    celsius: int


@dataclass
class Scenario:
    """`url` is the gateway's, without a path. `image` (PNG) and `pdf` are in base64, and go with the first question."""

    url: str
    key: str
    model: str
    protocol: str
    settings: dict[str, Any]
    streamed: bool
    questions: list[str]
    tools: bool = False
    schema: bool = False
    image: str = ""
    pdf: str = ""

    @property
    def base(self) -> str:
        """The base URL that the clients of this protocol want."""
        return self.url if self.protocol == "messages" else f"{self.url}/v1"

    @property
    def image_url(self) -> str:
        return f"data:image/png;base64,{self.image}"

    @property
    def image_bytes(self) -> bytes:
        return base64.b64decode(self.image)

    @property
    def pdf_url(self) -> str:
        return f"data:application/pdf;base64,{self.pdf}"

    @property
    def pdf_bytes(self) -> bytes:
        return base64.b64decode(self.pdf)


@dataclass
class Seen:
    """`pieces`: the texts of a stream as they came; `reading`: the object that the library made of the answer."""

    answers: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    reading: dict[str, Any] | None = None
    raised: str = ""
    unsupported: str = ""

    def weather(self, city: str) -> str:
        """The weather in a city."""  # what the model reads of the tool
        self.called.append(city)
        return f"sunny in {city}"


class Unsupported(Exception):
    """The library has no way to say this."""


def serve(converse: Callable[[Scenario, Seen], Any]) -> None:
    """`converse` may be a coroutine function."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print, too
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            seen = Seen()
            try:
                done = converse(Scenario(**json.loads(line)), seen)
                if isinstance(done, Awaitable):
                    runner.run(_finished(done))
            except Unsupported as error:
                seen.unsupported = str(error)
            except Exception as error:  # whatever the user sees is what is asked for
                seen.raised = f"{type(error).__name__}: {error}"
            print(json.dumps(asdict(seen)), file=output, flush=True)


async def _finished(done: Awaitable[Any]) -> None:
    await done
