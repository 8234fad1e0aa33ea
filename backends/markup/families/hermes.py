"""Hermes, Qwen 2.5 and 3: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, the newline before it being the
template's. Qwen 2.5 Coder writes `<tools>` in its place, which is the tag of the prompt's declarations too."""

from dragoman.backends.markup.family import Family, Written, on_a_line
from dragoman.backends.markup.readers.json_calls import JsonCalls

_TOOLS = JsonCalls(("</tools>",), name_keys=frozenset({"name"}), declared=True)

FAMILY = Family(
    "hermes",
    "Hermes 2 and 3, Qwen 2.5, Qwen 3, QwQ, MiMo-VL, Reka",
    openers=on_a_line({"<tool_call>": JsonCalls(closers=("</tool_call>",)), "<tools>": _TOOLS}),
    breaks=True,
    signs=(("<tool_call>",),),
    names=("hermes", "qwen", "qwq"),
    written=Written('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", separator="\n"),
    markup='`<tool_call>{"name": …}</tool_call>`',
    field="reasoning_content",
    recovers="forgotten closing tags and brackets; arguments as a string; `<tools>` for the tag",
)
