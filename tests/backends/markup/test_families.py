"""Markup families: golden transcripts, and what holds for every text however it is cut.

`tests/golden/markup/<family>/<case>.txtar` holds what a model wrote and the parts that became of it, which
`pytest tests/backends/markup/test_families.py --golden` writes. The answers are to one request, which declares the
tools of the transcripts.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.backends.markup import FAMILIES, detect, open_markup
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import (
    Delta,
    Deltas,
    Event,
    Message,
    Note,
    PartEnded,
    PartStarted,
    Request,
    StopReason,
    Text,
    Tool,
)
from dragoman.translators.parts import Parts
from tests.event_grammar import apart, check, plain
from tests.golden_files import GOLDEN, compare, pretty
from tests.golden_files import read as sections

CASES = sorted((GOLDEN / "markup").glob("*/*.txtar"))
every_case = pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
every_family = pytest.mark.parametrize("family", FAMILIES)

STRING = {"type": "string"}
TOOLS = {
    "get_weather": {"city": STRING, "days": {"type": "integer"}},
    "read_file": {"path": STRING},
    "write_file": {"path": STRING, "content": STRING},
    "list_files": {},
    "run": {
        "options": {"type": "object"},
        "flag": {"type": "boolean"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "note": STRING,
        "maybe": {"anyOf": [STRING, {"type": "null"}]},
    },
}
REQUEST = Request(
    id="r1",
    model="m",
    messages=(Message("user", (Text("Hi"),)),),
    tools=tuple(Tool(name, "", {"type": "object", "properties": properties}) for name, properties in TOOLS.items()),
)
UNHEARD_OF = "unheard-of characters: "


def parse(
    family: str,
    pieces: Iterable[str],
    *,
    prompt: str = "",
    request: Request | None = REQUEST,
    reason: StopReason = StopReason.STOP,
    together: bool = False,
) -> tuple[list[Event], list[Note]]:
    parts = Parts.of(request) if request is not None else Parts("r1")
    markup = open_markup(family, parts, prompt=prompt, request=request)
    if together:
        texts = [piece for piece in pieces if piece]
        markup.feed_all(Deltas(texts, "".join(texts)))
    else:
        for piece in pieces:
            markup.feed(piece)
    markup.finish(cut=reason is not StopReason.STOP)
    parts.finish(reason, None)
    events = parts.take()
    check(events)
    return events, parts.notes


def told(events: Sequence[Event], notes: Sequence[Note]) -> Json:
    """Parts with their ids and whether they are complete: deltas are the cutting's, not the text's."""
    parts: list[Any] = []
    for event in events:
        match event:
            case PartStarted(kind, id, name):
                parts.append({"kind": kind} | ({"id": id, "name": name} if kind == "call" else {}) | {"text": ""})
            case Delta():
                parts[-1]["text"] += event.text
            case PartEnded(complete) if not complete:
                parts[-1]["complete"] = False
    return {"parts": parts, "notes": sorted(f"{note.kind}:{note.name}" for note in notes)}


Json = dict[str, Any]


def family_of(path: Path) -> str:
    return path.parent.name


def read(path: Path) -> str:
    return sections(path)["model.txt"].decode()


def reason_of(path: Path) -> StopReason:
    return StopReason.LENGTH if "cut" in path.stem else StopReason.STOP


@every_case
def test_transcript(path: Path, rewrite_golden: bool) -> None:
    events, notes = parse(family_of(path), [read(path)], reason=reason_of(path))
    compare(path, "parts.json", pretty(told(events, notes)), rewrite_golden)


@every_family
def test_every_family_has_transcripts(family: str) -> None:
    assert len([path for path in CASES if family_of(path) == family]) >= 8


@every_case
def test_any_cutting_gives_the_same_parts(path: Path) -> None:
    text, reason = read(path), reason_of(path)
    whole = told(*parse(family_of(path), [text], reason=reason))
    assert told(*parse(family_of(path), text, reason=reason)) == whole  # character by character
    chance = random.Random(path.name)
    for _ in range(5):
        cuts = sorted(chance.sample(range(len(text) + 1), min(len(text), chance.randint(1, 12))))
        edges = [0, *cuts, len(text)]
        pieces = [text[start:end] for start, end in pairwise(edges)]
        assert told(*parse(family_of(path), pieces, reason=reason)) == whole, pieces


def both(family: str, pieces: Sequence[str], **more: Any) -> None:
    """Pieces that come together become the same deltas as one after the other."""
    events, notes = parse(family, [piece for piece in pieces if piece], **more)
    at_once, their_notes = parse(family, pieces, together=True, **more)
    assert apart(at_once) == events
    assert their_notes == notes


@every_case
def test_pieces_that_come_together(path: Path) -> None:
    text, reason = f"Let me see.\n{read(path)} And so on: `x`.\n\n", reason_of(path)
    for said in (text, read(path)):
        both(family_of(path), said, reason=reason)
        both(family_of(path), re.findall(r"\s*\w*\S?", said), reason=reason)
        both(family_of(path), re.findall(r"\w*\W?", said), reason=reason)


@pytest.mark.parametrize("family", ["hermes", "harmony"])
@pytest.mark.parametrize("limit", range(100, 900, 50))
def test_the_bound_of_an_answer_is_the_same_for_pieces_that_come_together(family: str, limit: int) -> None:
    said: list[list[Event]] = []
    for together in (True, False):
        parts = Parts("r1", limit=limit)
        markup = open_markup(family, parts)
        texts = ["a"] * 10 + ["é" * 20, "<", "b"] + ["c"] * 10
        with contextlib.suppress(GatewayError):
            if together:
                markup.feed_all(Deltas(texts, "".join(texts)))
            for text in () if together else texts:
                markup.feed(text)
        said.append(apart(parts.take()))
    assert said[0] == said[1]


@every_family
def test_plain_text_goes_on_together(family: str) -> None:
    parts = Parts("r1")
    markup = open_markup(family, parts, prompt="<think>")
    markup.feed("Well")
    parts.take()
    texts = ["d", "e", "f"]
    markup.feed_all(Deltas(texts, "def"))
    assert parts.take() == [Deltas(texts, "def")]


@every_case
def test_a_beginning_is_an_answer_too(path: Path) -> None:
    text = read(path)
    for end in range(0, len(text), 2):
        parse(family_of(path), [text[:end]], reason=StopReason.LENGTH)


RECIPIENTS = 'all\nI look it up.>>>read_file\n{"path": "a"}'


@pytest.mark.parametrize("size", [1, 4, len(RECIPIENTS)])
def test_an_answer_goes_on_after_the_opener_that_ends_its_prompt(size: int) -> None:
    pieces = [RECIPIENTS[at : at + size] for at in range(0, len(RECIPIENTS), size)]
    events, notes = parse("functionary", pieces, prompt="<|start_header_id|>assistant<|end_header_id|>\n\n>>>")
    assert plain(events) == [("text", "I look it up."), ("call", "read_file", '{"path": "a"}')]
    assert not notes


# ---------------------------------------------------------------------------------------------------------- properties

FRAGMENTS = (
    ["<tool_call>", "</tool_call>", "<function=run>", "</function>", "<parameter=note>", "</parameter>", "\n", " "]
    + ['{"name": "run"', ', "arguments": ', '{"note": "a"}', "}", "{", "[", "]", ",", '"', "\\", "`", "x", "é🙂", ":"]
    + ["<think>", "</think>", "[THINK]", "[/THINK]", "<arg_key>note</arg_key>", "<arg_value>", "</arg_value>", "<"]
    + ["[TOOL_CALLS]", "[ARGS]", "run", "<|python_tag|>", "<TOOLCALL>", "</TOOLCALL>", "<|tool_call|>", "<|im_end|>"]
    + [
        "<|channel|>",
        "<|message|>",
        "<|start|>",
        "<|end|>",
        "<|call|>",
        "analysis",
        "final",
        " to=functions.run",
        "</s>",
    ]
    + ["<|tool_calls_section_begin|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>", "{{"]
    + [f"<\uff5ctool\u2581{word}\uff5c>" for word in ("calls\u2581begin", "call\u2581begin", "sep", "call\u2581end")]
    + ["<\uff5cDSML\uff5cfunction_calls>", '<\uff5cDSML\uff5cinvoke name="run">', "</\uff5cDSML\uff5cinvoke>"]
    + ['<\uff5cDSML\uff5cparameter name="note" string="true">', "</\uff5cDSML\uff5cparameter>", "function", "```json"]
)
garbage = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)


@every_family
@settings(max_examples=20, deadline=None)
@given(text=garbage, cuts=st.lists(st.integers(0, 200), max_size=8), prompt=st.sampled_from(["", "<think>\n"]))
def test_garbage_cut_anywhere(family: str, text: str, cuts: list[int], prompt: str) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    whole = told(*parse(family, [text], prompt=prompt))
    assert told(*parse(family, pieces, prompt=prompt)) == whole
    assert told(*parse(family, text, prompt=prompt)) == whole
    both(family, pieces, prompt=prompt)
    both(family, text, prompt=prompt)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
WRITERS = {
    "hermes": ("<tool_call>\n", '{{"name": "run", "arguments": {}}}', "\n</tool_call>"),
    "llama3": ("<|python_tag|>", '{{"name": "run", "parameters": {}}}', ""),
    "mistral": ("[TOOL_CALLS]", "run[ARGS]{}", ""),
    "granite": ("<|tool_call|>", '[{{"name": "run", "arguments": {}}}]', ""),
    "nemotron": ("<TOOLCALL>", '[{{"name": "run", "arguments": {}}}]', "</TOOLCALL>"),
    "harmony": ("<|channel|>commentary to=functions.run <|constrain|>json<|message|>", "{}", "<|call|>"),
    "kimi_k2": ("<|tool_calls_section_begin|><|tool_call_begin|>functions.run:0<|tool_call_argument_begin|>", "{}", ""),
    "deepseek": (f"{FRAGMENTS[52]}{FRAGMENTS[53]}run{FRAGMENTS[54]}", "{}", FRAGMENTS[55]),
}


@pytest.mark.parametrize("family", WRITERS)
@settings(max_examples=60, deadline=None)
@given(arguments=st.dictionaries(st.text(max_size=6), values, max_size=4), size=st.integers(1, 9))
def test_arguments_arrive_as_they_were_written(family: str, arguments: dict[str, Any], size: int) -> None:
    before, call, after = WRITERS[family]
    written = json.dumps(arguments, ensure_ascii=False)
    text = before + call.format(written) + after
    events, notes = parse(family, [text[at : at + size] for at in range(0, len(text), size)])
    assert plain(events) == [("call", "run", written)]
    assert not notes


TAGGED = {
    "qwen3_coder": "<tool_call>\n<function=run>\n<parameter=note>\n{}\n</parameter>\n</function>\n</tool_call>",
    "glm": "<tool_call>run\n<arg_key>note</arg_key>\n<arg_value>{}</arg_value>\n</tool_call>",
}
words = st.text(alphabet="ab <[{`.,é🙂_|", min_size=1, max_size=12).map(lambda text: f"x{text}x")


@pytest.mark.parametrize("family", [*TAGGED, *(family for family in WRITERS if family != "harmony")])
@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["text", "reasoning", "call"]), max_size=6).map(lambda kinds: [*groups(kinds)]),
    word=words,
    size=st.integers(1, 30),
)
def test_no_marker_leaks_and_everything_keeps_its_place(family: str, kinds: list[str], word: str, size: int) -> None:
    opener, closer = next(iter(FAMILIES[family].thinking.items()))
    arguments = json.dumps({"note": word}, ensure_ascii=False)
    if family in TAGGED:
        call = TAGGED[family].format(word)
    else:
        before, middle, after = WRITERS[family]
        call = before + middle.format(arguments) + after
    written = {"text": word, "reasoning": f"{opener}\n{word}\n{closer}", "call": call}
    meant = {"text": ("text", word), "reasoning": ("reasoning", word), "call": ("call", "run", arguments)}
    text = "".join(written[kind] for kind in kinds)
    events, notes = parse(family, [text[at : at + size] for at in range(0, len(text), size)])
    assert plain(events) == [meant[kind] for kind in kinds] or not kinds
    assert not [note for note in notes if note.name in ("malformed_call", "unopened_reasoning")]


def groups(kinds: Sequence[str]) -> Iterable[str]:
    """Without a repetition of text or reasoning, which would be one part."""
    return (kind for at, kind in enumerate(kinds) if at == 0 or kind == "call" or kinds[at - 1] != kind)


@pytest.mark.parametrize("family", ["qwen3_coder", "glm"])
@settings(max_examples=60, deadline=None)
@given(note=st.text(max_size=20), options=st.dictionaries(st.text(max_size=6), values, max_size=3))
def test_tagged_values_arrive_as_they_were_meant(family: str, note: str, options: dict[str, Any]) -> None:
    if family == "glm":
        tags = [("note", note), ("options", json.dumps(options))]
        inner = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in tags)
        text = f"<tool_call>run\n{inner}</tool_call>"
    else:
        inner = f"<parameter=note>\n{note}\n</parameter>\n<parameter=options>\n{json.dumps(options)}\n</parameter>\n"
        text = f"<tool_call>\n<function=run>\n{inner}</function>\n</tool_call>"
    events, _ = parse(family, text)
    [(_, name, arguments)] = plain(events)
    assert (name, json.loads(arguments)) == ("run", {"note": note, "options": options})


@every_family
@settings(max_examples=25, deadline=None)
@given(text=st.text(alphabet="ab .,é🙂\n-_", max_size=60), size=st.integers(1, 7))
def test_text_leaves_in_the_call_in_which_it_came(family: str, text: str, size: int) -> None:
    parts = Parts.of(REQUEST)
    markup = open_markup(family, parts, request=REQUEST)
    markup.feed("a")
    for at in range(0, len(text), size):
        parts.take()
        markup.feed(piece := text[at : at + size])
        came = "".join(event.text for event in parts.take() if isinstance(event, Delta))
        assert came.strip("\n") == came == piece or "\n" in text[: at + size]  # a newline may belong to a marker


@every_family
def test_a_long_answer_costs_what_it_is_long(family: str) -> None:
    def calls(size: int) -> int:
        """How many calls of functions, built-in ones too, a text of that size takes: no clock, no luck."""
        opener = next(iter(FAMILIES[family].openers), "<think>")
        text = ("word < [ { " * 20 + opener + '{"a": ') * size
        pieces = [text[at : at + 9] for at in range(0, len(text), 9)]
        counted = 0

        def count(*_: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        try:
            parse(family, pieces)
        finally:
            sys.setprofile(None)
        return counted

    assert calls(160) < 5 * calls(40)


# --------------------------------------------------------------------------------------------------- single behaviours


@pytest.mark.parametrize("family", [family for family, markup in FAMILIES.items() if markup.thinking])
def test_reasoning_that_the_prompt_opened(family: str) -> None:
    opener, closer = next(iter(FAMILIES[family].thinking.items()))
    events, notes = parse(family, ["Hm.", closer[:3], f"{closer[3:]}\n\nYes."], prompt=f"…<|assistant|>{opener}\n")
    assert plain(events) == [("reasoning", "Hm."), ("text", "Yes.")]
    assert not notes


def test_harmony_continues_where_the_prompt_ends() -> None:
    events, _ = parse("harmony", ["Yes.<|return|>"], prompt="…<|start|>assistant<|channel|>final<|message|>")
    assert plain(events) == [("text", "Yes.")]
    events, _ = parse("harmony", ["<|message|>Hm.<|end|>"], prompt="…<|start|>assistant<|channel|>analysis")
    assert plain(events) == [("reasoning", "Hm.")]


def test_arguments_stream_while_they_are_written() -> None:
    parts = Parts.of(REQUEST)
    markup = open_markup("hermes", parts, request=REQUEST)
    markup.feed('<tool_call>{"name": "write_file", "arguments": {"content": "one ')
    assert [type(event).__name__ for event in parts.take()] == ["Started", "PartStarted", "Delta"]
    parts.take()
    markup.feed("two")
    assert parts.take() == [Delta("two")]


def test_arguments_that_repeat_all_before_them_leave_as_they_came() -> None:
    parts = Parts.of(REQUEST)
    markup = open_markup("hermes", parts, request=REQUEST)
    markup.feed('<tool_call>{"name": "run", "arguments": {"options":')
    parts.take()
    markup.feed('{"options":')
    assert parts.take() == [Delta('{"options":')]


def test_values_of_strings_stream_while_they_are_written() -> None:
    parts = Parts.of(REQUEST)
    markup = open_markup("qwen3_coder", parts, request=REQUEST)
    markup.feed("<tool_call>\n<function=write_file>\n<parameter=content>\none ")
    parts.take()
    markup.feed('two "3"')
    assert parts.take() == [Delta('two \\"3\\"')]


def test_a_call_that_never_names_itself_is_not_held_for_ever() -> None:
    parts = Parts.of(REQUEST)
    markup = open_markup("hermes", parts, request=REQUEST)
    markup.feed('<tool_call>{"arguments": {"a": "')
    for _ in range(400):
        markup.feed("x" * 1000)
    said = sum(len(event.text) for event in parts.take() if isinstance(event, Delta))
    assert said > 390_000
    assert Note("repair", "malformed_call") in parts.notes


def test_a_name_that_comes_too_late_in_a_thought_makes_no_call_however_it_is_cut() -> None:
    text = (
        '<think>\nHm.\n<tool_call>{"arguments": {"note": "' + "x" * 2000 + '"}, "name": "run"}</tool_call></think>Yes.'
    )
    whole = told(*parse("hermes", [text]))
    assert [part["kind"] for part in whole["parts"]] == ["reasoning", "text"]
    assert told(*parse("hermes", text)) == whole


def test_bare_json_is_a_call_only_of_declared_tools() -> None:
    text = '{"name": "unheard", "parameters": {}}'
    assert plain(parse("llama3", [text])[0]) == [("text", text)]
    assert plain(parse("llama3", [text], request=None)[0]) == [("call", "unheard", "{}")]


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(GatewayError, match="unknown markup 'alpaca'; there are hermes"):
        open_markup("alpaca", Parts("r"))


@pytest.mark.parametrize(
    ("template", "family"),
    [
        ("{{ '<tool_call>' }}{\"name\": …", "hermes"),
        ("<tool_call>\n<function=x>\n<parameter=y>", "qwen3_coder"),
        ("<tool_call>{{ name }}<arg_key>", "glm"),
        ("<|start_of_role|>…<tool_call>", "granite"),
        ("<|start_header_id|>…<|python_tag|>", "llama3"),
        ("[AVAILABLE_TOOLS]…[TOOL_CALLS]", "mistral"),
        ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "deepseek"),
        ("<|tool_calls_section_begin|>", "kimi_k2"),
        ("<TOOLCALL>", "nemotron"),
        ("<|channel|>analysis<|message|>", "harmony"),
        ("<|im_start|>{{ content }}", None),
    ],
)
def test_the_family_is_found_from_the_template(template: str, family: str | None) -> None:
    assert detect(template, model="Qwen/Qwen3-8B") == family


def test_without_a_template_the_name_tells() -> None:
    assert detect("", model="openai/gpt-oss-20b") == "harmony"
    assert detect("", model="Qwen/Qwen3-Coder-30B") == "qwen3_coder"
    assert detect("", model="somebody/model") is None
