"""Mistral: `[TOOL_CALLS] [{"name": …, "arguments": {…}, "id": …}, …]`, and since tokenizer v11 for every call
`[TOOL_CALLS]NAME[ARGS]{…}`, with `[CALL_ID]…` before `[ARGS]` in some. A detokenizer may have dropped `[ARGS]`.
Reasoning stands in `[THINK]…[/THINK]`."""

import re

from dragoman.backends.markup.family import THINK, Family
from dragoman.backends.markup.readers.either import Either
from dragoman.backends.markup.readers.headed_calls import HeadedCalls
from dragoman.backends.markup.readers.json_calls import JsonCalls

_NAMED = HeadedCalls(
    header=re.compile(r"(?P<name>[\w.:/-]+)\s*(?:\[CALL_ID\]\s*(?P<id>\S+))?"),
    separator="[ARGS]",
    beginning=re.compile(r"\s*[\w.:/-]+\s*(?:\[.*)?", re.DOTALL),
    name_alone=True,
)

FAMILY = Family(
    "mistral",
    "Mistral 7B v3 to Small 3.2, Magistral, Devstral, Ministral 3",
    openers={"[TOOL_CALLS]": Either(JsonCalls(), _NAMED)},
    breaks=True,
    thinking={"[THINK]": "[/THINK]", **THINK},
    ends=("</s>",),
    signs=(("[TOOL_CALLS]",), ("[AVAILABLE_TOOLS]",)),
    names=("mistral", "devstral", "magistral", "ministral"),
    markup="`[TOOL_CALLS]NAME[ARGS]{…}`, `[TOOL_CALLS] [{…}]`",
    field="blocks in content",
    recovers="a missing `[ARGS]`",
)
