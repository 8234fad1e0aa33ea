"""What `translators.history` repairs, one case each, and what must hold for any conversation at all."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.history import MISSING_OUTPUT, object_text, repair
from dragoman.translators.ir import Image, Message, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from dragoman.translators.json_text import MOST_VALUES
from tests.counting_work import calls_of


def user(text: str = "hi") -> Message:
    return Message("user", (Text(text),))


def developer(text: str = "note") -> Message:
    return Message("developer", (Text(text),))


def said(*parts: Part) -> Message:
    return Message("assistant", parts)


def call(call_id: str, arguments: str = "{}", name: str = "f") -> ToolCall:
    return ToolCall(call_id, name, arguments)


def result(call_id: str, text: str = "done") -> Message:
    return Message("tool", (ToolResult(call_id, (Text(text),)),))


def kinds(messages: list[Message]) -> list[str]:
    """The names of the repairs, in order."""
    notes = repair(messages, strict=False)[1]
    assert all(note.kind == "repair" for note in notes)
    return [note.name for note in notes]


def repaired(messages: list[Message]) -> list[Message]:
    return list(repair(messages, strict=False)[0])


# ------------------------------------------------------------------------------------------------------- one turn


def test_reasoning_text_and_calls_become_one_assistant_turn() -> None:
    history = [
        user(),
        said(Reasoning("hm")),
        said(Text("I look.")),
        said(call("a")),
        said(call("b")),
        result("a"),
        result("b"),
    ]
    assert repaired(history) == [
        user(),
        said(Reasoning("hm"), Text("I look."), call("a"), call("b")),
        result("a"),
        result("b"),
    ]
    assert kinds(history) == []


def test_two_texts_of_one_turn_stay_apart() -> None:
    assert repaired([user(), said(Text("One.")), said(Text("Two."))]) == [user(), said(Text("One.\n\nTwo."))]


def test_parts_of_one_message_are_not_set_apart() -> None:
    assert repaired([said(Text("One "), Text("sentence."))]) == [said(Text("One "), Text("sentence."))]


def test_a_turn_ends_with_its_results() -> None:
    history = [user(), said(call("a")), result("a"), said(call("b")), result("b"), said(Text("Done."))]
    assert repaired(history) == history


def test_empty_assistant_text_vanishes() -> None:
    assert repaired([user(), said(Text("")), said(call("a")), result("a")]) == [user(), said(call("a")), result("a")]
    assert repaired([user(), said(Text("")), user("again")]) == [user(), user("again")]


def test_a_refusal_is_kept() -> None:
    assert repaired([user(), said(Refusal("No."))]) == [user(), said(Refusal("No."))]


def test_system_messages_stay_where_they_are() -> None:
    history = [Message("system", (Text("s"),)), user(), said(Text("a")), developer(), user("more")]
    assert repaired(history) == history


# -------------------------------------------------------------------------------------------------------- results


def test_results_follow_in_the_order_of_the_calls() -> None:
    history = [user(), said(call("a")), said(call("b")), said(call("c")), result("c"), result("a"), result("b")]
    assert repaired(history)[2:] == [result("a"), result("b"), result("c")]
    assert kinds(history) == ["reordered_output", "reordered_output"]


@pytest.mark.parametrize("between", [user("wait"), developer()])
def test_a_late_result_is_moved_up(between: Message) -> None:
    history = [user(), said(call("a")), between, result("a")]
    assert repaired(history) == [user(), said(call("a")), result("a"), between]
    assert kinds(history) == ["late_output"]


def test_a_system_message_between_two_calls_separates_turns_but_no_call_from_its_result() -> None:
    history = [user(), said(call("a")), developer(), said(call("b")), result("a"), result("b")]
    assert repaired(history) == [user(), said(call("a")), result("a"), developer(), said(call("b")), result("b")]


def test_a_missing_result_is_stated() -> None:
    history = [user(), said(call("a"), call("b")), result("b"), user("and?")]
    assert repaired(history) == [
        user(),
        said(call("a"), call("b")),
        result("a", MISSING_OUTPUT),
        result("b"),
        user("and?"),
    ]
    assert kinds(history) == ["missing_output"]


def test_an_orphan_result_becomes_labelled_user_text_with_its_images() -> None:
    image = Image("data:image/png;base64,AA==")
    orphan = Message("tool", (ToolResult("lost", (Text("one"), image, Text("two"))),))
    message = repaired([user(), orphan])[1]
    assert message.role == "user"
    text, kept = message.parts
    assert kept == image
    assert isinstance(text, Text)
    assert "lost" in text.text
    assert text.text.endswith("\none\ntwo")
    assert kinds([user(), orphan]) == ["orphan_output"]


def test_a_second_result_for_one_call_is_an_orphan() -> None:
    history = [user(), said(call("a")), result("a", "first"), result("a", "second")]
    assert repaired(history)[2] == result("a", "first")
    assert kinds(history) == ["orphan_output"]


def test_a_result_before_its_call_is_an_orphan() -> None:
    """Else an appended call would change what stands before it."""
    assert kinds([user(), result("a"), said(call("a"))]) == ["orphan_output", "missing_output"]


def test_the_error_mark_of_a_result_is_kept() -> None:
    failed = Message("tool", (ToolResult("a", (Text("no"),), is_error=True),))
    assert repaired([said(call("a")), failed])[1] == failed


# ------------------------------------------------------------------------------------------------------------- ids


def test_duplicate_ids_over_turns_pair_with_the_nearest_call_and_become_unique() -> None:
    history = [user(), said(call("x")), result("x", "1"), user(), said(call("x")), result("x", "2"), user()]
    assert repaired(history) == [
        user(),
        said(call("x")),
        result("x", "1"),
        user(),
        said(call("x_2")),
        result("x_2", "2"),
        user(),
    ]
    assert kinds(history) == ["duplicate_call_id"]


def test_the_nearest_unanswered_call_wins() -> None:
    history = [user(), said(call("x", '{"n":1}')), user(), said(call("x", '{"n":2}')), result("x", "2")]
    out = repaired(history)
    assert out[2] == result("x", MISSING_OUTPUT)
    assert out[5] == result("x_2", "2")


def test_duplicate_ids_in_one_turn_are_answered_in_call_order() -> None:
    history = [user(), said(call("x")), said(call("x")), result("x", "1"), result("x", "2")]
    assert repaired(history)[2:] == [result("x", "1"), result("x_2", "2")]


def test_a_made_id_never_meets_one_that_is_there() -> None:
    history = [said(call("x"), call("x_2"), call("x")), result("x_2", "b"), result("x", "a"), result("x", "c")]
    out = repaired(history)
    assert out[0] == said(call("x"), call("x_2"), call("x_3"))
    assert out[1:] == [result("x", "a"), result("x_2", "b"), result("x_3", "c")]


# ------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("arguments", ['{"a": 1}', "{}", ' {"a": "ü"}\n'])
def test_object_arguments_are_not_touched(arguments: str) -> None:
    assert object_text(arguments) == (arguments, False)


@pytest.mark.parametrize("arguments", ["", "  \n"])
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    assert object_text(arguments) == ("{}", False)


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", '"text"', "null", "NaN", "ls -l", '{"a": NaN}'])
def test_other_arguments_are_wrapped(arguments: str) -> None:
    wrapped, changed = object_text(arguments)
    assert changed
    assert json.loads(wrapped) == {"arguments": arguments}
    assert kinds([said(call("a", arguments)), result("a")]) == ["bad_arguments"]


# ---------------------------------------------------------------------------------------------------------- strict


def test_strict_refuses_an_orphan_in_openais_words() -> None:
    with pytest.raises(GatewayError) as caught:
        repair([user(), result("call_9")], strict=True)
    assert caught.value.kind is Kind.INVALID
    assert caught.value.param == "input"
    assert caught.value.message == "No tool call found for function call output with call_id call_9."


def test_strict_refuses_a_call_without_a_result() -> None:
    with pytest.raises(GatewayError, match="No tool output found for function call a") as caught:
        repair([user(), said(call("a")), user()], strict=True)
    assert caught.value.param == "input"


def test_strict_still_merges_and_orders() -> None:
    messages, _ = repair([user(), said(call("a")), said(call("b")), result("b"), result("a")], strict=True)
    assert list(messages) == [user(), said(call("a"), call("b")), result("a"), result("b")]


# ------------------------------------------------------------------------------------------------------ properties

IDS = st.sampled_from(["a", "b", "a_2", "b_2_2"])
TEXTS = st.sampled_from(["", "x", "yy", "\n"])
PARTS = st.one_of(
    st.builds(Text, TEXTS),
    st.builds(Reasoning, TEXTS),
    st.builds(Refusal, TEXTS),
    st.builds(ToolCall, IDS, st.just("f"), st.sampled_from(["{}", "", '{"a":1}', "[", "1"])),
)
MESSAGES = st.one_of(
    st.builds(lambda text: user(text), TEXTS),
    st.builds(lambda text: developer(text), TEXTS),
    st.builds(lambda parts: Message("assistant", tuple(parts)), st.lists(PARTS, max_size=4)),
    st.builds(result, IDS, TEXTS),
)
CONVERSATIONS = st.lists(MESSAGES, max_size=14)


def check_valid(messages: list[Message]) -> None:
    """The form that every chat template accepts, said independently of how it is reached."""
    seen: set[str] = set()
    owed: list[str] = []
    previous = None
    for message in messages:
        if message.role == "tool":
            (part,) = message.parts
            assert isinstance(part, ToolResult)
            assert owed.pop(0) == part.call_id
            previous = "tool"
            continue
        assert not owed, "a call is separated from its result"
        if message.role == "assistant":
            assert previous != "assistant"
            assert message.parts
            for part in message.parts:
                if isinstance(part, ToolCall):
                    assert part.id not in seen
                    assert isinstance(json.loads(part.arguments), dict)
                    seen.add(part.id)
                    owed.append(part.id)
        previous = message.role
    assert not owed


@given(CONVERSATIONS)
def test_any_conversation_becomes_valid(conversation: list[Message]) -> None:
    check_valid(repaired(conversation))


@given(CONVERSATIONS)
def test_repairing_twice_changes_nothing(conversation: list[Message]) -> None:
    once = repaired(conversation)
    assert repair(once, strict=True) == (tuple(once), ())


@given(CONVERSATIONS)
def test_repairing_is_deterministic(conversation: list[Message]) -> None:
    assert repair(conversation, strict=False) == repair(conversation, strict=False)


@given(CONVERSATIONS, CONVERSATIONS)
def test_a_complete_conversation_is_a_prefix_of_every_continuation(
    begun: list[Message], continued: list[Message]
) -> None:
    """Complete: every call has its answer, and it is the assistant's turn. The server's cached prefix stays valid."""
    answers = [result(part.id) for message in begun for part in message.parts if isinstance(part, ToolCall)]
    complete = [*begun, *answers, user("go on")]
    before = repaired(complete)
    assert repaired([*complete, *continued])[: len(before)] == before


@given(CONVERSATIONS)
def test_nothing_is_lost(conversation: list[Message]) -> None:
    """Every result and every non-empty text is somewhere in what the model sees."""
    told = " ".join(
        part.text
        for message in repaired(conversation)
        for shown in message.parts
        for part in (shown.content if isinstance(shown, ToolResult) else (shown,))
        if isinstance(part, Text | Reasoning | Refusal)
    )
    for message in conversation:
        for part in message.parts:
            texts = part.content if isinstance(part, ToolResult) else (part,)
            assert all(one.text in told for one in texts if isinstance(one, Text | Reasoning | Refusal))


@given(CONVERSATIONS)
def test_calls_and_results_are_counted_once(conversation: list[Message]) -> None:
    calls = sum(isinstance(part, ToolCall) for message in conversation for part in message.parts)
    out = repaired(conversation)
    assert sum(isinstance(part, ToolCall) for message in out for part in message.parts) == calls
    assert sum(message.role == "tool" for message in out) == calls


def test_long_histories_cost_what_they_are_long() -> None:
    """Servers that call every call `call_0` are common; so are sessions of thousands of calls."""
    count = 10_000
    calls = [said(call("call_0")) for _ in range(count)]
    results = [result("call_0", str(number)) for number in range(count)]
    texts = [said(Text("x")) for _ in range(count)]
    out = repaired(
        [user(), *calls, *results, *texts, user(), *(one for pair in zip(calls, results, strict=True) for one in pair)]
    )
    assert [message.parts[0] for message in out[2:5]] == [
        ToolResult("call_0", (Text("0"),)),
        ToolResult("call_0_2", (Text("1"),)),
        ToolResult("call_0_3", (Text("2"),)),
    ]
    assert len(out) == 1 + 1 + count + 1 + 1 + 2 * count


def test_the_values_in_the_arguments_of_all_calls_are_bounded_before_they_are_parsed() -> None:
    half = '{"a": [' + "[]," * (MOST_VALUES // 3) + "0]}"  # two values for each list
    repair([user(), said(call("a", half)), result("a")], strict=False)
    with pytest.raises(GatewayError, match="arguments of call 'b' and those before it hold too many") as caught:
        repair([user(), said(call("a", half), call("b", half), call("c"))], strict=False)
    assert caught.value.kind is Kind.INVALID


def test_code_in_arguments_is_no_value() -> None:
    code = json.dumps({"content": "a[0], " * MOST_VALUES})
    assert kinds([user(), said(call("a", code), call("b", code)), result("a"), result("b")]) == []


def tried(conversation: list[Message], strict: bool, kept: dict[Any, Any] | None) -> object:
    try:
        return repair(conversation, strict=strict, kept=kept)
    except GatewayError as error:
        return error.message


@given(CONVERSATIONS, CONVERSATIONS, st.booleans())
def test_a_conversation_that_goes_on_is_repaired_as_if_it_were_new(
    conversation: list[Message], other: list[Message], strict: bool
) -> None:
    """Turn by turn, from its middle into another one, and back."""
    kept: dict[Any, Any] = {}
    middle = len(conversation) // 2
    turns = [conversation[:count] for count in range(len(conversation) + 1)]
    turns += [conversation[:middle] + other[:count] for count in range(len(other) + 1)]
    for turn in [*turns, conversation]:
        assert tried(turn, strict, kept) == tried(turn, strict, None)
        assert tried([copy.deepcopy(each) for each in turn], not strict, kept) == tried(turn, not strict, None)


def test_what_was_repaired_before_is_not_looked_at_again() -> None:
    steps = [part for n in range(300) for part in (said(call(f"c{n}")), result(f"c{n}"))]
    kept: dict[Any, Any] = {}
    repair(steps, strict=False, kept=kept)
    longer = [*steps, said(call("new")), result("new")]
    assert len(repair(longer, strict=False, kept=kept)[0]) == 602
    assert 10 * calls_of(lambda: repair(longer, strict=False, kept=dict(kept))) < calls_of(
        lambda: repair(longer, strict=False)
    )
