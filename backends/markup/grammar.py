"""Grammars that hold an answer to a family's own markup, for servers with guided decoding.

Two languages say the same: structural tags, as xgrammar reads them (vLLM, trtllm-serve), and EBNF (Triton). A call can
then not be malformed, and its arguments fit the tool's schema as far as the language can say so. Nothing stands before
a forced call but a thought that the prompt has opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.backends.markup.ebnf import Arguments, Rules, literal
from dragoman.backends.markup.family import Family, Written
from dragoman.translators.ir import Tool

Json = dict[str, Any]

_PLAIN = re.compile(r"[\w.:/-]+")  # names that need no escaping in any family
_ANYTHING: Json = {"type": "object"}


def structural_tag(family: Family, tools: Sequence[Tool], *, several: bool, prompt: str = "") -> str | None:
    """An answer that is one call of these tools or, with `several`, more of them; None where the family has no grammar.
    `prompt`: what the server's template ends its prompt with."""
    written = family.written
    if written is None or not _nameable(tools):
        return None
    calls = _section(written, [_tag(written, tool, tool.parameters) for tool in tools], several)
    closer = next((end for tag, end in family.thinking.items() if prompt.rstrip().endswith(tag)), None)
    if closer is not None:
        thought = {"type": "tag", "begin": "", "content": {"type": "any_text"}, "end": f"{closer}\n\n"}
        calls = {"type": "sequence", "elements": [thought, calls]}
    return _document(calls)


def optional_tags(family: Family, tools: Sequence[Tool], *, several: bool) -> str | None:
    """An answer in which each call fits a tool that is declared, and the schema of one that is strict; None also where
    calls stand bare, because what begins one may begin a text."""
    written = family.written
    if written is None or family.bare is not None or not _nameable(tools):
        return None
    tags = [_tag(written, tool, tool.parameters if tool.strict else _ANYTHING) for tool in tools]
    if written.begin:
        section = _section(written, tags, several)
        tags, triggers = [section], [written.begin]
    else:
        triggers = [written.before]
    return _document({"type": "triggered_tags", "triggers": triggers, "tags": tags, "stop_after_first": not several})


def ebnf(family: Family, tools: Sequence[Tool], *, several: bool) -> str | None:
    """As `structural_tag`, where nothing is thought; None also where EBNF cannot say how arguments are written, or
    would take too many rules."""
    written = family.written
    if written is None or not _nameable(tools):
        return None
    rules = Rules()
    alternatives = []
    for tool in tools:
        arguments = Arguments(rules, tool.parameters).written(written.style)
        if arguments is None or rules.full:
            return None
        before = literal(written.before + tool.name + written.between)
        alternatives.append(f"{before} {arguments} {literal(written.after)}")
    call = rules.named("call", " | ".join(alternatives))
    more = "" if written.single or not several else f" ({literal(written.separator)} {call})*"
    return rules.text(f"{literal(written.begin)} {call}{more} {literal(written.end)}")


def _section(written: Written, tags: Sequence[Json], several: bool) -> Json:
    calls: Json = {
        "type": "tags_with_separator",
        "tags": list(tags),
        "separator": written.separator,
        "at_least_one": True,
        "stop_after_first": written.single or not several,
    }
    if not written.begin:
        return calls
    return {"type": "tag", "begin": written.begin, "content": calls, "end": written.end}


def _tag(written: Written, tool: Tool, schema: Mapping[str, Any]) -> Json:
    content: Json = {"type": "json_schema", "json_schema": dict(schema) or _ANYTHING}
    if written.style != "json":  # older versions do not know the word, and read JSON
        content["style"] = written.style
    return {
        "type": "tag",
        "begin": written.before + tool.name + written.between,
        "content": content,
        "end": written.after,
    }


def _nameable(tools: Sequence[Tool]) -> bool:
    return bool(tools) and all(_PLAIN.fullmatch(tool.name) for tool in tools)


def _document(format: Json) -> str:
    return json.dumps({"type": "structural_tag", "format": format}, ensure_ascii=False, default=dict)
