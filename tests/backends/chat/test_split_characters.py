"""Characters that a server splits over two chunks come out whole, whichever text they are in."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Note
from tests.backends.chat.decoding import END, decoder
from tests.event_grammar import plain
from tests.recording import ask

TEXTS = st.text(st.sampled_from("a\u00e9\u6f22\U0001f600\U0001f680\n"), min_size=1, max_size=6)


def units(text: str) -> list[str]:
    """UTF-16 units, each as a character: halves of pairs stand alone."""
    octets = text.encode("utf-16-be", "surrogatepass")
    return [chr(int.from_bytes(octets[at : at + 2], "big")) for at in range(0, len(octets), 2)]


def line(**delta: Any) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta}]})}\n\n".encode()


def streamed(machine: ChatDecoder, *lines: bytes) -> list[tuple[str, ...]]:
    return plain([event for each in (*lines, END) for event in machine.feed(each)] + machine.finish())


def call(arguments: str, **header: Any) -> bytes:
    return line(tool_calls=[{"index": 0, **header, "function": {"arguments": arguments, **header}}])


@given(TEXTS, st.sampled_from(["content", "reasoning"]))
def test_text_cut_between_any_two_units_is_the_same_text(text: str, field: str) -> None:
    whole = streamed(decoder(), line(**{field: text}))
    assert streamed(decoder(), *(line(**{field: unit}) for unit in units(text))) == whole


def test_each_call_waits_for_its_own_half() -> None:
    high, low = units("😀")
    lines = (call(f'{{"a":"{high}', name="f", id="x"), line(content="b"), call(low + '"}'))
    assert ("call", "f", '{"a":"😀"}') in streamed(decoder(), *lines)


def test_the_keys_and_other_strings_of_a_chunk_are_mended_too() -> None:
    odd = b'data: {"x\\ud83d":"\\ude00","choices":["\\ud83d",{"delta":{"content":"a"}}]}\n\n'
    assert streamed(decoder(), odd) == [("text", "a")]


def test_a_chunk_that_is_nested_too_deeply_is_no_chat_completion() -> None:
    for depth in (400, 900, 5000):
        machine = decoder()
        machine.feed(line(content="a\ud83d"))
        nested = '{"x":"\\ud83d","choices":' + "[" * depth + "]" * depth + "}"
        with contextlib.suppress(GatewayError):
            machine.feed(f"data: {nested}\n\n".encode())


def test_a_half_at_the_very_end_is_noted() -> None:
    machine = decoder()
    assert streamed(machine, line(content="a\ud83d")) == [("text", "a")]
    assert machine.notes == [Note("drop", "half_character")]


def test_done_ends_an_answer_only_where_the_server_is_known_never_to_say_why() -> None:
    def unclassified(status: int, body: Any) -> Any:
        raise AssertionError

    machine = ChatDecoder(ask(), unclassified, trusts_done=True)
    assert plain(machine.feed(line(content="a") + b"data: [DONE]\n\n")) == [("text", "a")]
