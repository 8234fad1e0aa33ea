"""Which family a template is of, and what says that nobody knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dragoman.backends.markup import FAMILIES, detect, recognise
from dragoman.backends.markup.grammar import ebnf
from dragoman.translators.ir import Tool, ToolCall
from tests.backends.markup.writers import WRITINGS

SIGNS = [(name, markers) for name, family in FAMILIES.items() for markers in family.signs]
CALL = ToolCall("c", "probe_call", '{"number": 2}')


@pytest.mark.parametrize(("family", "markers"), SIGNS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_template_with_a_familys_markers_is_of_no_other(family: str, markers: tuple[str, ...]) -> None:
    assert detect(" ".join(markers)) == family


@pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if family.signs])
def test_a_template_that_prints_calls_and_tells_its_markers_is_of_its_family(family: str) -> None:
    """Templates hold what they print and what they tell the model to write."""
    printed = WRITINGS[family].write(("run", {"note": "a"})) if family in WRITINGS else ""
    for markers in FAMILIES[family].signs:
        assert detect(f"{{% if tools %}}{printed}{' '.join(markers)}<think></think>") == family


def test_no_template_of_calls_is_taken_for_a_relative() -> None:
    """What a family writes is the family's, another's only where the other reads it just as well."""
    alike = {
        "hermes": {"ernie45", "granite"},  # the same calls; frames and roles tell them apart
        "jamba": {"apriel", "hunyuan"},
        "dots": set[str](),
    }
    for family, writing in WRITINGS.items():
        found = detect(writing.write(("run", {"note": "a"}), ("list_files", {})))
        assert found in (family, None) or family in alike.get(found, set()), (family, found)


def test_mirothinkers_template_names_the_tag_of_its_relative_too() -> None:
    assert detect("<tool_call> and <use_mcp_tool>") == "mirothinker"


@pytest.mark.parametrize("template", ["<|im_start|>{{ content }}", "{{ messages }}", "<tools>{{ tools }}</tools>"])
def test_what_nobody_knows_is_none(template: str) -> None:
    assert detect(template, model="Qwen/Qwen3-8B") is None


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("openai/gpt-oss-20b", "harmony"),
        ("Qwen/Qwen3-Coder-30B", "qwen3_coder"),
        ("nvidia/Nemotron-3-Nano", "qwen3_coder"),
        ("nvidia/Llama-3.3-Nemotron", "nemotron"),
        ("MiniMaxAI/MiniMax-M3", "minimax_m3"),
        ("google/gemma-4-31B-it", "gemma4"),
        ("somebody/model", None),
    ],
)
def test_without_a_template_the_longest_name_tells(model: str, family: str | None) -> None:
    assert detect("", model=model) == family


@pytest.mark.parametrize(
    ("printed", "family"),
    [
        ("[probe_call(number=2)]<|eot_id|>", "pythonic"),
        ('[{"name": "probe_call", "arguments": {"number": 2}}]<|im_end|>', "xlam"),
        ('```json\n[{"name": "probe_call", "arguments": {"number": 2}}]\n```', "xlam"),
        (
            '{"name": "probe_call", "arguments": {"number": 2}}',
            None,
        ),  # what is written where a template prints no calls
        ("[other(number=2)]", None),
        ('["probe_call"]', None),
        ("", None),
    ],
)
def test_calls_without_markers_are_recognised_by_what_is_printed(printed: str, family: str | None) -> None:
    assert recognise(printed, CALL) == family


# ---------------------------------------------------------------------------------------------------------- the page

PAGE = Path(__file__).parents[3] / "docs" / "models.md"
HEAD = """# Model families

How models write calls and thoughts, as far as dragoman reads them out of an answer's text. A Triton backend always
does, because nothing before it has; for a chat server the setting `markup` switches it on. A family is found by the
markers of the model's chat template, by what the template prints for a call, or named in the setting; where nothing
tells, calls come back as text, a line at the start says so, and requests with tools carry `tool:markup:unknown` in
`x-dragoman-ignored`.

All families: re-cutting never changes what is read; a thought that the prompt has opened is one; tags of thoughts that
are repeated, and tokens that end a turn, are dropped; what turns out to be no call is text, and so is all markup of
calls where no tool is declared. A call in an open thought ends it where the third column says so. Markup after a
back-tick is text, and so are tags of thoughts in a Markdown fence of the text; in Markdown's code, and where the tag
around calls is missing, only a call of a declared tool is one. Arguments are valid JSON unless the answer was cut: line
ends, quotes and backslashes that are not escaped, commas too many or too few, words and quotes of Python and forgotten
brackets are put right.

For a chat server whose own tool parser is missing or fails, `dragoman doctor` asks for two calls and names the family
that reads both out of the text. With `markup: probe` the gateway does the same at start, for each model that the server
lists (each worker for itself, two short answers a model; the start waits for it, at most a minute). What is proven is
logged, stands on the status page and in `dragoman_markup_proven`, and is kept until the next start. Without a proof
text stays text. A call that shows in a client's answer and that nobody read is warned of once and counted
(`dragoman_odd_answers_total{oddity="call_in_text"}`), and switches nothing, because a client can make a model write any
tag. Where markers are special tokens that the server takes out of the text (Kimi, Mistral, Command and others), nothing
can be proven: let it keep them, as with `skip_special_tokens: false` in `extra_body`.

| `markup` | models | a call in an open thought | calls | thoughts | thoughts in templates | what is recovered |
|---|---|---|---|---|---|---|
"""


TAIL = """
A forced call is held to the model's own markup where the server decodes under grammars, so that it cannot be malformed,
its arguments fit the tool's schema, and the prompt stays what it is for every other turn. For other families, and for
other servers, a forced call is JSON under a schema, or asked for and checked.

* Chat servers with the setting `markup` are sent structural tags ([`structural_tags`](chat-settings.md)), which also
  hold strict tools to their schema where a call is free and does not stand bare: {}.
* Triton with `guided_decoding_backend` `xgrammar` is sent EBNF, which knows a schema's types, members, items and
  alternatives: the same but for {}.
"""
TAGGED = [name for name, family in FAMILIES.items() if family.written is not None]
NOT_IN_EBNF = [name for name in TAGGED if not ebnf(FAMILIES[name], [Tool("f", "", {})], several=False)]


def page() -> str:
    rows = []
    for name, family in FAMILIES.items():
        thoughts = ", ".join(f"`{opener}`" for opener in family.thinking) or (
            "channels" if family.headers is not None else "none"
        )
        cells = (
            f"`{name}`",
            family.models,
            "is a call" if family.breaks else "is thought",
            family.markup or "none",
            thoughts,
            family.field or "not printed",
            family.recovers,
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return HEAD + "".join(rows) + TAIL.format(*map(names, (TAGGED, NOT_IN_EBNF)))


def names(found: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in found)


def test_the_page_lists_every_family(rewrite_golden: bool) -> None:
    if rewrite_golden:
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_family_says_what_it_is() -> None:
    for family in FAMILIES.values():
        assert family.models
        assert family.recovers
        assert json.dumps(family.markup) != '""' or family.name == "plain"
