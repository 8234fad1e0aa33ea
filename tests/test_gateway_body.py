"""Bodies as functions: whatever the bytes, the outcome is the object or one kind of refusal, within the limit."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gateway.body import decode, deeper_than, parse_object
from translators.errors import GatewayError, Kind

LIMIT = 10_000
ENCODERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def outcome_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it gives, or the refusal; any other exception is a bug and passes."""
    try:
        return function(*arguments)
    except GatewayError as error:
        return error


@given(st.binary(max_size=400), st.lists(st.sampled_from(sorted(ENCODERS)), min_size=1, max_size=3))
def test_what_was_encoded_is_decoded(data: bytes, encodings: list[str]) -> None:
    encoded = data
    for name in encodings:
        encoded = ENCODERS[name](encoded)
    assert decode(encoded, encodings, LIMIT) == data


@given(st.binary(max_size=200), st.sampled_from([*ENCODERS, "br"]))
def test_garbage_is_refused_or_bounded(data: bytes, encoding: str) -> None:
    outcome = outcome_of(decode, data, [encoding], LIMIT)
    if isinstance(outcome, GatewayError):
        assert outcome.kind in (Kind.INVALID, Kind.UNSUPPORTED, Kind.TOO_LARGE)
    else:
        assert len(outcome) <= LIMIT


@pytest.mark.parametrize("encoding", sorted(ENCODERS))
def test_the_limit_is_exact(encoding: str) -> None:
    assert len(decode(ENCODERS[encoding](b"x" * LIMIT), [encoding], LIMIT)) == LIMIT
    with pytest.raises(GatewayError) as caught:
        decode(ENCODERS[encoding](b"x" * (LIMIT + 1)), [encoding], LIMIT)
    assert caught.value.kind is Kind.TOO_LARGE


def test_a_zstd_frame_may_not_ask_for_a_huge_window() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = frame.compress(b"{}") + frame.flush()  # no content size, so the window is what the frame says
    with pytest.raises(GatewayError) as caught:
        decode(data, ["zstd"], LIMIT)
    assert caught.value.kind is Kind.INVALID


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_any_object_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert parse_object(orjson.dumps(value), 64) == value


@given(st.binary(max_size=100))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    outcome = outcome_of(parse_object, raw, 64)
    if isinstance(outcome, GatewayError):
        assert outcome.kind is Kind.INVALID
        assert "\n" not in outcome.message
    else:
        assert isinstance(outcome, dict)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(JSON.filter(lambda value: isinstance(value, dict | list)), st.integers(1, 8))
def test_depth_is_counted_as_by_the_plain_recursion(value: Any, limit: int) -> None:
    assert deeper_than(value, limit) == (depth(value) > limit)
