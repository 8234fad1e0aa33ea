"""No key of a request is lost in silence: it is in the upstream request, acted on, noted, or refused by name."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.chat.encode import encode
from dragoman.backends.chat.settings import resolve
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.fields import Given, Lenient, Unread, few
from dragoman.translators.ir import Note
from dragoman.translators.protocol import Context, Json, Policy, Turn
from dragoman.translators.registry import PROTOCOLS
from tests.golden_files import request, requests

DONE = ("responses", "messages", "chat_completions")
PARSERS = {protocol.name: protocol for protocol in PROTOCOLS}
SETTINGS = resolve("vllm")
# Objects that the client keeps for itself, hints for caches, and what is noted under another name (`tool:web_search`).
PRIVATE = frozenset(
    {"client_metadata", "metadata", "internal_chat_message_metadata_passthrough"}
    | {"prompt_cache_breakpoint", "web_search_options", "cache_control"}
)
KEYS = [
    "prefix",
    "reasoning_details",
    "citations",
    "clear_at",
    "task_budget",
    "defer_loading",
    "enabled",
    "exclude",
    "shape",
    "strictly",
    "weight",
    "thinking_blocks",
    "provider_specific_fields",
    "extra_content",
    "partial",
]

Place = tuple[str | int, ...]


def read(name: str, body: Json) -> Turn:
    return PARSERS[name].parse(body, Context(id="0" * 24, clock=lambda: 1))


def valid(name: str) -> Iterator[Path]:
    """The golden requests that are not refused."""
    for path in requests(name):
        try:
            read(name, request(path))
        except GatewayError:
            continue
        yield path


VALID = [(name, path) for name in DONE for path in valid(name)]


def objects(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where objects are in a body."""
    if isinstance(value, dict):
        yield place
        for key, inner in value.items():
            if key not in PRIVATE:
                yield from objects(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from objects(inner, (*place, index))


def at(body: Any, place: Place) -> Any:
    for step in place:
        body = body[step]
    return body


def with_key(body: Json, place: Place, key: str, value: Any) -> Json:
    changed = copy.deepcopy(body)
    at(changed, place)[key] = value
    return changed


def lost(name: str, body: Json, place: Place, key: str, value: Any) -> str | None:
    """What became of the key, where that is nothing."""
    try:
        turn = read(name, with_key(body, place, key, value))
    except GatewayError as error:
        said = f"{error.param} {error.message}"
        return None if key in said or _named(place) in said or str(place[-1]) in said else f"refused as {said}"
    sent, notes = encode(turn.request, SETTINGS)
    names = {note.name for note in (*turn.notes, *notes)}
    if any(key[:40] in each for each in names) or key.encode() in orjson.dumps(sent, default=dict):
        return None
    if turn.request != (before := read(name, body)).request or answer(turn) != answer(before):
        return None
    if (key, value) == ("defer_loading", False) or (key == "defer_loading" and place[0] == "input"):
        return None  # what a tool is without the word, and what one that a search has found is with any
    if (key, value) == ("defer_loading", True) and name == "messages":
        return None  # the conversation makes the tool known
    if key == "partial" and isinstance(value, bool) and at(body, place).get("prefix"):
        return None  # the same, in another server's word
    if (key, value) == ("enabled", True) and place == ("reasoning",):
        return None  # as a budget says already
    if place[0] == "tools" and "allowed_tools" in str(body.get("tool_choice")):
        return None  # the client itself leaves the tool out
    # a field or a thing that is left out as a whole
    whole = {str(step) for step in place} | {str(at(body, place[:depth]).get("type")) for depth in depths(body, place)}
    return (
        None if whole & {*names, *(each.rpartition(".")[2] for each in names)} else f"gone; noted are {sorted(names)}"
    )


def answer(turn: Turn) -> list[bytes]:
    """What the answer repeats of the request."""
    return turn.stream.start()


def depths(body: Json, place: Place) -> list[int]:
    return [depth for depth in range(len(place) + 1) if isinstance(at(body, place[:depth]), dict)]


def _named(place: Place) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return path.removeprefix(".")


@pytest.mark.parametrize(("name", "path"), VALID, ids=lambda value: getattr(value, "stem", value))
def test_a_key_in_any_object_of_a_request_is_not_lost(name: str, path: Path) -> None:
    body = request(path)
    faults = {
        f"{_named(place)}: {fault}"
        for place in objects(body)
        if (fault := lost(name, body, place, "made_up", {"deep": "er"})) is not None
    }
    assert not faults


@given(st.data())
def test_no_key_and_no_value_is_lost(data: st.DataObject) -> None:
    name, path = data.draw(st.sampled_from(VALID))
    body = request(path)
    place = data.draw(st.sampled_from(list(objects(body))))
    key = data.draw(st.sampled_from(KEYS) | st.from_regex(r"[a-z]{3}_[a-z_]{4,60}", fullmatch=True))
    if key in at(body, place):
        return
    value = data.draw(st.sampled_from([True, False, 0, 1, 0.5, "", "text", ["a"], {"a": 1}]))
    assert lost(name, body, place, key, value) is None


# ---------------------------------------------------------------------------------------------------------- the reader


class Outer(Lenient):
    class Inner(Lenient):
        known: int | None = None

    inner: Inner | None = None


def test_what_was_not_read_is_noted_with_its_path_and_without_positions() -> None:
    unread = Unread()
    for path in ("messages[3].content[0]", "messages.12.content.7"):
        part = unread.given({"type": "text", "text": "x", "citations": [1], "annotations": [], "id": None}, path)
        assert (part["type"], part.get("text"), part.get("absent", 1)) == ("text", "x", 1)
        part.close()
    assert unread.notes() == [Note("field", "messages.content.citations")]
    assert unread.notes()[0].count == 2


def test_inert_keys_and_those_passed_over_are_not_noted() -> None:
    unread = Unread()
    item = unread.given({"id": "a", "summary": [1], "content": "x", "new": False}, "input[0]")
    item.pass_over("summary", "absent")
    inner = item.inner({"deep": 1}, "input[0].inner")
    inner.close()
    item.close(frozenset({"id", "content"}))
    assert [note.name for note in unread.notes()] == ["input.inner.deep", "input.new"]


def test_models_note_what_their_schema_lacks_at_every_depth() -> None:
    unread = Unread()
    unread.of_model(Outer.model_validate({"inner": {"known": 1, "new\r\n": 1, "null": None}, "other": 0}))
    assert [note.name for note in unread.notes()] == ["other", "inner.new__"]


def test_a_given_object_reads_as_a_mapping() -> None:
    owner = {"a": 1, "b": 2}
    assert dict(Given(owner, "", Unread())) == owner
    assert len(Given(owner, "", Unread())) == 2


def test_the_surplus_is_counted() -> None:
    unread = Unread()
    unread.add("", {f"k{index}": 1 for index in range(40)})
    unread.add("x", {f"k{index}": 1 for index in range(3)})
    notes = unread.notes()
    assert len(notes) == 33
    assert (notes[-1].name, notes[-1].count) == ("+11", 11)


def test_many_notes_become_few_and_lose_none() -> None:
    usual = [Note("tool", "a"), Note("tool", "a"), Note("item", "b")]
    assert few(usual) == tuple(usual)
    many = [*usual, *(Note("tool", f"t{index}") for index in range(100)), Note("repair", "late_output", 7)]
    notes = few(many)
    assert len(notes) == 66
    assert (notes[0], notes[0].count) == (Note("tool", "a"), 2)
    assert [(note.kind, note.name) for note in notes[-2:]] == [("tool", "+38"), ("repair", "+7")]
    assert sum(note.count for note in notes) == sum(note.count for note in many)


@pytest.mark.parametrize("name", DONE)
def test_half_a_million_unknown_keys_cost_little(name: str) -> None:
    simple: dict[str, Json] = {
        "responses": {"input": "x"},
        "messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
        "chat_completions": {"messages": [{"role": "user", "content": "x"}]},
    }
    body: Json = {"model": "m", **simple[name], **{f"key{index}": index for index in range(500_000)}}
    began = time.process_time()
    turn = read(name, body)
    assert time.process_time() - began < 1.5
    assert len(turn.notes) <= 33
    assert sum(note.count for note in turn.notes) == 500_000


ONE_MORE: dict[str, dict[str, tuple[Json, str]]] = {
    "responses": {
        "items": ({"input": [{"role": "user", "content": "x"}] * 17}, "input[16]"),
        "parts": (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}] * 17}]},
            "input[0].content[15]",
        ),
        "calls of one id": (
            {"input": [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}] * 17},
            "input[16]",
        ),
        "unknown items": ({"input": [{"role": "user", "content": "x"}, *[{"type": "new"}] * 16]}, "input[16]"),
        "tools": ({"input": "x", "tools": [{"type": "web_search"}] * 17}, "tools[16]"),
    },
    "messages": {
        "messages": ({"messages": [{"role": "user", "content": ""}] * 17}, "messages.16"),
        "blocks": (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 17}]},
            "messages.0.content.15",
        ),
        "parts of a result": (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": "a",
                                "content": [{"type": "text", "text": "x"}] * 17,
                            }
                        ],
                    }
                ]
            },
            "messages.0.content.0.content.14",
        ),
        "system": (
            {"system": [{"type": "text", "text": "x"}] * 17, "messages": [{"role": "user", "content": "x"}]},
            "system.16",
        ),
    },
    "chat_completions": {
        "messages": ({"messages": [{"role": "user", "content": "x"}] * 17}, "messages[16]"),
        "parts": (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 17}]},
            "messages[0].content[15]",
        ),
        "calls": (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}] * 17,
                    }
                ]
            },
            "messages[0].tool_calls[7].function",
        ),
    },
}


@pytest.mark.parametrize(
    ("protocol", "case"), [(protocol, case) for protocol, cases in ONE_MORE.items() for case in cases]
)
def test_the_items_of_a_request_are_counted_wherever_they_stand(protocol: str, case: str) -> None:
    body, param = ONE_MORE[protocol][case]
    needed = {"max_tokens": 9} if protocol == "messages" else {}
    with pytest.raises(GatewayError) as caught:
        parsed_within(protocol, {"model": "m", **needed, **body}, 16)
    assert (caught.value.kind, caught.value.param, caught.value.code) == (Kind.INVALID, param, "array_above_max_length")
    assert caught.value.message.startswith(param)
    assert "16" in caught.value.message
    parsed_within(protocol, {"model": "m", **needed, **body}, 35)


def parsed_within(protocol: str, body: Json, most: int) -> Turn:
    context = Context(id="0" * 24, clock=lambda: 0, policy=Policy(max_items=most))
    return PARSERS[protocol].parse(body, context)
