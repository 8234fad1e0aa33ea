"""Constraints on plain text reach the server under its own name, or the request is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dragoman.backends.chat.prepared import prepared
from dragoman.backends.chat.settings import resolve
from dragoman.backends.triton.profiles import _guide
from dragoman.translators.constraints.guided import regex_of, without_idle_format
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Guided, JsonObject, JsonSchema, Named, Note, Tool
from tests.recording import ask

CHOICE = Guided("choice", ("yes.", "no (really)"), "guided_choice")
REGEX = Guided("regex", "a+", "guided_regex")
GRAMMAR = Guided("grammar", "root ::= x", "guided_grammar")
AS_REGEX = r"yes\.|no \(really\)"
TOOL = Tool("look", "", {"type": "object", "properties": {}})


def test_a_choice_as_a_regular_expression() -> None:
    assert regex_of(CHOICE) == AS_REGEX
    assert regex_of(REGEX) == "a+"
    for text in ("yes.", "no (really)"):
        assert re.fullmatch(AS_REGEX, text)


@pytest.mark.parametrize(
    ("preset", "wanted", "sent"),
    [
        ("vllm", CHOICE, {"structured_outputs": {"choice": ["yes.", "no (really)"]}}),
        ("vllm", REGEX, {"structured_outputs": {"regex": "a+"}}),
        ("vllm", GRAMMAR, {"structured_outputs": {"grammar": "root ::= x"}}),
        ("sglang", CHOICE, {"regex": AS_REGEX}),
        ("sglang", GRAMMAR, {"ebnf": "root ::= x"}),
        ("trtllm-serve", CHOICE, {"response_format": {"type": "regex", "regex": AS_REGEX}}),
        ("trtllm-serve", GRAMMAR, {"response_format": {"type": "ebnf", "ebnf": "root ::= x"}}),
        ("llama.cpp", GRAMMAR, {"grammar": "root ::= x"}),
        ("llama.cpp", Guided("choice", ("a", 'b "c"\n')), {"grammar": 'root ::= "a" | "b \\"c\\"\\n"'}),
    ],
)
def test_each_server_has_its_own_name_for_it(preset: str, wanted: Guided, sent: dict[str, Any]) -> None:
    body = prepared(ask(format=wanted), resolve(preset), frozenset()).body
    assert {key: body.get(key) for key in sent} == sent


def test_older_servers_by_a_setting() -> None:
    body = prepared(ask(format=REGEX), resolve("vllm", {"guided": "guided"}), frozenset()).body
    assert body["guided_regex"] == "a+"


@pytest.mark.parametrize(
    ("preset", "wanted"),
    [("generic", CHOICE), ("llama.cpp", REGEX), ("lmdeploy", CHOICE), ("triton-openai", CHOICE)],
)
def test_a_server_that_cannot_is_not_asked(preset: str, wanted: Guided) -> None:
    with pytest.raises(GatewayError, match=wanted.path) as caught:
        prepared(ask(format=wanted), resolve(preset), frozenset())
    assert (caught.value.kind, caught.value.param) == (Kind.UNSUPPORTED, wanted.path)


@pytest.mark.parametrize(
    ("wanted", "kind", "guide"),
    [
        (CHOICE, "regex", AS_REGEX),
        (REGEX, "regex", "a+"),
        (GRAMMAR, "ebnf_grammar", "root ::= x"),
        (JsonSchema("a", {"type": "object"}), "json_schema", '{"type": "object"}'),
        (JsonObject(), "json", None),
    ],
)
def test_guides_of_triton(wanted: Any, kind: str, guide: str | None) -> None:
    tensors = {name: tensor.values[0] for name, tensor in _guide(wanted)}
    assert tensors == {"guided_decoding_guide_type": kind} | ({} if guide is None else {"guided_decoding_guide": guide})


@pytest.mark.parametrize("choice", ["required", Named("look")])
def test_a_forced_call_leaves_no_room_for_a_format(choice: Any) -> None:
    request, notes = without_idle_format(ask(format=JsonObject(), tools=(TOOL,), tool_choice=choice))
    assert (request.format, notes) == (None, (Note("field", "format"),))


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_format_stays_where_text_may_come(choice: Any) -> None:
    asked = ask(format=JsonObject(), tools=(TOOL,), tool_choice=choice)
    assert without_idle_format(asked) == (asked, ())
