"""JSON as models write it: valid JSON stays as it is, what is not becomes valid, however it is cut."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.backends.markup.closing import closing
from dragoman.backends.markup.model_json import ModelJson

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FRAGMENTS = ["{", "}", "[", "]", '"', "'", '"""', ",", ":", " ", "\n", "\\", "u00", "a", "1", "-", "true", "None"]
FRAGMENTS += [r"\ud83d", r"\ude00", r"\u00e9"]
FRAGMENTS += ["x y", "\u00e9\U0001f642", "<", "</tool_call>", "//", "#", "\t", "\x0b"]


def read(pieces: Iterable[str], *ends: str) -> tuple[str, str, ModelJson]:
    """The JSON of a text that comes in pieces, completed; what was not read; and the reader."""
    found = ModelJson(ends)
    unread = written = ""
    for piece in (*pieces, ""):
        unread += piece
        end, more = found.read(unread, 0, final=not piece)
        written, unread = written + more, unread[end:]
    return written + ("" if found.complete else closing(written)), unread, found


@settings(max_examples=150, deadline=None)
@given(value=st.dictionaries(st.text(), values, max_size=4), indent=st.sampled_from([None, 1]), ascii=st.booleans())
def test_valid_json_passes_byte_for_byte(value: dict[str, Any], indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    for pieces in ([text], [*text]):
        written, unread, found = read(pieces, "</tool_call>")
        assert (written, unread) == (text, "")
        assert found.complete
        assert not found.mended


@settings(max_examples=400, deadline=None)
@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=20))
def test_whatever_is_written_becomes_an_object_however_it_is_cut(fragments: list[str]) -> None:
    text = "{" + "".join(fragments)
    written, unread, found = read([text], "</tool_call>")
    assert isinstance(orjson.loads(written), dict)  # which refuses halves of surrogate pairs, as clients do
    again, rest, same = read([*text], "</tool_call>")
    assert (again, rest, same.mended) == (written, unread, found.mended)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "one\ntwo\tthree"}', {"a": "one\ntwo\tthree"}),
        (r'{"a": "\d+ C:\path \u12"}', {"a": r"\d+ C:\path \u12"}),
        (r"""{"a": "it\'s"}""", {"a": "it's"}),
        ('{"a": "echo "hi" there", "b": 1}', {"a": 'echo "hi" there', "b": 1}),
        ('{"a": "say "a", then b"}', {"a": 'say "a", then b'}),
        ('{"a": "print(x["b"])", "c": ["d", "e"]}', {"a": 'print(x["b"])', "c": ["d", "e"]}),
        ('{"a": "<b class="c">d</b>"}', {"a": '<b class="c">d</b>'}),
        ('{"a": """one "two"\nthree"""}', {"a": 'one "two"\nthree'}),
        ("{'a': 'it\\'s \"so\" \\x41', 'b': None}", {"a": 'it\'s "so" A', "b": None}),
        ('{"a": [1, 2,], "b": {"c": 1,},}', {"a": [1, 2], "b": {"c": 1}}),
        ('{"a": 1 "b": 2}', {"a": 1, "b": 2}),
        ('{"a": [1, 2}', {"a": [1, 2]}),
        ('{"a": True, "b": None, "c": NaN}', {"a": True, "b": None, "c": None}),
        ("{a: ls -la, b: 3}", {"a": "ls -la", "b": 3}),
        ('{"a": .5, "b": 007}', {"a": ".5", "b": "007"}),
        ('{"a", "b": 1}', {"a": None, "b": 1}),
        ('{{"a": 1}', {"a": 1}),
        ('{"a": 1, // why\n "b": 2}', {"a": 1, "b": 2}),
        (r'{"a": "\ud83d", "b": "\ude00 x"}', {"a": "\ufffd", "b": "\ufffd x"}),
        (r'{"a": "\ud83d\ud83d\ude00\ud83d\n\ud83d\u0041"}', {"a": "\ufffd\U0001f600\ufffd\n\ufffdA"}),
    ],
)
def test_what_has_one_meaning_is_mended(text: str, value: dict[str, Any]) -> None:
    for pieces in ([text], [*text]):
        written, unread, found = read(pieces, "</tool_call>")
        assert json.loads(written) == value
        assert not unread
        assert found.mended


@pytest.mark.parametrize("text", ['{"a": "b"', '{"a": ["b"', '{"a": 1', '{"a": "b"\n'])
def test_a_tag_ends_what_has_forgotten_its_brackets(text: str) -> None:
    written, unread, found = read([f"{text}</tool_call>x"], "</tool_call>")
    assert json.loads(written)
    assert unread == "</tool_call>x"
    assert found.broken


@pytest.mark.parametrize("begun", [r"\ud83d", r"\ud83d\u", r"\ud83d\ude0"])
def test_half_of_a_pair_waits_for_the_other(begun: str) -> None:
    found = ModelJson()
    assert found.read(f'{{"a": "x{begun}', 0, final=False) == (8, '{"a": "x')
    rest = r"\ud83d\ude00"
    assert found.read(rest, 0, final=False) == (12, rest)


def test_strings_leave_as_they_come() -> None:
    found = ModelJson()
    assert found.read('{"a": "one ', 0, final=False) == (11, '{"a": "one ')
    assert found.read("two", 0, final=False) == (3, "two")
