"""The grammars of families, read by xgrammar: what models write is let through, and what is let through is read."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.markup import FAMILIES
from dragoman.backends.markup.grammar import ebnf, optional_tags, structural_tag
from dragoman.translators.ir import Tool
from tests.backends.markup.test_families import REQUEST, parse
from tests.backends.markup.writers import channel_call, element, js, raw
from tests.conftest import RealComponent
from tests.event_grammar import plain

Json = dict[str, Any]
Judge = Callable[[list[Json]], list[Json]]

WRITTEN = [name for name, family in FAMILIES.items() if family.written is not None]
# Values that are texts between tags may hold anything, also what ends calls.
SCALARS = {"flag": {"type": "boolean"}, "count": {"type": "integer"}, "ratio": {"type": "number"}}
SOME_SCALARS: list[Json] = [{"flag": True}, {"flag": True, "count": 1}, {"flag": True, "count": 1, "ratio": 0.5}]
UNTEXTED = (Tool("run", "", {"type": "object", "properties": SCALARS, "required": ["flag"]}),)
WALKS = 100

WEATHER: tuple[str, Json] = ("get_weather", {"city": "Zürich"})
CALLS: list[tuple[str, Json]] = [
    WEATHER,
    ("run", {"options": {"a": [1, {"b": 'c"\\é'}, None]}, "flag": True, "count": -3, "ratio": -0.5, "note": "x\ny"}),
    ("write_file", {"path": "a b", "content": 'e\n"f" {g} </p> <b>'}),
    ("list_files", {}),
]
WRONG: list[tuple[str, Json]] = [("nobody", {}), ("run", {"flag": "perhaps"}), ("run", {"count": "x"})]


@pytest.fixture(scope="module")
def judge(real_component: RealComponent) -> Judge:
    interpreter = real_component("xgrammar")

    def ask(cases: list[Json]) -> list[Json]:
        driver = Path(__file__).with_name("xgrammar_driver.py")
        done = subprocess.run(
            [interpreter, driver], input=json.dumps(cases), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        verdicts: list[Json] = json.loads(done.stdout)
        return verdicts

    return ask


def write(family: str, *calls: tuple[str, Json]) -> str:
    """As the family's own grammar says that it is written."""
    written = FAMILIES[family].written
    assert written is not None
    each = [
        f"{written.before}{tool}{written.between}{ARGUMENTS[written.style](given)}{written.after}"
        for tool, given in calls
    ]
    return written.begin + written.separator.join(each) + written.end


def xml(before: str, between: str, after: str, line: str) -> Callable[[Json], str]:
    return lambda given: line.join(f"{before}{key}{between}{raw(value)}{after}" for key, value in given.items())


ARGUMENTS: dict[str, Callable[[Json], str]] = {
    "json": js,
    "qwen_xml": xml("<parameter=", ">\n", "\n</parameter>", "\n"),
    "minimax_xml": xml('<parameter name="', '">', "</parameter>", "\n"),
    "glm_xml": xml("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>", "\n"),
    "minimax_m3_xml": lambda given: "".join(element(key, value) for key, value in given.items()),
    "kimi_k3_xml": lambda given: channel_call("", given).split("<|sep|>", 1)[1].removesuffix("<|close|>call<|sep|>"),
}


def pieces(family: str) -> list[str]:
    """What answers are made of."""
    written = FAMILIES[family].written
    assert written is not None
    markers = [written.begin, written.before, written.between, written.after, written.end, written.separator]
    calls = [*CALLS, *(("run", given) for given in SOME_SCALARS)] if is_json(family) else []
    found = re.findall(r"<[^<>]{0,40}>|[\w ]+|\n|.", write(family, *calls), re.DOTALL)
    for given in SOME_SCALARS:
        found += re.split(r"(?<=[>\n ])(true|1|0\.5)", ARGUMENTS[written.style](given))
    return sorted(
        {*filter(None, (*markers, *found)), *(tool.name for tool in REQUEST.tools), "1", "true", "}", "]", '"'}
    )


def grammars(tools: Callable[[str], Sequence[Tool]]) -> list[tuple[str, Json]]:
    found = []
    for name in WRITTEN:
        found.append((name, {"tag": structural_tag(FAMILIES[name], tools(name), several=True)}))
        if (text := ebnf(FAMILIES[name], tools(name), several=True)) is not None:
            found.append((name, {"ebnf": text}))
    return found


def is_json(family: str) -> bool:
    written = FAMILIES[family].written
    return written is not None and written.style == "json"


def flat(family: str, call: tuple[str, Json]) -> tuple[str, Json]:
    """Where elements nest, what no schema describes has no types."""
    nests = family == "minimax_m3"
    return call[0], {key: value for key, value in call[1].items() if not (nests and key == "options")}


def test_what_models_write_is_let_through_and_nothing_else(judge: Judge) -> None:
    found = []
    cases = grammars(lambda name: REQUEST.tools)
    for name, grammar in cases:
        right = [write(name, flat(name, call)) for call in CALLS]
        wrong = [write(name, call) for call in WRONG] + ["", "Sunny.", "Hm. " + right[0], right[0][:-1]]
        found.append({**grammar, "texts": [*right, *wrong], "pieces": []})
    for (name, grammar), verdict in zip(cases, judge(found), strict=True):
        assert "error" not in verdict, (name, verdict)
        assert verdict["accepted"] == [True] * len(CALLS) + [False] * (len(WRONG) + 4), (name, [*grammar], verdict)


def test_whatever_is_let_through_is_read_as_calls_of_declared_tools(judge: Judge) -> None:
    cases = grammars(lambda name: REQUEST.tools if is_json(name) else UNTEXTED)
    asked = [{**grammar, "texts": [], "pieces": pieces(name), "walks": WALKS} for name, grammar in cases]
    for (name, grammar), verdict in zip(cases, judge(asked), strict=True):
        assert len(verdict["walks"]) >= 3, (name, [*grammar])
        for text in verdict["walks"]:
            events, notes = parse(name, [text])
            assert {part[0] for part in plain(events)} == {"call"}, (name, text)
            assert not notes, (name, text, notes)
            for _, tool, arguments in (part for part in plain(events) if part[0] == "call"):
                fits(tool, json.loads(arguments))


def fits(name: str, arguments: Json) -> None:
    kinds: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict}
    (tool,) = [tool for tool in REQUEST.tools if tool.name == name]
    for key, value in arguments.items():
        if kind := tool.parameters["properties"].get(key, {}).get("type"):
            assert isinstance(value, kinds[kind]), (key, value)


def test_where_calls_are_free_text_is_too_and_strict_ones_keep_their_schema(judge: Judge) -> None:
    strict = [Tool(tool.name, "", tool.parameters, strict=tool.name == "run") for tool in REQUEST.tools]
    names = [name for name in WRITTEN if is_json(name) and FAMILIES[name].bare is None]
    tags = [optional_tags(FAMILIES[name], strict, several=True) for name in names]
    texts = [["Sunny.", write(name, CALLS[1]), write(name, WRONG[1])] for name in names]
    asked = [{"tag": tag, "texts": each, "pieces": []} for tag, each in zip(tags, texts, strict=True)]
    for name, verdict in zip(names, judge(asked), strict=True):
        assert verdict.get("accepted") == [True, True, False], (name, verdict)


def test_a_thought_that_the_prompt_opened_may_end_first(judge: Judge) -> None:
    tag = structural_tag(FAMILIES["hermes"], REQUEST.tools, several=False, prompt="<|im_start|>assistant\n<think>\n")
    call = write("hermes", WEATHER)
    texts = [f"I look it up.\n</think>\n\n{call}", call, f"Hm.</think>\n\n{call}\n{call}"]
    (verdict,) = judge([{"tag": tag, "texts": texts, "pieces": []}])
    assert verdict["accepted"] == [True, False, False]


NODE: Json = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
    "required": ["name"],
}
SCHEMAS: list[tuple[Json, list[str], list[str]]] = [
    ({"enum": ["a", 1, None, {"b": 2}]}, ['"a"', "1", "null", '{"b": 2}'], ["2", '"b"']),
    ({"const": 'x "y"\n'}, ['"x \\"y\\"\\n"'], ['"x"']),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, ["0", "-12", "null"], ["1.5", "01", '"1"']),
    ({"type": ["number", "boolean"]}, ["1.5e-3", "true"], ["null", "1."]),
    ({"type": "array", "items": {"type": "string"}}, ["[]", '["a", "é\\u00e9"]'], ["[1]", '["a",]']),
    ({"$ref": "#/$defs/node"}, ['{"name": "a", "next": {"name": "b"}}'], ['{"next": {"name": "b"}}']),
    ({"type": "object"}, ["{}", '{"a": [1, {"b": null}]}'], ["[]", "{"]),
    ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, ["5"], []),
    ({}, ["1", '"a"', "[{}]"], ["a"]),
    ({"type": "string"}, ['"a\\nb"', '""'], ['"a\nb"', '"a']),
]


def test_ebnf_says_what_a_schema_says_of_types_and_alternatives(judge: Judge) -> None:
    cases = []
    for schema, right, wrong in SCHEMAS:
        parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"], "$defs": {"node": NODE}}
        texts = [write("hermes", ("f", {})).replace("{}", f'{{"x": {value}}}') for value in (*right, *wrong)]
        grammar = ebnf(FAMILIES["hermes"], [Tool("f", "", parameters)], several=False)
        cases.append({"ebnf": grammar, "texts": texts, "pieces": []})
    for (schema, right, wrong), verdict in zip(SCHEMAS, judge(cases), strict=True):
        assert verdict.get("accepted") == [True] * len(right) + [False] * len(wrong), (schema, verdict)


def test_members_that_are_not_required_may_each_be_missing(judge: Judge) -> None:
    texts = ["{}", '{"a": 1}', '{"b": 1}', '{"a": 1, "c": 1}', '{"b": 1, "c": 1}', '{"c": 1, "a": 1}', '{"a": 1,}']
    written = [write("hermes", ("f", {})).replace("{}", text) for text in texts]
    properties = {name: {"type": "integer"} for name in "abc"}
    cases = [
        {
            "ebnf": ebnf(
                FAMILIES["hermes"], [Tool("f", "", {"properties": properties, "required": required})], several=False
            )
        }
        for required in ([], ["b"])
    ]
    optional, one = judge([{**case, "texts": written, "pieces": []} for case in cases])
    assert optional["accepted"] == [True, True, True, True, True, False, False]
    assert one["accepted"] == [False, False, True, False, True, False, False]
