"""Counts as servers send them: what is read, what is unknown, and that an answer ends well with either."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from dragoman.backends.usage import MOST, count, measured, total
from dragoman.translators.ir import Usage
from tests.replay import CONTEXT, PROTOCOL, replay, turn
from tests.scripted import Script, chunk, sse
from tests.serving_gateway import PATHS, asking, served

ROOT = Path(__file__).parents[2]
# As they stand in a server's JSON; what JSON cannot write, Python's writes.
ODD = ["18446744073709551616", "9007199254740992", "-1", "-0.5", "1e300", "1e400", "-1e400", "NaN", "Infinity", "11.5"]
ODD += ["true", '"many"', '"-5"', '"5.5"', '""', '" 5"', '"\\u0665"', '"99999999999999999999"', "[5]", '{"n": 5}']


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (11, 11), (11.0, 11), ("11", 11), ("0", 0), ("007", 7), (MOST, MOST), (float(2**52), 2**52), (None, None)],
)
def test_a_whole_number_is_read_however_it_is_written(value: object, expected: int | None) -> None:
    found = count(value)
    assert found == expected
    assert found is None or type(found) is int


@pytest.mark.parametrize("written", ODD)
def test_every_other_value_is_unknown(written: str) -> None:
    assert count(json.loads(written)) is None


def test_an_odd_detail_is_unknown_alone() -> None:
    assert measured(3, 1, "x", -1) == Usage(3, 1)
    assert measured(3, 1, 9, 1) == Usage(3, 1, 3, 1)
    assert measured(3, -1, 2, 1) is None
    assert measured(True, 1) is None


def test_a_sum_that_is_no_count_any_more_is_unknown() -> None:
    assert total([Usage(3, 1, 2), Usage(4, 1, 1)]) == Usage(7, 2, 3)
    assert total([Usage(3, 1, written=2), Usage(4, 1, written=1)]) == Usage(7, 2, written=3)
    assert total([Usage(MOST, 1), Usage(1, 1)]) is None
    assert total([Usage(3, 1), None]) is None
    assert MOST + MOST < 2**63


def test_usage_is_made_of_counts_in_one_place() -> None:
    made = {
        str(path.relative_to(ROOT))
        for package in ("backends", "gateway", "translators")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Usage"
        if not all(isinstance(value, ast.Constant) for value in node.args)
    }
    assert made == {"backends/usage.py"}


# --------------------------------------------------------------------------------------------- an answer to its client


def transcript(**counts: str) -> bytes:
    """A chat stream whose usage is written as it is given: numbers that Python's `json` would not write."""
    usage = {"prompt_tokens": "21", "completion_tokens": "4", "total_tokens": "25"} | counts
    written = ", ".join(f'"{name}": {value}' for name, value in usage.items())
    head = sse(chunk({"content": "Two."}), chunk({}, "stop"), done=False)
    return head + sse(f'{{"choices": [], "usage": {{{written}}}}}')


PLACES: dict[str, Callable[[str], dict[str, str]]] = {
    "prompt": lambda odd: {"prompt_tokens": odd},
    "completion": lambda odd: {"completion_tokens": odd},
    "total": lambda odd: {"total_tokens": odd},
    "cached": lambda odd: {"prompt_tokens_details": f'{{"cached_tokens": {odd}}}'},
    "reasoning": lambda odd: {"completion_tokens_details": f'{{"reasoning_tokens": {odd}}}'},
    "details": lambda odd: {"prompt_tokens_details": odd, "completion_tokens_details": odd},
}


def tokens(protocol: str, answer: Any) -> tuple[int, int] | None:
    usage = answer["usage"]
    if usage is None:
        return None
    names = (
        ("prompt_tokens", "completion_tokens") if protocol == "chat_completions" else ("input_tokens", "output_tokens")
    )
    return usage[names[0]], usage[names[1]]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", PATHS)
def test_an_odd_count_costs_the_count_and_not_the_answer(name: str, place: str) -> None:
    grammar = importlib.import_module(f"tests.grammar.{name}")
    unknown = place in ("prompt", "completion")
    for odd in ODD:
        streamed = transcript(**PLACES[place](odd))
        options: dict[str, Any] = {"stream_options": {"include_usage": True}} if name == "chat_completions" else {}
        answer = replay(PROTOCOL[name], [streamed], turn=turn(PROTOCOL[name], CONTEXT, **options))
        assert answer.status == 200, odd
        grammar.check_stream(answer.stream)
        grammar.check_response(answer.whole)
        whole = orjson.loads(orjson.dumps(answer.whole))
        told = tokens(name, whole)
        if unknown:
            assert told == ((0, 0) if name == "messages" else None), odd
        else:
            assert told == (21, 4), odd


@pytest.mark.parametrize("name", PATHS)
def test_counts_as_floats_and_as_digits_become_integers(name: str) -> None:
    streamed = transcript(prompt_tokens="21.0", completion_tokens='"4"', total_tokens="null")
    assert tokens(name, replay(PROTOCOL[name], [streamed]).whole) == (21, 4)
    assert tokens(name, replay(PROTOCOL[name], [transcript(completion_tokens="null")]).whole) == (21, 0)


def test_an_odd_last_count_is_not_replaced_by_an_earlier_one() -> None:
    before = sse('{"choices": [], "usage": {"prompt_tokens": 21, "completion_tokens": 1}}', done=False)
    assert replay(PROTOCOL["responses"], [before + transcript(completion_tokens="1e300")]).whole["usage"] is None


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", PATHS)
async def test_over_the_whole_gateway(name: str, stream: bool) -> None:
    async with served(Script(transcript(completion_tokens="18446744073709551616"))) as it:
        async with it.session.post(it.url + PATHS[name], json=asking(name, "hi", stream=stream)) as reply:
            assert reply.status == 200
            text = await reply.text()
        assert "Two." in text
        assert '"error"' not in text.replace('"error":null', "")
        terminal = {"responses": "response.completed", "messages": "message_stop", "chat_completions": "[DONE]"}
        assert not stream or terminal[name] in text
        assert it.metric("dragoman_answers_without_usage_total", route=name, backend="gpu") == 1
