"""Server-sent events: every rule whole, byte by byte, cut at each place, and with garbage around it."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.translators import sse
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.sse import EventReader

STREAMS: dict[str, tuple[bytes, list[bytes]]] = {
    "lf": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "cr": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "all line ends in one stream": (b"data: a\r\n\ndata: b\r\r\ndata: c\n\rdata: d\n\n", [b"a", b"b", b"c", b"d"]),
    "lines are joined": (b"data: {\ndata: }\n\n", [b"{\n}"]),
    "lines are joined across other fields": (b"data: {\nid: 7\ndata: }\n\n", [b"{\n}"]),
    "one space is no part of the value": (b"data:a\n\ndata: b\n\n", [b"a", b"b"]),
    "space after it, as trtllm-serve puts it": (b"data: a \n\n", [b"a"]),
    "comments": (b": ping\n\n:\n\ndata: a\n: within\n\n:\n", [b"a"]),
    "a comment within lines of data": (b"data: {\n:\ndata: }\n\n", [b"{\n}"]),
    "unknown fields": (b"event: x\nretry: 3\nfoo\ndatum: b\ndata: a\n\n", [b"a"]),
    "a field without a colon": (b"data\n\ndata\ndata\n\n", [b"", b""]),
    "empty data": (b"data:\n\ndata: \n\n", [b"", b""]),
    "an event without data": (b"event: ping\n\ndata: a\n\n", [b"a"]),
    "an error whose text stands in comments": (
        b'event: error\n: Exception: no "image"\n: at all\n\ndata: [DONE]\n\n',
        [b'{"error":"Exception: no \\"image\\"\\nat all"}', b"[DONE]"],
    ),
    "an error of few words": (
        b"event: error\n\nevent:error\ndata: no\n\n",
        [b'{"error":"unspecified"}', b'{"error":"no"}'],
    ),
    "an error by its event's name alone": (b'event: error\ndata: {"code": 5}\n\n', [b'{"error":{"code":5}}']),
    "an error that says so itself": (b'event: error\ndata: {"error": "no"}\n\n', [b'{"error": "no"}']),
    "an object that is no field": (
        b'data: a\n\n{"error": {\n "a": 1}}\n\n {"b": 2}',
        [b"a", b'{"error": {\n "a": 1}}', b'{"b": 2}'],
    ),
    "more blank lines than needed": (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
    "a colon in the value": (b"data: a:b: c\n\n", [b"a:b: c"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "a byte order mark later is text": (b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n", [b"a", b"c"]),
    "a character in two halves": ("data: é€😀\n\n".encode(), ["é€😀".encode()]),
    "other separators of Unicode end no line": (
        "data: a\u2028b\u0085c\x0bd\n\n".encode(),
        ["a\u2028b\u0085c\x0bd".encode()],
    ),
    "no blank line at the end": (b"data: a\n\ndata: b\n", [b"a", b"b"]),
    "no line end at the end": (b"data: a\n\ndata: b", [b"a", b"b"]),
    "no line end at all, after a byte order mark": (b"\xef\xbb\xbfdata: a", [b"a"]),
    "a CR at the end": (b"data: a\n\ndata: b\r", [b"a", b"b"]),
    "a field cut at the end": (b"data: a\n\ndat", [b"a"]),
    "nothing": (b"", []),
    "a part of a byte order mark": (b"\xef\xbb", []),
    "no stream at all": (b"<html>\n\n<body>502</body>\n\n", []),
}


def read(pieces: list[bytes]) -> list[bytes]:
    reader = EventReader()
    payloads = [payload for piece in pieces for payload in reader.feed(piece)]
    return payloads + reader.finish()


@pytest.mark.parametrize("name", STREAMS)
def test_stream(name: str) -> None:
    data, payloads = STREAMS[name]
    assert read([data]) == payloads
    assert read([bytes([byte]) for byte in data]) == payloads
    for at in range(len(data)):
        assert read([data[:at], data[at:]]) == payloads, at
        assert read([data[:at], b"", data[at:]]) == payloads, at


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("garbage", [b"\x00\xff\xfe\n\n", b": comment\n\n", b"id\n\n", b"\r\n", b"\xf0\x9f\r\r"])
def test_garbage_after_the_end_adds_nothing_and_loses_nothing(name: str, garbage: bytes) -> None:
    data, payloads = STREAMS[name]
    if not data.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")):
        data += b"\n\n"
    assert read([data + garbage]) == payloads
    assert read([bytes([byte]) for byte in data + garbage]) == payloads


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r", b"\r\r"])  # a LF after a CR belongs to it: no need to wait
def test_an_event_leaves_with_the_byte_that_ends_it(end: bytes) -> None:
    reader = EventReader()
    assert reader.feed(b"data: a" + end[:-1]) == []
    assert reader.feed(end[-1:]) == [b"a"]
    assert reader.feed(b"data: b" + end) == [b"b"]


def test_finish_is_the_end() -> None:
    reader = EventReader()
    assert reader.feed(b"data: a") == []
    assert reader.finish() == [b"a"]
    assert reader.finish() == []


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    reader = EventReader()
    reader.feed(b"data: ")
    for _ in range(9):
        assert reader.feed(b"x" * 100) == []
    with pytest.raises(GatewayError) as caught:
        reader.feed(b"x" * 100)
    assert caught.value.kind is Kind.BACKEND_FAILED


def test_the_limit_is_for_one_event_and_not_for_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    reader = EventReader()
    count = sum(len(reader.feed(b"\ndata: " + b"x" * 200 + b"\n")) for _ in range(50))
    assert count + len(reader.finish()) == 50


class Searched(bytearray):
    """What is held, counting the bytes that are looked through."""

    total = 0

    def find(self, sub: Any, start: Any = 0, *end: Any) -> int:
        Searched.total += len(self) - start
        return super().find(sub, start, *end)


@pytest.mark.parametrize("piece", [b"x" * 10, b"data: x\n", b": comment\r\n", b"data\r", b"\n: x"])
def test_an_event_of_many_reads_is_looked_through_once(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(Searched, "total", 0)
    reader = EventReader()
    reader.feed(b"data: ")
    reader._held = Searched(reader._held)
    for _ in range(2000):
        assert reader.feed(piece) == []
    assert Searched.total <= 2000 * (len(piece) + 1)
    assert len(reader.finish()) == 1


def test_an_event_of_too_many_lines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_LINES", 10)
    assert EventReader().feed(b"data: x\n" * 11 + b"\n") == [b"\n".join([b"x"] * 11)]
    with pytest.raises(GatewayError) as caught:
        EventReader().feed(b"data: x\n" * 12 + b"\n")
    assert caught.value.kind is Kind.BACKEND_FAILED


payloads_of_json = st.binary(max_size=20).map(lambda b: b.translate(None, b"\r\n").strip())


@given(
    payloads=st.lists(payloads_of_json, max_size=6),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    noise=st.lists(st.sampled_from([b":", b": x", b"id: 1", b"event: e", b"foo"]), max_size=3),
    cuts=st.lists(st.integers(0, 200), max_size=10),
)
def test_what_was_framed_is_read(payloads: list[bytes], end: bytes, noise: list[bytes], cuts: list[int]) -> None:
    lines = [line for payload in payloads for line in (*noise, b"data: " + payload, b"")]
    data = b"".join(line + end for line in lines)
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    assert read([data[a:b] for a, b in pairwise(places)]) == payloads
    assert read([data]) == payloads


@given(data=st.lists(st.sampled_from([b"\r", b"\n", b"data:", b" ", b"a", b":", b"\xef\xbb\xbf", b"id"]), max_size=20))
def test_cuts_change_nothing(data: list[bytes]) -> None:
    assert read(data) == read([b"".join(data)])
