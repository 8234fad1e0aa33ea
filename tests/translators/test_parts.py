"""Part boundaries: one test for each rule."""

from collections.abc import Callable

import pytest

from dragoman.translators.call_part import CallPart
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Delta,
    Deltas,
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
from dragoman.translators.parts import MAX_CALLS, MAX_NOTES, MAX_PARTS, PIECE, Parts
from tests.event_grammar import check, fold, plain

STOP, LENGTH, FILTER = StopReason.STOP, StopReason.LENGTH, StopReason.CONTENT_FILTER


def call(parts: Parts, id: str, name: str, *pieces: str) -> CallPart:
    begun = parts.begin_call(id, name)
    for piece in pieces:
        parts.extend_call(begun, piece)
    return begun


def repeated(times: int, step: Callable[[], object]) -> None:
    for _ in range(times):
        step()


def end(parts: Parts, reason: StopReason = STOP) -> list[Event]:
    parts.finish(reason, None)
    events = parts.take()
    check(events)
    return events


# ----------------------------------------------------------------------------------------------------------------- text


def test_text_leaves_in_the_call_in_which_it_came() -> None:
    parts = Parts("s")
    parts.text("Hel")
    assert parts.take() == [Started(), PartStarted("text"), Delta("Hel")]
    parts.text("lo")
    assert parts.take() == [Delta("lo")]
    parts.text(" ")
    assert parts.take() == [Delta(" ")]
    parts.finish(STOP, Usage(1, 2), "###")
    assert parts.take() == [PartEnded(), Finished(STOP, Usage(1, 2), "###")]


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
    parts.take()
    parts.text("a")
    assert parts.take() == [PartEnded(), PartStarted("text"), Delta("a")]


def test_blank_text_precedes_the_next_text() -> None:
    parts = Parts("s")
    parts.text("\n")
    parts.text(" ")
    assert parts.take() == []
    parts.text("a")
    assert parts.take() == [Started(), PartStarted("text"), Delta("\n a")]


@pytest.mark.parametrize("kind", ["text", "reasoning", "refusal"])
def test_blank_text_vanishes_beside_a_call(kind: str) -> None:
    parts = Parts("s")
    getattr(parts, kind)("\n")
    begun = call(parts, "x", "f", '{"a":')
    getattr(parts, kind)(" \n")
    parts.extend_call(begun, "1}")
    getattr(parts, kind)(" \n")
    assert plain(end(parts)) == [("call", "f", '{"a":1}')]


def test_blank_text_before_a_call_is_not_that_of_the_words_after_it() -> None:
    parts = Parts("s")
    parts.text("\n\n")
    call(parts, "x", "f", "{}")
    parts.text("done")
    assert plain(end(parts)) == [("call", "f", "{}"), ("text", "done")]


def test_blank_text_after_a_call_belongs_to_the_words_that_follow() -> None:
    parts = Parts("s")
    call(parts, "x", "f", "{}")
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
    assert parts.take() == [Started(), PartStarted("text"), Delta("\na", [*one, *two]), Delta("b", one)]


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
    begun = parts.begin_call("x")
    parts.extend_call(begun, "", name="f")
    parts.extend_call(begun, " ")
    assert parts.take() == []
    parts.extend_call(begun, "{")
    assert parts.take() == [Started(), PartStarted("call", "x", "f"), Delta(" {")]
    parts.extend_call(begun, "}")
    assert parts.take() == [Delta("}")]


def test_a_name_may_come_after_the_arguments() -> None:
    parts = Parts("s")
    begun = call(parts, "", "", '{"a"')
    parts.extend_call(begun, ":1}", id="x", name="f")
    assert parts.take() == [Started(), PartStarted("call", "x", "f"), Delta('{"a":1}')]


def test_a_call_without_arguments_is_announced_when_it_is_said_to_end() -> None:
    parts = Parts("s")
    parts.end_call(parts.begin_call("x", "f"))
    assert parts.take() == [Started(), PartStarted("call", "x", "f"), Delta("{}")]


def test_the_end_of_a_call_adds_nothing_to_its_arguments() -> None:
    parts = Parts("s")
    parts.end_call(call(parts, "x", "f", '{"a":1}'))
    assert plain(end(parts)) == [("call", "f", '{"a":1}')]


def test_a_call_without_arguments_is_announced_at_its_end() -> None:
    parts = Parts("s")
    call(parts, "x", "f")
    assert parts.take() == []
    assert end(parts) == [Started(), PartStarted("call", "x", "f"), Delta("{}"), PartEnded(), Finished(STOP)]


def test_a_complete_call_stays_open_until_something_else_begins() -> None:
    parts = Parts("s")
    call(parts, "x", "f", "{}")
    assert PartEnded() not in parts.take()
    parts.text("\n")
    assert parts.take() == []
    parts.text("a")
    assert parts.take() == [PartEnded(), PartStarted("text"), Delta("\na")]


def test_what_begins_within_a_call_waits_and_is_played_back_in_order() -> None:
    parts = Parts("s")
    first = call(parts, "x", "f", '{"a":')
    parts.take()
    parts.text("T")
    second = call(parts, "y", "g", '{"b":')
    parts.reasoning("R")
    parts.extend_call(second, "2}")
    assert parts.take() == []
    parts.extend_call(first, "1}")
    events = parts.take()
    assert [type(event) for event in events[:2]] == [Delta, PartEnded]
    parts.finish(STOP, None)
    check([Started(), PartStarted("call", "x", "f"), *events, *parts.take()])


def test_arguments_that_repeat_all_before_them_are_arguments() -> None:
    parts = Parts("s")
    call(parts, "x", "f", '{"a":', '{"a":', "1}}")
    assert plain(end(parts)) == [("call", "f", '{"a":{"a":1}}')]


def test_text_for_a_call_that_has_ended_is_dropped_and_noted() -> None:
    parts = Parts("s")
    first = call(parts, "x", "f", "{}")
    call(parts, "y", "g", "{}")
    parts.extend_call(first, "more")
    parts.extend_call(first, " \n")
    assert plain(end(parts)) == [("call", "f", "{}"), ("call", "g", "{}")]
    assert parts.notes == [Note("drop", "late_arguments")]


def test_white_space_after_the_arguments_is_no_argument() -> None:
    parts = Parts("s")
    call(parts, "x", "f", "{} \n", "\n")
    assert plain(end(parts)) == [("call", "f", "{}")]
    assert parts.notes == []


def test_what_was_no_call_is_text_in_its_place() -> None:
    parts = Parts("s")
    parts.text("a")
    first = call(parts, "", "", '{"a":1}')
    second = parts.begin_call("x")
    parts.reasoning("R")
    parts.settle({first: "!"}, [first, second])
    assert plain(end(parts)) == [("text", "a"), ("text", '{"a":1}'), ("reasoning", "R")]
    assert parts.notes == [Note("drop", "late_arguments")]


def test_a_rest_that_was_held_belongs_to_its_call() -> None:
    parts = Parts("s")
    first = call(parts, "x", "f", '{"a":')
    parts.text("T")
    parts.settle({first: "1}"}, ())
    assert plain(end(parts)) == [("call", "f", '{"a":1}'), ("text", "T")]


# ----------------------------------------------------------------------------------------------------------- ids, names


def test_an_id_is_kept_when_it_is_new_to_the_conversation() -> None:
    history = Message("assistant", (ToolCall("old", "f", "{}"),))
    parts = Parts.of(Request(id="s", model="m", messages=(history,)))
    for id in ["new", "old", "new", "", "call_s02"]:
        call(parts, id, "f", "{}")
    ids = [part.id for part in fold(end(parts)).parts if isinstance(part, ToolCall)]
    assert ids == ["new", "call_s01", "call_s02", "call_s03", "call_s04"]
    assert parts.notes == [Note("repair", "call_id")] * 3


@pytest.mark.parametrize(
    "written",
    [
        "List_Files",
        " list_files ",
        "functions.list_files",
        "default_api.list_files",
        "list_files.list_files",
        "LIST_FILES",
        "list_files</arg_value>",
    ],
)
def test_a_name_comes_out_as_it_was_declared(written: str) -> None:
    parts = Parts("s", names=["list_files"])
    call(parts, "", written, "{}")
    assert plain(end(parts)) == [("call", "list_files", "{}")]
    assert parts.notes == [Note("repair", "tool_name")]


def test_an_exact_name_wins_over_one_in_another_case() -> None:
    parts = Parts("s", names=["f", "F"])
    for name in ("F", "f"):
        call(parts, "", name, "{}")
    assert plain(end(parts)) == [("call", "F", "{}"), ("call", "f", "{}")]


def test_an_undeclared_name_passes_as_it_is() -> None:
    parts = Parts("s", names=["f"])
    call(parts, "x", "g", "{}")
    assert plain(end(parts)) == [("call", "g", "{}")]


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
    call(parts, "x", "f", '{"a":')
    call(parts, "y", "g", '{"b":2}')
    call(parts, "z", "h", "{")
    assert cut_parts(parts, LENGTH)[1] == {1, 3}


def test_a_limit_right_after_a_complete_call_cuts_no_part() -> None:
    parts = Parts("s")
    call(parts, "x", "f", '{"a":1}')
    assert cut_parts(parts, LENGTH) == ([("call", "f", '{"a":1}')], set())


def test_a_limit_before_the_arguments_invents_none() -> None:
    parts = Parts("s")
    call(parts, "x", "f")
    assert cut_parts(parts, LENGTH) == ([("call", "f", "")], {0})


@pytest.mark.parametrize("arguments", ['{"a":', "[1]", "text", "{,}"])
def test_arguments_that_are_no_object_pass_as_they_are_and_are_noted(arguments: str) -> None:
    parts = Parts("s")
    call(parts, "x", "f", arguments)
    assert plain(end(parts)) == [("call", "f", arguments)]
    assert (Note("answer", "invalid_arguments") in parts.notes) is (arguments not in ("[1]", "{,}"))


def test_an_abort_plays_back_what_is_whole_and_leaves_the_rest_open() -> None:
    parts = Parts("s")
    parts.text("a")
    call(parts, "x", "f", '{"a":1}')
    call(parts, "y", "g", '{"b":')
    call(parts, "z", "h", "{}")
    parts.abort()
    events = parts.take()
    check(events, ended=False)
    assert fold(events).parts[1:] == [ToolCall("x", "f", '{"a":1}')]
    assert events[-2:] == [PartStarted("call", "y", "g"), Delta('{"b":')]
    assert parts.notes == [Note("drop", "after_break")]


def test_an_abort_before_anything_says_nothing() -> None:
    parts = Parts("s")
    parts.text(" ")
    parts.abort()
    assert parts.take() == []


def test_an_abort_opens_what_was_only_announced() -> None:
    parts = Parts("s")
    call(parts, "x", "f")
    parts.text("a")
    parts.abort()
    assert parts.take() == [Started(), PartStarted("call", "x", "f")]


def test_tools_and_ids_of_the_request_are_known() -> None:
    tool = Tool("list_files", "", {"type": "object"})
    parts = Parts.of(Request(id="s", model="m", messages=(), tools=(tool,)))
    call(parts, "", "LIST_FILES", "{}")
    assert fold(end(parts)).parts == [ToolCall("call_s01", "list_files", "{}")]


def test_an_abort_ends_before_a_call_without_a_name() -> None:
    parts = Parts("s")
    parts.text("Hi")
    call(parts, "a", "", '{"n": 0}')
    call(parts, "b", "g", '{"n": 1}')
    parts.abort()
    assert plain(parts.take()) == [("text", "Hi")]
    assert parts.notes == [Note("drop", "after_break")]


# --------------------------------------------------------------------------------------------------------------- bounds


def test_an_answer_is_bounded_in_bytes() -> None:
    parts = Parts("s", limit=1000)
    with pytest.raises(GatewayError) as caught:
        repeated(100, lambda: parts.text("é" * 34))
    assert caught.value.kind is Kind.BACKEND_FAILED
    assert not caught.value.certain  # the server is not to blame
    assert sum(len(event.text.encode()) for event in parts.take() if isinstance(event, Delta)) == 10 * 68
    assert parts.notes == [Note("answer", "too_large")]
    parts.text("rest")  # that the decoder still held
    parts.abort()
    assert parts.take() == [Delta("rest")]


MORE: dict[str, Callable[[Parts, CallPart], object]] = {
    "text": lambda parts, first: parts.text(""),
    "reasoning": lambda parts, first: parts.reasoning(" "),
    "refusal": lambda parts, first: parts.refusal("x"),
    "logprobs": lambda parts, first: parts.text("a", [{"token": "a", "top_logprobs": [{"token": "b"}] * 20}]),
    "ids": lambda parts, first: call(parts, "x" * 10_000, "f"),
    "arguments": lambda parts, first: parts.extend_call(first, " "),
}


@pytest.mark.parametrize("kind", MORE)
@pytest.mark.parametrize("begun", ["[", "{}"])  # the rest waits for its end; it comes too late
def test_whatever_an_answer_is_made_of_is_bounded(kind: str, begun: str) -> None:
    parts = Parts("s", limit=100_000)
    first = call(parts, "a", "f", begun)
    with pytest.raises(GatewayError):
        repeated(100_000 // PIECE + 1, lambda: MORE[kind](parts, first))


@pytest.mark.parametrize("named", [True, False])
def test_calls_are_bounded_in_number(named: bool) -> None:
    parts = Parts("s")
    for _ in range(MAX_CALLS):
        call(parts, "", "f" if named else "", "{}")
    with pytest.raises(GatewayError) as caught:
        parts.begin_call("", "f")
    assert str(MAX_CALLS) in caught.value.message


def test_parts_are_bounded_in_number() -> None:
    parts = Parts("s")
    for _ in range(MAX_PARTS // 2):
        parts.reasoning("a")
        parts.text("b")
    with pytest.raises(GatewayError):
        parts.reasoning("a")


def test_many_notes_are_counted() -> None:
    parts = Parts("s")
    for _ in range(MAX_NOTES + 7):
        parts.note("drop", "content_part")
    assert len(parts.notes) == MAX_NOTES + 1
    assert sum(note.count for note in parts.notes) == MAX_NOTES + 7


# ------------------------------------------------------------------------- where a server completes calls that were cut


def holding() -> Parts:
    parts = Parts("s")
    parts.holds_closing = True
    return parts


def test_the_last_bracket_of_a_call_leaves_with_its_end() -> None:
    parts = holding()
    call(parts, "x", "f", '{"a": ', '{"b": 1}}\n')
    assert parts.take() == [Started(), PartStarted("call", "x", "f"), Delta('{"a": '), Delta('{"b": 1}')]
    parts.finish(STOP, None)
    assert parts.take() == [Delta("}"), PartEnded(), Finished(STOP, None)]


def test_something_else_ends_it_too() -> None:
    parts = holding()
    call(parts, "x", "f", "{}")
    parts.text("a")
    assert plain(end(parts, LENGTH)) == [("call", "f", "{}"), ("text", "a")]


@pytest.mark.parametrize("written", ["{}", '{"a": 1}', '{"a": {}}', "[{}]"])
def test_a_call_that_was_cut_never_reads_as_a_whole_one(written: str) -> None:
    parts = holding()
    call(parts, "x", "f", written)
    parts.finish(LENGTH, None, in_call=True)
    assert parts.take()[2:] == [Delta(written[:-1]), PartEnded(False), Finished(LENGTH, None)]


def test_pieces_that_come_together_stay_so_until_the_bracket_comes() -> None:
    parts = holding()
    begun = call(parts, "x", "f", '{"a"')
    parts.take()
    assert parts.extend_open(begun, Deltas((":", "1"), ":1")) == ()
    assert parts.extend_open(begun, Deltas(("2", "3}", "\n"), "23}\n")) == ("\n",)
    assert parts.take() == [Deltas((":", "1"), ":1"), Delta("2"), Delta("3")]
    parts.finish(STOP, None)
    assert parts.take() == [Delta("}"), PartEnded(), Finished(STOP, None)]


def test_a_call_that_is_whole_where_the_answer_breaks_off_keeps_its_bracket() -> None:
    """No server completes what it breaks off."""
    parts = holding()
    call(parts, "x", "f", "{}")
    parts.abort()
    assert parts.take() == [Started(), PartStarted("call", "x", "f"), Delta("{"), Delta("}")]


def test_what_was_no_call_keeps_its_bracket_as_text() -> None:
    parts = holding()
    nameless = call(parts, "x", "", "{}")
    parts.settle({}, [nameless])
    assert plain(end(parts)) == [("text", "{}")]
