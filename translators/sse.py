"""Server-sent events: from bytes, cut anywhere, to payloads.

Rules (WHATWG HTML, section 9.2): lines end in LF, CRLF or CR; `data` lines of one event are joined with LF; one space
after the colon is not part of the value; comments and unknown fields are skipped; a byte order mark at the start is
skipped. Beyond the standard, a last event without its blank line counts, since some servers forget it when they shut
down, and payloads are stripped, since they are JSON and trtllm-serve appends a space. Event names are not reported: no
server that is read here puts anything into them that its payload does not have.
"""

from __future__ import annotations

from dragoman.translators.errors import GatewayError, Kind

# Bytes. One event of a chat stream has a few hundred, an answer in one piece some hundred thousand.
MAX_EVENT = 32 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class EventReader:
    """`feed` returns the payloads that these bytes completed, `finish` a last one that had no blank line after it."""

    __slots__ = ("_begun", "_cr", "_held", "_size")

    def __init__(self) -> None:
        self._held: list[bytes] = []  # bytes of the event that is not whole yet
        self._size = 0
        self._begun = False
        self._cr = False  # the last byte was a CR: an LF that comes next belongs to the same line end

    def feed(self, data: bytes) -> list[bytes]:
        whole = self._begun and not self._held and not self._cr and data.endswith(b"\n\n")
        if whole and data.startswith(b"data:") and data.find(b"\n") == len(data) - 2 and b"\r" not in data:
            return [data[5:].strip()]  # one event and nothing else, as a token mostly comes
        if self._cr and data:
            self._cr = False
            data = data.removeprefix(b"\n")
        if self._held:
            self._held.append(data)
            self._size += len(data)
            if self._size > MAX_EVENT:
                raise GatewayError(
                    Kind.BACKEND_FAILED, "The model server sent an event that is too large.", source="backend"
                )
            if b"\n" not in data and b"\r" not in data:
                return []  # joined only when a line ends, so that one large event is not copied once per read
            data = b"".join(self._held)
            self._held.clear()
        if not self._begun:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._hold(data)
                return []
            self._begun = True
            data = data.removeprefix(_BOM)
        if b"\r" in data:
            self._cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        blocks = data.split(b"\n\n")
        if rest := blocks.pop():
            self._held.append(rest)
        self._size = len(rest)
        return [payload for block in blocks if (payload := _payload(block)) is not None]

    def finish(self) -> list[bytes]:
        return self.feed(b"\n\n\n")  # a CR before it takes the first

    def _hold(self, data: bytes) -> None:
        if data:
            self._held.append(data)
        self._size = len(data)


def _payload(block: bytes) -> bytes | None:
    """The joined `data` lines of one event, None where it has none."""
    if block.startswith(b"data:") and b"\n" not in block:
        return block[5:].strip()  # nearly every event looks like this
    lines = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines).strip() if lines else None
