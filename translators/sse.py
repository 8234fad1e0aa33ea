"""Server-sent events: from bytes, cut anywhere, to payloads.

Rules (WHATWG HTML, section 9.2): lines end in LF, CRLF or CR; `data` lines of one event are joined with LF; one space
after the colon is not part of the value; comments and unknown fields are skipped; a byte order mark at the start is
skipped. Beyond the standard, a last event without its blank line counts, since some servers forget it when they shut
down, and payloads are stripped, since they are JSON and trtllm-serve appends a space. Event names are not reported: no
server that is read here puts anything into them that its payload does not have.
"""

from __future__ import annotations

from dragoman.translators.errors import GatewayError, Kind

# Bytes, and lines. One event of a chat stream has a few hundred bytes, an answer in one piece some hundred thousand;
# either has one line, or as many as indented JSON has.
MAX_EVENT = 4 * 1024 * 1024
MAX_LINES = 100_000

_BOM = b"\xef\xbb\xbf"


class EventReader:
    """`feed` returns the payloads that these bytes completed, `finish` a last one that had no blank line after it.

    The work is linear in the bytes, however they are cut: what is held of an event is searched for its end once."""

    __slots__ = ("_begun", "_cr", "_held")

    def __init__(self) -> None:
        self._held = bytearray()  # of the event that is not whole yet, its line ends as LF
        self._begun = False
        self._cr = False  # the last byte was a CR: an LF that comes next belongs to the same line end

    def feed(self, data: bytes) -> list[bytes]:
        held = self._held
        whole = self._begun and not held and not self._cr and data.endswith(b"\n\n")
        if whole and data.startswith(b"data:") and data.find(b"\n") == len(data) - 2 and b"\r" not in data:
            return [data[5:].strip()]  # one event and nothing else, as a token mostly comes
        if self._cr and data:
            self._cr = False
            data = data.removeprefix(b"\n")
        if not self._begun:
            data = bytes(held) + data
            held.clear()
            if len(data) < len(_BOM) and _BOM.startswith(data):
                held += data
                return []
            self._begun = True
            data = data.removeprefix(_BOM)
        if b"\r" in data:
            self._cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        searched = max(len(held) - 1, 0)  # the end may lie across the cut
        held += data
        if held.find(b"\n\n", searched) < 0:
            if len(held) > MAX_EVENT:
                raise _too_large()
            return []
        blocks = bytes(held).split(b"\n\n")
        self._held = bytearray(blocks.pop())
        return [payload for block in blocks if (payload := _payload(block)) is not None]

    def finish(self) -> list[bytes]:
        return self.feed(b"\n\n\n")  # a CR before it takes the first


def _payload(block: bytes) -> bytes | None:
    """The joined `data` lines of one event, None where it has none."""
    if block.startswith(b"data:") and b"\n" not in block:
        return block[5:].strip()  # nearly every event looks like this
    if block.count(b"\n") > MAX_LINES:
        raise _too_large()
    lines = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines).strip() if lines else None


def _too_large() -> GatewayError:
    return GatewayError(Kind.BACKEND_FAILED, "The model server sent an event that is too large.", source="backend")
