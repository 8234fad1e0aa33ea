"""LongCat: `<longcat_tool_call>{"name": …, "arguments": {…}}</longcat_tool_call>`."""

from dragoman.backends.markup.family import THINK, Family, Written, on_a_line
from dragoman.backends.markup.readers.json_calls import JsonCalls

FAMILY = Family(
    "longcat",
    "LongCat",
    openers=on_a_line({"<longcat_tool_call>": JsonCalls(("</longcat_tool_call>",))}),
    thinking={"<longcat_think>": "</longcat_think>", **THINK},
    ends=("</longcat_s>", "<|endoftext|>"),
    signs=(("<longcat_tool_call>",),),
    names=("longcat",),
    written=Written('<longcat_tool_call>\n{"name": "', '", "arguments": ', "}\n</longcat_tool_call>", separator="\n"),
    markup='`<longcat_tool_call>{"name": …}</longcat_tool_call>`',
    recovers="forgotten closing tags and brackets",
)
