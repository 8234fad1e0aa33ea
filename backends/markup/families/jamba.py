"""Jamba, MiniMax M1: `<tool_calls>[{"name": …, "arguments": {…}}]</tool_calls>`."""

from dragoman.backends.markup.family import Family, in_array, on_a_line
from dragoman.backends.markup.readers.json_calls import JsonCalls

FAMILY = Family(
    "jamba",
    "Jamba, MiniMax M1",
    openers=on_a_line({"<tool_calls>": JsonCalls(("</tool_calls>",))}),
    ends=("<|eom|>", "<|endoftext|>"),
    signs=(("<tool_calls>",),),
    names=("jamba",),
    written=in_array("<tool_calls>[", "]</tool_calls>"),
    markup='`<tool_calls>[{"name": …}]</tool_calls>`',
    recovers="forgotten closing tags and brackets",
)
