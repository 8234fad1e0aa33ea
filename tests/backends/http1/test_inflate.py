"""Compressed bodies, cut anywhere, in pieces of bounded size. What is not what it is called: `test_connection.py`."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.http1.inflate import GIVEN, INFLATED, Inflater


def without_head(body: bytes) -> bytes:
    return zlib.compress(body)[2:-4]


PACKED: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", without_head),
]


def read(inflater: Inflater, *given: bytes) -> list[bytes]:
    pieces = []
    for data in given:
        pieces.append(inflater.piece(data))
        while inflater.more:
            pieces.append(inflater.piece(b""))
    return pieces


@given(st.sampled_from(PACKED), st.lists(st.binary(max_size=300), max_size=4), st.integers(1, 100))
def test_what_was_packed_comes_out_however_it_is_cut(
    how: tuple[str, Callable[[bytes], bytes]], bodies: list[bytes], size: int
) -> None:
    encoding, pack = how
    members = bodies if "gzip" in encoding else bodies[:1]
    packed = b"".join(map(pack, members))
    inflater = Inflater(encoding)
    pieces = read(inflater, *(packed[at : at + size] for at in range(0, len(packed), size)))
    assert b"".join(pieces) == b"".join(members)
    assert inflater.whole


@pytest.mark.parametrize("size", [INFLATED - 1, INFLATED, INFLATED + 1, 2 * INFLATED, 5 * INFLATED + 7])
@pytest.mark.parametrize(("encoding", "pack"), PACKED)
def test_no_piece_is_larger_than_the_limit(encoding: str, pack: Callable[[bytes], bytes], size: int) -> None:
    inflater = Inflater(encoding)
    pieces = read(inflater, pack(b"x" * size))
    assert b"".join(pieces) == b"x" * size
    assert max(map(len, pieces)) <= INFLATED
    assert inflater.whole


def test_very_many_members_are_copied_once_each_and_not_all_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    class Member:
        """zlib's, noting how much it is given."""

        def __init__(self, window: int) -> None:
            self._member = make(window)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._member, name)

        def decompress(self, data: bytes, most: int) -> bytes:
            given.append(len(data))
            return self._member.decompress(data, most)

    make = zlib.decompressobj
    monkeypatch.setattr(zlib, "decompressobj", Member)
    empty = gzip.compress(b"")
    inflater = Inflater("gzip")
    assert read(inflater, empty * 10_000 + gzip.compress(b"x")) == [b"x"]
    assert inflater.whole
    assert max(given) <= GIVEN


def test_a_body_that_is_cut_off_is_not_whole() -> None:
    inflater = Inflater("gzip")
    assert inflater.whole  # an empty body
    assert read(inflater, gzip.compress(b"hello")[:-1]) == [b"hello"]
    assert not inflater.whole
