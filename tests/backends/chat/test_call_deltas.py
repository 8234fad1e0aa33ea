"""What call deltas mean: two calls as every kind of server writes them, and each row of the tables with the golden case
that needs it."""

from typing import Any

import pytest

from dragoman.backends.chat import call_deltas
from dragoman.translators.call_part import CallPart
from dragoman.translators.ir import Delta, Event, Note, PartEnded, PartStarted, Started, StopReason
from dragoman.translators.parts import Parts
from tests.chat_parts import ChatParts
from tests.event_grammar import check, plain
from tests.golden_files import GOLDEN, upstream
from tests.replay import PROTOCOL, replay

STOP = StopReason.STOP


def end(parts: Parts) -> list[Event]:
    parts.finish(STOP, None)
    events = parts.take()
    check(events)
    return events


def of_calls(*deltas: tuple[Any, ...], **known: Any) -> tuple[ChatParts, list[tuple[str, ...]]]:
    """The parts that call deltas (index, id, name, arguments) amount to."""
    parts = ChatParts("s", **known)
    for delta in deltas:
        parts.call(*delta)
    return parts, plain(end(parts))


def calls(*deltas: tuple[Any, ...], **known: Any) -> list[tuple[str, ...]]:
    return of_calls(*deltas, **known)[1]


# --------------------------------------------------------------------------------------------- which call a delta is of

F, G = '{"a":1}', '{"b":2}'
CALL_F, CALL_G = ("call", "f", F), ("call", "g", G)
BOTH = [CALL_F, CALL_G]
Deltas = list[tuple[Any, ...]]  # (index, id, name, arguments)

TWO_CALLS: dict[str, list[tuple[Any, ...]]] = {
    "in order": [(0, "x", "f", ""), (0, "", "", F), (1, "y", "g", ""), (1, "", "", G)],
    "T1: indexes that do not begin at 0": [(3, "x", "f", F), (7, "y", "g", G)],
    "T1: no index": [(None, "x", "f", ""), (None, "", "", F), (None, "y", "g", ""), (None, "", "", G)],
    "T2: one index, ids": [(0, "x", "f", ""), (0, "", "", F), (0, "y", "g", ""), (0, "", "", G)],
    "T2: one index, no ids": [(0, "", "f", ""), (0, "", "", F), (0, "", "g", ""), (0, "", "", G)],
    "T2: one index, whole": [(0, "", "f", F), (0, "", "g", G)],
    "T3: interleaved": [(0, "x", "f", '{"a":'), (1, "y", "g", '{"b":'), (0, "", "", "1}"), (1, "", "", "2}")],
    "T3: the second complete first": [(0, "x", "f", '{"a":'), (1, "y", "g", G), (0, "", "", "1}")],
    "interleaved by id at one index": [
        (0, "x", "f", '{"a":'),
        (0, "y", "g", '{"b":'),
        (0, "x", "", "1}"),
        (0, "y", "", "2}"),
    ],
    "interleaved by id without an index": [
        (None, "x", "f", '{"a":'),
        (None, "y", "g", '{"b":'),
        (None, "x", "f", "1}"),
        (None, "y", "g", "2}"),
    ],
    "announced, then filled in another order": [(0, "x", "f"), (1, "y", "g"), (1, "", "", G), (0, "", "", F)],
    "the id again in each delta": [(0, "x", "f", '{"a":'), (0, "x", "", "1}"), (1, "y", "g", G), (1, "y", "g", "")],
    "a new id in each delta": [
        (0, "x1", "f", ""),
        (0, "x2", "", '{"a":'),
        (0, "x3", "", "1}"),
        (0, "y1", "g", ""),
        (0, "y2", "", G),
    ],
    "one id for both": [(0, "x", "f", '{"a":'), (1, "x", "g", '{"b":'), (0, "x", "", "1}"), (1, "x", "", "2}")],
    "an id that comes late": [(0, "", "f", ""), (0, "x", "", F), (1, "", "g", ""), (1, "y", "g", G)],
    "an index that counts deltas": [(0, "x", "f", ""), (1, "", "", '{"a":'), (2, "", "", "1}"), (3, "y", "g", G)],
    "the index only at first": [(0, "x", "f", ""), (None, "", "", F), (1, "y", "g", ""), (None, "", "", G)],
    "the index only later": [(None, "x", "f", ""), (0, "", "", F), (None, "y", "g", ""), (1, "", "", G)],
    "snapshots": [(0, "x", "f", '{"a'), (0, "x", "f", F), (0, "x", "f", F), (1, "y", "g", '{"b":'), (1, "y", "g", G)],
    "the header twice": [(0, "x", "f", ""), (0, "x", "f", ""), (0, "", "", F), (0, "x", "f", ""), (1, "y", "g", G)],
    "the last delta twice": [(0, "x", "f", F), (0, "x", "f", F), (1, "y", "g", G), (1, "y", "g", G)],
}


@pytest.mark.parametrize("server", TWO_CALLS)
def test_two_calls(server: str) -> None:
    parts, result = of_calls(*TWO_CALLS[server], names=["f", "g"])
    assert result == BOTH
    assert [note for note in parts.notes if note.kind == "drop"] == []


@pytest.mark.parametrize("server", [name for name in TWO_CALLS if "late" not in name])
def test_two_calls_of_one_tool(server: str) -> None:
    deltas = [(index, id, name and "f", *rest) for index, id, name, *rest in TWO_CALLS[server]]
    assert calls(*deltas, names=["f"]) == [("call", "f", F), ("call", "f", G)]


def test_two_calls_of_one_tool_without_arguments() -> None:
    assert calls((0, "x", "f", ""), (0, "y", "f", "")) == [("call", "f", "{}"), ("call", "f", "{}")]


def test_a_header_that_only_repeats_the_call_before_it_is_no_call() -> None:
    assert calls((0, "x", "f", F), (0, "", "f", "")) == [("call", "f", F)]


def test_a_new_id_and_the_name_in_each_piece() -> None:
    assert calls((0, "x1", "f", '{"a"'), (0, "x2", "f", ":1"), (0, "x3", "f", "}")) == [CALL_F]


def test_arguments_that_begin_anew_at_another_index_are_not_glued_to_the_last_call() -> None:
    assert calls((0, "x", "f", '{"a":'), (1, "", "", G)) == [("call", "f", '{"a":'), ("text", G)]


@pytest.mark.parametrize(
    "deltas", [[(0, "x", "get_"), (0, "y", "weather")], [(0, "", "get_", "{}"), (0, "", "weather")]]
)
def test_what_is_no_piece_of_a_name(deltas: Deltas) -> None:
    assert calls(*deltas, names=["get_weather"]) == [("call", "get_", "{}"), ("call", "weather", "{}")]


def test_a_server_that_is_known_for_snapshots_is_not_waited_for() -> None:
    parts = ChatParts("s")
    parts.call(0, "x", "f", '{"a')
    parts.call(0, "x", "f", F)
    parts.call(1, "y", "g", '{"b":')
    parts.take()
    parts.call(1, "y", "g", G)
    assert parts.take() == [Delta("2}")]


@pytest.mark.parametrize("rest", [(0, "x", "f", "}"), (0, "x2", "", "}"), (0, "", "", "}")])
def test_text_after_complete_arguments_is_no_call(rest: tuple[Any, ...]) -> None:
    parts, result = of_calls((0, "x", "f", F), rest)
    assert result == [("call", "f", F)]
    assert parts.notes == [Note("drop", "late_arguments")]


def test_a_second_call_begins_while_the_first_is_cut() -> None:
    assert calls((0, "x", "f", '{"a":'), (0, "y", "f", ""), (0, "", "", G)) == [
        ("call", "f", '{"a":'),
        ("call", "f", G),
    ]


# ------------------------------------------------------------------------------------------------- names, ids, nothing


@pytest.mark.parametrize("index", [0, None])
def test_a_replaced_id_still_identifies_the_call(index: int | None) -> None:
    deltas = [(index, "old", "f", '{"a"'), (index, "old", "f", ":1"), (index, "old", "f", "}"), (index, "old", "f", "")]
    assert calls(*deltas, taken=["old"]) == [("call", "f", '{"a":1}')]


@pytest.mark.parametrize("pieces", [("get_", "weather"), ("get_", "wea", "ther"), ("get_", "get_wea", "get_weather")])
def test_a_name_in_pieces(pieces: tuple[str, ...]) -> None:
    deltas = [(0, "x" if piece is pieces[0] else "", piece) for piece in pieces]
    assert calls(*deltas, (0, "", "", "{}"), names=["get_weather", "get"]) == [("call", "get_weather", "{}")]


def test_two_names_that_could_be_one_are_two_when_both_are_declared() -> None:
    assert calls((0, "", "a"), (0, "", "b"), names=["a", "b", "ab"]) == [("call", "a", "{}"), ("call", "b", "{}")]


def test_a_name_may_come_after_the_arguments() -> None:
    assert calls((0, "x", "", '{"a"'), (0, "", "", ":1}"), (0, "", "f")) == [("call", "f", '{"a":1}')]


def test_arguments_without_a_name_are_shown() -> None:
    parts, result = of_calls((0, "x", "", '{"a":1}'))
    assert result == [("text", '{"a":1}')]
    assert parts.notes == [Note("repair", "nameless_call")]


@pytest.mark.parametrize("name", ["", " "])
def test_a_call_of_nothing_but_an_id_is_noted(name: str) -> None:
    parts, result = of_calls((0, "x", name, ""))
    assert result == [("text", "")]
    assert Note("drop", "nameless_call") in parts.notes


def test_a_delta_that_says_nothing_holds_nothing_back() -> None:
    parts = ChatParts("s")
    parts.text("a")
    parts.call(0, "", "", "")
    parts.text("b")
    assert parts.take() == [Started(), PartStarted("text"), Delta("a"), Delta("b")]


def test_white_space_after_the_arguments_is_no_argument() -> None:
    parts, result = of_calls((0, "x", "f", "{} \n"), (0, "", "", "\n"))
    assert result == [("call", "f", "{}")]
    assert parts.notes == []


# ---------------------------------------------------------------------------------------------------- snapshots, or not


@pytest.mark.parametrize(
    "pieces",
    [
        ['{"a":', '{"a":', "1}}"],  # true deltas of {"a":{"a":1}}
        ['{"a":', '{"a":{"b":', "1}}}"],
        ['{"a":', '{"a":', '{"a":1}}}'],
        ["[", "[", "[1]]]"],
    ],
)
def test_deltas_that_look_like_a_snapshot(pieces: list[str]) -> None:
    assert calls(*((0, "x", "f", piece) for piece in pieces)) == [("call", "f", "".join(pieces))]


@pytest.mark.parametrize("pieces", [["*", "** Begin", " Patch"], ["-", "-", "--", "-"], ["1", "1", "12"], [" ", " {}"]])
def test_text_that_is_no_json_has_no_snapshots(pieces: list[str]) -> None:
    assert calls(*((0, "x", "f", piece) for piece in pieces)) == [("call", "f", "".join(pieces))]


@pytest.mark.parametrize(
    "pieces",
    [
        ["{", '{"a', '{"a":', '{"a": {', '{"a": {"b": 1}}'],
        ['{"a":', '{"a":[', '{"a":[1]}'],
        ['{"a":', '{"a":{"b":1}}'],  # the last word decides
    ],
)
def test_snapshots(pieces: list[str]) -> None:
    assert calls(*((0, "x", "f", piece) for piece in pieces)) == [("call", "f", pieces[-1])]


def test_a_snapshot_of_an_escape_that_was_cut() -> None:
    pieces = ['{"a": "\\', '{"a": "\\', '{"a": "\\"', '{"a": "\\""}']
    assert calls(*((0, "x", "f", piece) for piece in pieces)) == [("call", "f", '{"a": "\\""}')]


def test_arguments_that_are_certainly_whole() -> None:
    parts = ChatParts("s")
    parts.call(None, "", "f", F, whole=True)
    parts.call(None, "", "f", G, whole=True)
    parts.call(None, "", "f", G, whole=True)
    assert plain(end(parts)) == [("call", "f", F), ("call", "f", G)]


def test_the_arguments_are_not_joined_for_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ChatParts("s")
    parts.call(0, "x", "f", '{"a": "')
    with monkeypatch.context() as patch:
        patch.setattr(CallPart, "arguments", property(lambda _: pytest.fail("joined")))
        for _ in range(100):
            parts.call(0, "x", "f", "x" * 5)
    parts.call(0, "x", "f", '"}')
    assert plain(end(parts)) == [("call", "f", '{"a": "' + "x" * 500 + '"}')]


# ------------------------------------------------------------------------------------------------------------- a break


def test_an_abort_that_completes_a_call_plays_back_what_waited_for_it() -> None:
    parts = ChatParts("s")
    parts.call(0, "x", "f", '{"a":')
    parts.call(0, "x", "f", F)
    parts.text("a")
    parts.take()
    parts.abort()
    assert parts.take() == [Delta("1}"), PartEnded(True), PartStarted("text"), Delta("a")]


@pytest.mark.parametrize("first", [("a", ""), ("a", '{"n": 0}'), ("", '{"n": 0}')])
def test_an_abort_ends_before_a_call_whose_name_had_yet_to_come(first: tuple[str, str]) -> None:
    parts = ChatParts("s")
    parts.text("Hi")
    parts.call(0, first[0], "", first[1])
    parts.call(1, "b", "g", '{"n": 1}')
    parts.abort()
    assert plain(parts.take()) == [("text", "Hi")]
    assert parts.notes == [Note("drop", "after_break")]


def test_an_abort_releases_a_snapshot_that_was_held() -> None:
    parts = ChatParts("s")
    parts.call(0, "x", "f", '{"a":')
    parts.call(0, "x", "f", F)
    parts.abort()
    events = parts.take()
    assert "".join(event.text for event in events if isinstance(event, Delta)) == F


# ----------------------------------------------------------------------------------------------------------- the tables

ROWS = [
    (table, row.case)
    for table in ("ADDRESSES", "VERDICTS", "MEANINGS", "PHANTOMS")
    for row in getattr(call_deltas, table)
]


def test_no_two_rows_are_named_for_one_case() -> None:
    assert len({case for _, case in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("table", "case"), ROWS, ids=[case for _, case in ROWS])
def test_a_case_goes_wrong_without_the_row_that_is_named_for_it(
    table: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = upstream(GOLDEN / "streams" / "chat_completions" / f"{case}.txtar")
    right = replay(PROTOCOL["responses"], [data])
    monkeypatch.setattr(call_deltas, table, [row for row in getattr(call_deltas, table) if row.case != case])
    assert replay(PROTOCOL["responses"], [data]) != right


# ------------------------------------------------------------------------------------------------------------- the cost


class Unsearched(dict[Any, Any]):
    """A table in which a delta may look up one key at a time."""

    def __iter__(self) -> Any:
        pytest.fail("all calls were looked at for one delta")

    keys = values = items = __iter__


@pytest.mark.parametrize("index", [None, 0])
def test_no_delta_looks_at_all_calls_before_it(index: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ChatParts("s")
    for table in ("_at", "_by_id"):
        monkeypatch.setattr(parts.deltas, table, Unsearched())
    for number in range(20):
        parts.call(index, f"id{number}", "f", "")
        parts.call(index, "", "", F)
    assert plain(end(parts)) == [CALL_F] * 20


@pytest.mark.parametrize("header", [(0, "", ""), (0, "x", "f"), (0, "", "f"), (None, "", ""), (None, "x", "f")])
def test_the_next_piece_of_a_call_is_not_looked_up_in_the_tables(
    header: tuple[int | None, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = ChatParts("s")
    parts.call(0, "x", "f", '{"a": "')
    parts.take()
    monkeypatch.setattr(call_deltas, "deciding", lambda *_: pytest.fail("looked up"))
    for _ in range(3):
        parts.call(*header, "word")
    assert parts.take() == [Delta("word")] * 3
