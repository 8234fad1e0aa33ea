"""Every beginning of a JSON object can be ended."""

from __future__ import annotations

import json

import pytest

from dragoman.backends.markup.closing import closing

WHOLE = {"a": [1, -2.5e3, {"b": 'c\\"\u00e9\n'}], "d\u1234": True, "e": None, "f": False, "g": "x\\", "h": {}, "i": []}


@pytest.mark.parametrize("ascii_only", [True, False])
def test_every_beginning_is_ended(ascii_only: bool) -> None:
    text = json.dumps(WHOLE, ensure_ascii=ascii_only)
    for end in range(1, len(text) + 1):
        begun = text[:end]
        assert isinstance(json.loads(begun + closing(begun)), dict), begun


def test_what_is_no_json_stays_as_it_is() -> None:
    assert closing('{"a": Rome') == ""
    assert closing("[1") == ""
