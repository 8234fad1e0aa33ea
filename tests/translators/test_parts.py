"""Part boundaries: one test for each rule, and two calls as every kind of server writes them."""

from typing import Any

import pytest

from dragoman.translators.ir import (
    Delta,
    Event,
    Finished,
    Message,
    Note,
    PartEnded,
    PartStarted,
    Request,
    Started,
    StopReason,
    Tool,
    ToolCall,
    Usage,
)
from dragoman.translators.parts import Parts, _Call
from tests.event_grammar import check, fold, plain

STOP, LENGTH, FILTER = StopReason.STOP, StopReason.LENGTH, StopReason.CONTENT_FILTER


def take(parts: Parts) -> list[Event]:
    events, parts.events = parts.events, []
    return events


def end(parts: Parts, reason: StopReason = STOP) -> list[Event]:
    parts.finish(reason, None)
    events = take(parts)
    check(events)
    return events


def of_calls(*deltas: tuple[Any, ...], **known: Any) -> tuple[Parts, list[tuple[str, ...]]]:
    """The parts that call deltas (index, id, name, arguments) amount to."""
    parts = Parts("s", **known)
    for delta in deltas:
        parts.call(*delta)
    return parts, plain(end(parts))


def calls(*deltas: tuple[Any, ...], **known: Any) -> list[tuple[str, ...]]:
    return of_calls(*deltas, **known)[1]


# ----------------------------------------------------------------------------------------------------------------- text


def test_text_leaves_in_the_call_in_which_it_came() -> None:
    parts = Parts("s")
    parts.text("Hel")
    assert take(parts) == [Started(), PartStarted("text"), Delta("Hel")]
    parts.text("lo")
    assert take(parts) == [Delta("lo")]
    parts.text(" ")
    assert take(parts) == [Delta(" ")]
    parts.finish(STOP, Usage(1, 2), "###")
    assert take(parts) == [PartEnded(), Finished(STOP, Usage(1, 2), "###")]


def test_kinds_take_turns() -> None:
    parts = Parts("s")
    parts.reasoning("hm")
    parts.text("a")
    parts.refusal("no")
    parts.text("b")
    assert plain(end(parts)) == [("reasoning", "hm"), ("text", "a"), ("refusal", "no"), ("text", "b")]


def test_a_part_is_ended_when_another_begins() -> None:
    parts = Parts("s")
    parts.reasoning("hm")
    take(parts)
    parts.text("a")
    assert take(parts) == [PartEnded(), PartStarted("text"), Delta("a")]


def test_blank_text_precedes_the_next_text() -> None:
    parts = Parts("s")
    parts.text("\n")
    parts.text(" ")
    assert take(parts) == []
    parts.text("a")
    assert take(parts) == [Started(), PartStarted("text"), Delta("\n a")]


@pytest.mark.parametrize("kind", ["text", "reasoning", "refusal"])
def test_blank_text_vanishes_beside_a_call(kind: str) -> None:
    parts = Parts("s")
    for arguments in ('{"a":', "1}"):
        getattr(parts, kind)("\n")
        parts.call(0, "x", "f", arguments)
        getattr(parts, kind)(" \n")
    assert plain(end(parts)) == [("call", "f", '{"a":1}')]


def test_blank_text_after_a_call_belongs_to_the_words_that_follow() -> None:
    parts = Parts("s")
    parts.call(0, "x", "f", "{}")
    parts.text("\n")
    parts.text("done")
    assert plain(end(parts)) == [("call", "f", "{}"), ("text", "\ndone")]


def test_blank_reasoning_does_not_split_text() -> None:
    parts = Parts("s")
    parts.text("a")
    parts.reasoning("\n")
    parts.text("b")
    assert plain(end(parts)) == [("text", "ab")]


def test_log_probabilities_stay_with_their_text() -> None:
    one, two = [{"token": "\n"}], [{"token": "a"}]
    parts = Parts("s")
    parts.text("\n", one)
    parts.text("a", two)
    parts.text("b", one)
    assert take(parts) == [Started(), PartStarted("text"), Delta("\na", [*one, *two]), Delta("b", one)]


# -------------------------------------------------------------------------------------------------------- the empty one


@pytest.mark.parametrize(("reason", "complete"), [(STOP, True), (LENGTH, False), (FILTER, False)])
def test_an_answer_without_any_part_has_one_empty_text_part(reason: StopReason, complete: bool) -> None:
    parts = Parts("s")
    assert end(parts, reason) == [Started(), PartStarted("text"), PartEnded(complete), Finished(reason)]
    assert parts.notes == [Note("answer", "empty")]


def test_an_answer_of_white_space_keeps_it() -> None:
    parts = Parts("s")
    parts.text(" \n")
    assert plain(end(parts)) == [("text", " \n")]


def test_reasoning_alone_is_noted() -> None:
    parts = Parts("s")
    parts.reasoning("hm")
    parts.text("\n")
    assert plain(end(parts)) == [("reasoning", "hm")]
    assert parts.notes == [Note("answer", "reasoning_only")]


# ----------------------------------------------------------------------------------------------------------- announcing


def test_a_call_is_announced_with_its_name_and_first_argument_byte() -> None:
    parts = Parts("s")
    parts.call(0, "x", "", "")
    parts.call(0, "", "f", "")
    parts.call(0, "", "", " ")
    assert take(parts) == []
    parts.call(0, "", "", "{")
    assert take(parts) == [Started(), PartStarted("call", "x", "f"), Delta(" {")]
    parts.call(0, "", "", "}")
    assert take(parts) == [Delta("}")]


def test_a_name_may_come_after_the_arguments() -> None:
    assert calls((0, "x", "", '{"a"'), (0, "", "", ":1}"), (0, "", "f")) == [("call", "f", '{"a":1}')]


def test_a_call_without_arguments_is_announced_at_its_end() -> None:
    parts = Parts("s")
    parts.call(0, "x", "f")
    assert take(parts) == []
    assert end(parts) == [Started(), PartStarted("call", "x", "f"), Delta("{}"), PartEnded(), Finished(STOP)]


def test_a_complete_call_stays_open_until_something_else_begins() -> None:
    parts = Parts("s")
    parts.call(0, "x", "f", "{}")
    assert PartEnded() not in take(parts)
    parts.text("\n")
    assert take(parts) == []
    parts.text("a")
    assert take(parts) == [PartEnded(), PartStarted("text"), Delta("\na")]


def test_what_begins_within_a_call_waits_and_is_played_back_in_order() -> None:
    parts = Parts("s")
    parts.call(0, "x", "f", '{"a":')
    take(parts)
    parts.text("T")
    parts.call(1, "y", "g", '{"b":')
    parts.reasoning("R")
    parts.call(1, "", "", "2}")
    assert take(parts) == []
    parts.call(0, "", "", "1}")
    events = take(parts)
    assert [type(event) for event in events[:2]] == [Delta, PartEnded]
    parts.finish(STOP, None)
    check([Started(), PartStarted("call", "x", "f"), *events, *take(parts)])


def test_text_for_a_call_that_has_ended_is_dropped_and_noted() -> None:
    parts, result = of_calls((0, "x", "f", "{}"), (1, "y", "g", "{}"), (0, "", "", "more"), (0, "", "", " \n"))
    assert result == [("call", "f", "{}"), ("call", "g", "{}")]
    assert parts.notes == [Note("drop", "late_arguments")]


def test_white_space_after_the_arguments_is_no_argument() -> None:
    parts, result = of_calls((0, "x", "f", "{} \n"), (0, "", "", "\n"))
    assert result == [("call", "f", "{}")]
    assert parts.notes == []


# ----------------------------------------------------------------------------------------------------------- ids, names


def test_an_id_is_kept_when_it_is_new_to_the_conversation() -> None:
    history = Message("assistant", (ToolCall("old", "f", "{}"),))
    parts = Parts.of(Request(id="s", model="m", messages=(history,)))
    for index, id in enumerate(["new", "old", "new", "", "call_s02"]):
        parts.call(index, id, "f", "{}")
    ids = [part.id for part in fold(end(parts)).parts if isinstance(part, ToolCall)]
    assert ids == ["new", "call_s01", "call_s02", "call_s03", "call_s04"]
    assert parts.notes == [Note("repair", "call_id")] * 3


@pytest.mark.parametrize("index", [0, None])
def test_a_replaced_id_still_identifies_the_call(index: int | None) -> None:
    deltas = [(index, "old", "f", '{"a"'), (index, "old", "f", ":1"), (index, "old", "f", "}"), (index, "old", "f", "")]
    assert calls(*deltas, taken=["old"]) == [("call", "f", '{"a":1}')]


@pytest.mark.parametrize("written", ["List_Files", " list_files ", "functions.list_files", "LIST_FILES"])
def test_a_name_comes_out_as_it_was_declared(written: str) -> None:
    # with the name in every delta, as trtllm-serve does it for a named choice
    parts, result = of_calls((0, "", written, '{"a"'), (0, "", written, ":1}"), names=["list_files"])
    assert result == [("call", "list_files", '{"a":1}')]
    assert parts.notes == [Note("repair", "tool_name")]


def test_an_exact_name_wins_over_one_in_another_case() -> None:
    assert calls((0, "x", "F", "{}"), (1, "y", "f", "{}"), names=["f", "F"]) == [
        ("call", "F", "{}"),
        ("call", "f", "{}"),
    ]


def test_an_undeclared_name_passes_as_it_is() -> None:
    assert calls((0, "x", "g", "{}"), names=["f"]) == [("call", "g", "{}")]


@pytest.mark.parametrize("pieces", [("get_", "weather"), ("get_", "wea", "ther"), ("get_", "get_wea", "get_weather")])
def test_a_name_in_pieces(pieces: tuple[str, ...]) -> None:
    deltas = [(0, "x" if piece is pieces[0] else "", piece) for piece in pieces]
    assert calls(*deltas, (0, "", "", "{}"), names=["get_weather", "get"]) == [("call", "get_weather", "{}")]


def test_two_names_that_could_be_one_are_two_when_both_are_declared() -> None:
    assert calls((0, "", "a"), (0, "", "b"), names=["a", "b", "ab"]) == [("call", "a", "{}"), ("call", "b", "{}")]


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
    parts = Parts("s")
    parts.text("a")
    parts.call(0, "", "", "")
    parts.text("b")
    assert take(parts) == [Started(), PartStarted("text"), Delta("a"), Delta("b")]


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
    parts = Parts("s")
    parts.call(0, "x", "f", '{"a')
    parts.call(0, "x", "f", F)
    parts.call(1, "y", "g", '{"b":')
    take(parts)
    parts.call(1, "y", "g", G)
    assert take(parts) == [Delta("2}")]


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
    parts = Parts("s")
    parts.call(None, "", "f", F, whole=True)
    parts.call(None, "", "f", G, whole=True)
    parts.call(None, "", "f", G, whole=True)
    assert plain(end(parts)) == [("call", "f", F), ("call", "f", G)]


def test_the_arguments_are_not_joined_for_each_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts("s")
    parts.call(0, "x", "f", '{"a": "')
    with monkeypatch.context() as patch:
        patch.setattr(_Call, "arguments", property(lambda _: pytest.fail("joined")))
        for _ in range(100):
            parts.call(0, "x", "f", "x" * 5)
    parts.call(0, "x", "f", '"}')
    assert plain(end(parts)) == [("call", "f", '{"a": "' + "x" * 500 + '"}')]


# -------------------------------------------------------------------------------------------------------------- the end


def cut_parts(parts: Parts, reason: StopReason) -> tuple[list[tuple[str, ...]], set[int]]:
    events = end(parts, reason)
    return plain(events), fold(events).cut


@pytest.mark.parametrize("reason", [LENGTH, FILTER])
def test_a_limit_cuts_the_last_part(reason: StopReason) -> None:
    parts = Parts("s")
    parts.reasoning("hm")
    parts.text("He")
    assert cut_parts(parts, reason) == ([("reasoning", "hm"), ("text", "He")], {1})


def test_a_limit_cuts_each_call_that_is_not_complete_and_no_other() -> None:
    parts = Parts("s")
    parts.text("a")
    parts.call(0, "x", "f", '{"a":')
    parts.call(1, "y", "g", G)
    parts.call(2, "z", "h", "{")
    assert cut_parts(parts, LENGTH)[1] == {1, 3}


def test_a_limit_right_after_a_complete_call_cuts_no_part() -> None:
    parts = Parts("s")
    parts.call(0, "x", "f", F)
    assert cut_parts(parts, LENGTH) == ([("call", "f", F)], set())


def test_a_limit_before_the_arguments_invents_none() -> None:
    parts = Parts("s")
    parts.call(0, "x", "f")
    assert cut_parts(parts, LENGTH) == ([("call", "f", "")], {0})


@pytest.mark.parametrize("arguments", ['{"a":', "[1]", "text", "{,}"])
def test_arguments_that_are_no_object_pass_as_they_are_and_are_noted(arguments: str) -> None:
    parts, result = of_calls((0, "x", "f", arguments))
    assert result == [("call", "f", arguments)]
    assert (Note("answer", "invalid_arguments") in parts.notes) is (arguments not in ("[1]", "{,}"))


def test_an_abort_plays_back_what_is_whole_and_leaves_the_rest_open() -> None:
    parts = Parts("s")
    parts.text("a")
    parts.call(0, "x", "f", F)
    parts.call(1, "y", "g", '{"b":')
    parts.call(2, "z", "h", "{}")
    parts.abort()
    events = take(parts)
    check(events, ended=False)
    assert fold(events).parts[1:] == [ToolCall("x", "f", F)]
    assert events[-2:] == [PartStarted("call", "y", "g"), Delta('{"b":')]
    assert parts.notes == [Note("drop", "after_break")]


def test_an_abort_before_anything_says_nothing() -> None:
    parts = Parts("s")
    parts.text(" ")
    parts.abort()
    assert take(parts) == []


def test_an_abort_opens_what_was_only_announced() -> None:
    parts = Parts("s")
    parts.call(0, "x", "f")
    parts.text("a")
    parts.abort()
    assert take(parts) == [Started(), PartStarted("call", "x", "f")]


def test_an_abort_that_completes_a_call_plays_back_what_waited_for_it() -> None:
    parts = Parts("s")
    parts.call(0, "x", "f", '{"a":')
    parts.call(0, "x", "f", F)
    parts.text("a")
    take(parts)
    parts.abort()
    assert take(parts) == [Delta("1}"), PartEnded(True), PartStarted("text"), Delta("a")]


@pytest.mark.parametrize("first", [("a", ""), ("a", '{"n": 0}'), ("", '{"n": 0}')])
def test_an_abort_ends_before_a_call_whose_name_had_yet_to_come(first: tuple[str, str]) -> None:
    parts = Parts("s")
    parts.text("Hi")
    parts.call(0, first[0], "", first[1])
    parts.call(1, "b", "g", '{"n": 1}')
    parts.abort()
    assert plain(take(parts)) == [("text", "Hi")]
    assert parts.notes == [Note("drop", "after_break")]


def test_an_abort_releases_a_snapshot_that_was_held() -> None:
    parts = Parts("s")
    parts.call(0, "x", "f", '{"a":')
    parts.call(0, "x", "f", F)
    parts.abort()
    events = take(parts)
    assert "".join(event.text for event in events if isinstance(event, Delta)) == F


def test_tools_and_ids_of_the_request_are_known() -> None:
    tool = Tool("list_files", "", {"type": "object"})
    parts = Parts.of(Request(id="s", model="m", messages=(), tools=(tool,)))
    parts.call(0, "", "LIST_FILES", "{}")
    assert fold(end(parts)).parts == [ToolCall("call_s01", "list_files", "{}")]
