"""Content encodings as functions: whatever the bytes, what was encoded or one kind of refusal, in small steps."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dragoman.gateway.calls.decoding import GIVEN, MOST_MEMBERS, TAKEN, decode
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.steps import Steps, at_once

LIMIT = 10_000
MIB = 1024 * 1024


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def bare_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


ENCODERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd}


def counted(steps: Steps[bytes]) -> tuple[bytes | GatewayError, int]:
    """The outcome, and after how many steps."""
    taken = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, taken
        except GatewayError as error:
            return error, taken
        taken += 1


def refused(data: bytes, *encodings: str, limit: int = LIMIT) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        at_once(decode(data, encodings, limit))
    return caught.value


@given(st.binary(max_size=400), st.lists(st.sampled_from(sorted(ENCODERS)), min_size=1, max_size=3))
def test_what_was_encoded_is_decoded(data: bytes, encodings: list[str]) -> None:
    encoded = data
    for name in encodings:
        encoded = ENCODERS[name](encoded)
    assert at_once(decode(encoded, encodings, LIMIT)) == data


@given(st.binary(max_size=200), st.sampled_from([*ENCODERS, "br"]))
def test_garbage_is_refused_or_bounded(data: bytes, encoding: str) -> None:
    outcome, _ = counted(decode(data, [encoding], LIMIT))
    if isinstance(outcome, GatewayError):
        assert outcome.kind in (Kind.INVALID, Kind.UNSUPPORTED, Kind.TOO_LARGE)
    else:
        assert len(outcome) <= LIMIT


@pytest.mark.parametrize("size", [1, TAKEN, GIVEN - 1, GIVEN, GIVEN + 1, 3 * GIVEN])
@pytest.mark.parametrize(("encoding", "encode"), [*ENCODERS.items(), ("deflate", bare_deflate)])
def test_data_of_any_size_comes_out_whole(encoding: str, encode: Callable[[bytes], bytes], size: int) -> None:
    for data in (b"x" * size, bytes(n * n % 251 for n in range(size))):
        assert at_once(decode(encode(data), [encoding], size)) == data


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_the_limit_is_exact(encoding: str) -> None:
    assert len(at_once(decode(ENCODERS[encoding](b"x" * LIMIT), [encoding], LIMIT))) == LIMIT
    assert refused(ENCODERS[encoding](b"x" * (LIMIT + 1)), encoding).kind is Kind.TOO_LARGE


def test_three_encodings_are_undone_and_no_more() -> None:
    data = zstd(gzip.compress(gzip.compress(b"{}")))
    assert at_once(decode(data, ["gzip", "x-gzip", "zstd"], LIMIT)) == b"{}"
    assert refused(gzip.compress(data), "gzip", "gzip", "zstd", "gzip").kind is Kind.UNSUPPORTED


@pytest.mark.parametrize(("name", "shown"), [("br", "br"), ("br\u00e9", "given"), ("<b>", "given"), ("a b", "given")])
def test_an_unknown_encoding_is_named_only_where_it_is_a_name(name: str, shown: str) -> None:
    error = refused(b"", name)
    assert (error.kind, error.code) == (Kind.UNSUPPORTED, "unsupported_content_encoding")
    assert f"encoding {shown} is" in error.message


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_a_step_takes_some_ten_thousand_bytes(encoding: str) -> None:
    data = random.Random(1).randbytes(2 * MIB)
    outcome, steps = counted(decode(ENCODERS[encoding](data), [encoding], 3 * MIB))
    assert outcome == data
    assert steps >= 2 * MIB // 65_536


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_each_step_yields_how_much_has_come_out(encoding: str) -> None:
    data = random.Random(1).randbytes(MIB)
    sizes = list(decode(ENCODERS[encoding](data), [encoding], MIB))
    assert len(sizes) > 3
    assert sizes == sorted(sizes)
    assert sizes[-1] == MIB
    assert max(after - before for before, after in pairwise([0, *map(int, sizes)])) <= GIVEN


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("kept", [1, 11, -1])
def test_data_that_ends_early_is_refused(encoding: str, kept: int) -> None:
    assert refused(ENCODERS[encoding](b"some text, and more of it")[:kept], encoding).kind is Kind.INVALID


def test_a_zstd_frame_may_not_ask_for_a_huge_window() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = frame.compress(b"{}") + frame.flush()  # no content size, so the window is what the frame says
    assert refused(data, "zstd").kind is Kind.INVALID


# --------------------------------------------------------------------------------------------------- members and frames


def test_an_archive_of_several_members_is_one_body() -> None:
    members = [gzip.compress(b"a" * n) for n in range(100)]
    assert at_once(decode(b"".join(members), ["gzip"], LIMIT)) == b"a" * sum(range(100))
    assert at_once(decode(gzip.compress(b"") * MOST_MEMBERS, ["gzip"], LIMIT)) == b""
    assert refused(gzip.compress(b"") * (MOST_MEMBERS + 1), "gzip").code == "invalid_body"


@pytest.mark.parametrize("member", [gzip.compress(b""), gzip.compress(b"x"), gzip.compress(bytes(range(256)))])
def test_members_without_end_are_refused_after_the_first_thousand(member: bytes) -> None:
    outcome, steps = counted(decode(member * 200_000, ["gzip"], MIB))
    assert isinstance(outcome, GatewayError)
    assert (outcome.kind, outcome.code) == (Kind.INVALID, "invalid_body")
    assert f"more than {MOST_MEMBERS} gzip members" in outcome.message
    assert steps <= 2 * MOST_MEMBERS


def test_members_without_end_are_refused_below_other_encodings_too() -> None:
    members = gzip.compress(b"") * 200_000
    assert "gzip members" in refused(zstd(members), "gzip", "zstd", limit=8 * MIB).message
    assert "gzip members" in refused(gzip.compress(members), "gzip", "gzip", limit=8 * MIB).message


def test_bytes_are_handed_to_the_decompressor_about_once(monkeypatch: pytest.MonkeyPatch) -> None:
    handed = 0
    real = zlib.decompressobj

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._real = real(wbits)

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal handed
            handed += len(data)
            return self._real.decompress(data, most)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    data = b"".join(gzip.compress(bytes([n % 256]) * n) for n in range(1000))
    at_once(decode(data, ["gzip"], MIB))
    assert handed <= 1000 * TAKEN + len(data)


SKIPPED = b"\x50\x2a\x4d\x18" + struct.pack("<I", 0)  # a frame that says nothing (RFC 8878, 3.1.2)
EMPTY_BLOCK = b"\0\0\0"
ONE_BYTE_TIMES_128K = struct.pack("<I", 1 << 1 | 128 * 1024 << 3)[:3] + b"0"
FRAME = zstandard.FRAME_HEADER + bytes([0, (23 - 10) << 3])  # without sizes, a window of 8 MiB


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zstd(b"ab") * 1000, b"ab" * 1000),
        (zstd(b"") * 200_000 + zstd(b"{}"), b"{}"),
        (SKIPPED * 200_000 + zstd(b"{}") + SKIPPED, b"{}"),
        (FRAME + EMPTY_BLOCK * 500_000 + b"\1\0\0", b""),
    ],
    ids=["frames", "empty frames", "skippable frames", "empty blocks"],
)
def test_zstd_frames_and_blocks_cost_no_more_than_their_bytes(data: bytes, said: bytes) -> None:
    outcome, steps = counted(decode(data, ["zstd"], LIMIT))
    assert outcome == said
    assert steps == -(-len(data) // TAKEN)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (gzip.compress(b"0" * (64 * MIB)), "gzip"),
        (zlib.compress(b"0" * (64 * MIB)), "deflate"),
        (bare_deflate(b"0" * (64 * MIB)), "deflate"),
        (zstd(b"0" * (64 * MIB)), "zstd"),
        (FRAME + ONE_BYTE_TIMES_128K * 10_000, "zstd"),
    ],
    ids=["gzip", "deflate", "bare deflate", "zstd", "zstd of one byte"],
)
def test_a_bomb_is_refused_after_as_many_steps_as_the_limit_has_blocks(data: bytes, encoding: str) -> None:
    outcome, steps = counted(decode(data, [encoding], MIB))
    assert isinstance(outcome, GatewayError)
    assert outcome.kind is Kind.TOO_LARGE
    assert steps <= MIB // GIVEN + 1
