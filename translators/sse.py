"""Server-sent events: from bytes, cut anywhere, to payloads.

Rules (WHATWG HTML, section 9.2): lines end in LF, CRLF or CR; `data` lines of one event are joined with LF; one space
after the colon is not part of the value; comments and unknown fields are skipped; a byte order mark at the start is
skipped. Beyond the standard, a last event without its blank line counts, since some servers forget it when they shut
down, and payloads are stripped, since they are JSON and trtllm-serve appends a space. So does an object that stands
there without a field's name, as proxies (llama-swap, Lemonade) put an error of their server into a stream. Of the names
of events only `error` is read, which makes the payload an error: Dynamo's has its text in comments.
"""

from __future__ import annotations

import orjson

from dragoman.translators.errors import GatewayError, Kind

# Bytes, and lines. One event of a chat stream has a few hundred bytes, an answer in one piece some hundred thousand;
# either has one line, or as many as indented JSON has.
MAX_EVENT = 4 * 1024 * 1024
MAX_LINES = 100_000

CR = ord("\r")
_BOM = b"\xef\xbb\xbf"


class EventReader:
    """`feed` returns the payloads that these bytes completed, `finish` a last one that had no blank line after it.

    The work is linear in the bytes, however they are cut: what is held of an event is not searched again."""

    __slots__ = ("_begun", "_cr", "_held")

    def __init__(self) -> None:
        self._held = bytearray()  # of the event that is not whole yet, its line ends as LF
        self._begun = False
        self._cr = False  # the last byte was a CR: an LF that comes next belongs to the same line end

    def feed(self, data: bytes) -> list[bytes]:
        events = self.whole(data)
        return payloads(events) if events else []

    def whole(self, data: bytes) -> bytes:
        """The events that these bytes completed, each with its blank line, all line ends as LF."""
        if self._cr or not self._begun or CR in data:
            data = self._plain(data)
        held = self._held
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            if not (held.endswith(b"\n") and data.startswith(b"\n")):
                held += data
                if len(held) > MAX_EVENT:
                    raise _too_large()
                return b""
            end = 1  # the blank line lies across the cut
        events = data[:end]
        if held:
            events = b"".join((held, events))
            held.clear()
        if end < len(data):
            held += data[end:]
        return events

    def _plain(self, data: bytes) -> bytes:
        """With LF as the only end of a line, and without a byte order mark at the beginning of the stream."""
        if self._cr and data:
            self._cr = False
            data = data.removeprefix(b"\n")
        if not self._begun:
            data = bytes(self._held) + data
            self._held.clear()
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._held += data
                return b""
            self._begun = True
            data = data.removeprefix(_BOM)
        if b"\r" in data:
            self._cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def finish(self) -> list[bytes]:
        return self.feed(b"\n\n\n")  # a CR before it takes the first


def payloads(events: bytes) -> list[bytes]:
    """Those of whole events, the last of which ends where `events` does."""
    if events.startswith(b"data:"):
        if events.find(b"\n") == len(events) - 2:
            return [events[5:].strip()]  # one event of one line, as a token mostly comes
        found = events[5:-2].split(b"\n\ndata:")
        if b"\n" not in b"".join(found):  # each is one `data` line, as nearly all are
            return [payload.strip() for payload in found]
    return [payload for block in events[:-2].split(b"\n\n") if (payload := _payload(block)) is not None]


def _payload(block: bytes) -> bytes | None:
    """The joined `data` lines of one event, None where it says nothing."""
    if block.count(b"\n") > MAX_LINES:
        raise _too_large()
    data, comments, name = list[bytes](), list[bytes](), b""
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"":
            comments.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.strip()
    if name == b"error":
        return _error(b"\n".join(data or comments).strip())
    if data:
        return b"\n".join(data).strip()
    return block.strip() if block.lstrip().startswith(b"{") else None


def _error(said: bytes) -> bytes:
    """An object with `error` in it, whatever an event of that name says."""
    try:
        value = orjson.loads(said)
    except orjson.JSONDecodeError:
        value = said.decode("utf-8", "replace")
    if isinstance(value, dict) and (value.get("error") or value.get("object") == "error"):
        return said
    return orjson.dumps({"error": value or "unspecified"})


def _too_large() -> GatewayError:
    return GatewayError(Kind.BACKEND_FAILED, "The model server sent an event that is too large.", source="backend")
