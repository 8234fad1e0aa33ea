"""Server-sent events as we promise to write them, which is much narrower than what a reader must accept.

UTF-8 without a byte order mark, LF only, no comments unless a protocol asks for them, every frame closed by exactly one
blank line, `event:` (when there is one) before a single `data:` line. Some clients keep lines only within one network
read and others know LF only, hence the narrowness.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.grammar.shapes import Violation, require

_FRAME = re.compile(r"(?:event: (?P<event>[a-z][a-z_.]*)\n)?data: (?P<data>[^\n]+)")


@dataclass(frozen=True, slots=True)
class Frame:
    event: str | None
    data: str


def split(body: bytes, *, comments: bool = False) -> list[Frame]:
    """The frames of a whole body. With `comments`, frames of comment lines alone are allowed and left out."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Violation("framing", f"byte {error.start}", "the body is not UTF-8") from error
    require("\r" not in text, "framing", f"character {text.find(chr(13))}", "carriage return in the body")
    require(text.endswith("\n\n"), "framing", "end", "the last frame is not closed by a blank line")
    frames = []
    for position, block in enumerate(text[:-2].split("\n\n")):
        if comments and all(line.startswith(":") for line in block.split("\n")):
            continue
        match = _FRAME.fullmatch(block)
        if match is None:
            raise Violation("framing", f"frame {position}", f"not `event:` and `data:` lines: {block[:80]!r}")
        frames.append(Frame(match["event"], match["data"]))
    return frames


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"a key stands twice in {keys}")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse_object(data: str, where: str) -> dict[str, Any]:
    """The JSON object of a frame; NaN, Infinity and doubled keys are refused."""
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except ValueError as error:
        raise Violation("json", where, str(error)) from error
    require(isinstance(value, dict), "json", where, "an object is needed")
    result: dict[str, Any] = value
    return result
