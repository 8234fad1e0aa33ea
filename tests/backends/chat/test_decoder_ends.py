"""How the decoder of chat streams sees an answer end: the words for it, what comes after them, and the usage."""

import pytest

from dragoman.backends.chat.usage import read_usage
from dragoman.translators.constraints.parallel import FirstCallOnly
from dragoman.translators.errors import Kind
from dragoman.translators.ir import Event, Finished, Note, PartEnded, Sampling, StopReason, Usage
from tests.backends.chat.decoding import (
    CALL_F,
    DONE,
    END,
    FILTER,
    LENGTH,
    STOP,
    T3,
    F,
    broken,
    call,
    calls,
    chunk,
    decoder,
    frame,
    whole,
)
from tests.event_grammar import check, plain

# -------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("word", ["stop", "STOP", "tool_calls", "function_call", "eos", "eos_token", "stop_sequence"])
def test_words_for_a_whole_answer(word: str) -> None:
    assert whole(chunk(content="a"), chunk(word), DONE)[-1] == Finished(STOP)


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("timeout", Kind.TIMEOUT),
        ("cancelled", Kind.BACKEND_FAILED),
        ("abort", Kind.BACKEND_FAILED),
        ("error", Kind.BACKEND_FAILED),
        ("insufficient_system_resource", Kind.BUSY),
    ],
)
def test_words_for_a_broken_answer(word: str, kind: Kind) -> None:
    assert broken(chunk(content="a"), chunk(word), DONE)[1].kind is kind


@pytest.mark.parametrize("word", ["canceled", "aborted", "server_error", "malformed_function_call", "timed_out"])
def test_other_words_for_a_failure_are_known_by_what_is_in_them(word: str) -> None:
    assert broken(chunk(content="a"), chunk(word), DONE)[1].kind is Kind.BACKEND_FAILED


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("model_context_window_exceeded", LENGTH),
        ("max_output_tokens", LENGTH),
        ("token_limit", LENGTH),
        ("SAFETY", FILTER),
        ("recitation", FILTER),
        ("guardrail_intervened", FILTER),
    ],
)
def test_other_words_for_a_cut_answer_are_known_by_what_is_in_them(word: str, reason: StopReason) -> None:
    assert whole(chunk(content="a"), chunk(word), DONE)[-1] == Finished(reason)


@pytest.mark.parametrize("word", ["null", "None"])
def test_a_word_for_no_finish_reason_is_none(word: str) -> None:
    events = whole(chunk(word, content="a"), chunk(word, content="b"), chunk("length"), DONE)
    assert plain(events) == [("text", "ab")]
    assert events[-1] == Finished(LENGTH)
    assert broken(chunk(word, content="a"), DONE)[1].kind is Kind.BACKEND_FAILED


@pytest.mark.parametrize("completion", [0, None])
def test_a_limit_reached_before_the_first_token_is_an_overflow(completion: int | None) -> None:
    usage = {"prompt_tokens": 9351, "completion_tokens": completion, "total_tokens": 9351}
    counts = frame({"choices": [], "usage": usage})
    _, error = broken(chunk(role="assistant", content=""), chunk("length"), counts, DONE)
    assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, 9351, None)
    assert whole(chunk("length"), DONE)[-1] == Finished(LENGTH)  # nothing was counted


def test_a_word_that_nobody_knows_is_noted() -> None:
    machine = decoder()
    machine.feed(chunk("whatever", content="a"))
    assert machine.finish()[-1] == Finished(STOP)
    assert machine.notes == [Note("answer", "unknown_finish_reason")]


def test_the_first_finish_reason_counts() -> None:
    assert whole(chunk(content="a"), chunk("length"), chunk("stop"), DONE)[-1] == Finished(LENGTH)


def test_calls_are_known_by_the_calls_and_not_by_the_finish_reason() -> None:
    assert plain(whole(chunk(content="a", tool_calls=[]), chunk("tool_calls"), DONE)) == [("text", "a")]
    assert plain(whole(calls(call(F, "f")), chunk("stop"), DONE)) == [CALL_F]


def test_a_delta_after_the_finish_reason_counts() -> None:
    assert plain(whole(chunk("stop", content="a"), chunk(content="b"), DONE)) == [("text", "ab")]


def test_usage_is_awaited_after_the_finish_reason() -> None:
    machine = decoder()
    machine.feed(chunk("stop", content="a"))
    assert machine.stopping
    assert machine.feed(frame({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})) == []
    assert machine.stopping
    assert machine.feed(DONE) == [PartEnded(), Finished(STOP, Usage(3, 1))]
    assert machine.done
    assert not machine.stopping
    assert machine.feed(chunk(content="b")) == []
    assert machine.finish() == []


def test_an_answer_ends_without_done() -> None:
    machine = decoder()
    machine.feed(chunk("stop", content="a"))
    assert machine.finish() == [PartEnded(), Finished(STOP)]
    assert machine.finish() == []
    assert not machine.done


@pytest.mark.parametrize("torn", [b'data: {"choices":[],"usa', frame({"error": "shutting down"}), b"data: {]\n\n"])
def test_what_breaks_after_the_finish_reason_breaks_no_whole_answer(torn: bytes) -> None:
    machine = decoder()
    events = machine.feed(chunk(content="a") + chunk("stop") + torn) + machine.finish()
    check(events)
    assert events[-1] == Finished(STOP)
    assert machine.notes == [Note("answer", "error_after_finish")]


@pytest.mark.parametrize("key", ["stop_reason", "matched_stop"])
@pytest.mark.parametrize(("matched", "told"), [("###", "###"), ("other", None), (128009, None), (None, None)])
def test_the_stop_string_that_matched(key: str, matched: object, told: str | None) -> None:
    last = frame({"choices": [{"delta": {}, "finish_reason": "stop", key: matched}]})
    events = whole(chunk(content="a"), last, DONE, sampling=Sampling(stop=("###",)))
    assert events[-1] == Finished(STOP, None, told)


def test_the_receiver_has_had_enough() -> None:
    machine = decoder()
    machine.feed(chunk(content="a") + frame({"usage": {"prompt_tokens": 3, "completion_tokens": 1}}))
    assert machine.stop() == [Finished(STOP, Usage(3, 1))]
    assert machine.feed(chunk(content="b") + END) == []
    assert machine.finish() == []
    assert machine.abort() == []
    assert machine.stop() == []


def test_enough_ends_the_answer_of_the_first_call() -> None:
    machine, stage, kept = decoder(), FirstCallOnly(), list[Event]()
    for data in [chunk(content="a"), *T3]:
        kept += stage.feed(machine.feed(data))
        if stage.enough:
            kept += stage.feed(machine.stop())
            break
    check(kept)
    assert plain(kept) == [("text", "a"), CALL_F]
    assert not machine.done


# ---------------------------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 1}, Usage(3, 1)),
        ({"prompt_tokens": 3.0, "completion_tokens": None}, Usage(3, 0)),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": None}, Usage(3, 1)),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}, Usage(3, 1, 2)),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(3, 1, 3)),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": None}}, Usage(3, 1)),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_cache_hit_tokens": 0}, Usage(3, 1, 0)),
        (
            {"prompt_tokens": 3, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 2}},
            Usage(3, 4, None, 2),
        ),
        ({"prompt_tokens": 3, "completion_tokens": 1, "cached_tokens": 2}, Usage(3, 1, 2)),  # Moonshot
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cache_write_tokens": 2}},
            Usage(9, 1, written=2),
        ),
        (  # vLLM
            {
                "prompt_tokens": 9,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 4, "created_cache_tokens": 5},
            },
            Usage(9, 1, 4, written=5),
        ),
        (  # LiteLLM
            {
                "prompt_tokens": 9,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": None},
                "cache_creation_input_tokens": 3,
                "cache_read_input_tokens": 4,
            },
            Usage(9, 1, 4, written=3),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 6, "cache_creation_tokens": 6},
            },
            Usage(9, 1, 6, written=3),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),  # what servers send that did not count
        ({"prompt_tokens": None, "completion_tokens": 1}, None),
        ({}, None),
        ([], None),
        ("3", None),
        ({"prompt_tokens": "3"}, Usage(3, 0)),
        ({"prompt_tokens": "0", "completion_tokens": 0.0}, None),
        ({"prompt_tokens": float("nan")}, None),
        ({"prompt_tokens": float("inf")}, None),
        ({"prompt_tokens": 3, "completion_tokens": []}, None),
        ({"prompt_tokens": 3, "completion_tokens": True}, None),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": -1}}, Usage(3, 1)),
        ({"prompt_tokens": 3, "completion_tokens": 1, "completion_tokens_details": [2]}, Usage(3, 1)),
        ({"prompt_tokens": 3, "completion_tokens": "many"}, None),
        ({"prompt_tokens": 3, "prompt_tokens_details": "x"}, Usage(3, 0)),
    ],
)
def test_usage(usage: object, expected: Usage | None) -> None:
    assert read_usage(usage) == expected
    if "inf" not in repr(usage):
        assert whole(chunk(content="a"), frame({"choices": [], "usage": usage}), END)[-1] == Finished(STOP, expected)


def test_the_prompts_size_is_known_from_the_first_usage_on() -> None:
    machine = decoder()
    machine.feed(frame({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}))
    assert machine.prompt_tokens is None
    machine.feed(frame({"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 0}}))
    assert machine.prompt_tokens == 50


def test_the_last_usage_counts_and_nothing_unmeasured_replaces_it() -> None:
    counts = [{"prompt_tokens": 3, "completion_tokens": n} for n in (1, 2)]
    frames = [frame({"choices": [], "usage": usage}) for usage in (*counts, {"prompt_tokens": 0}, None)]
    assert whole(chunk(content="a"), *frames, END)[-1] == Finished(STOP, Usage(3, 2))
