"""ERNIE 4.5: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, or the answer in `<response>`."""

from dragoman.backends.markup.family import Family, Written, on_a_line
from dragoman.backends.markup.readers.json_calls import JsonCalls

FAMILY = Family(
    "ernie45",
    "ERNIE 4.5",
    openers=on_a_line({"<tool_call>": JsonCalls(("</tool_call>",))}),
    answer_frames=("<response>", "</response>", "\n</response>"),
    signs=(("<response>", "<tool_call>"),),
    names=("ernie-4.5",),
    written=Written('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>\n"),
    markup='`<tool_call>{"name": …}</tool_call>`',
    recovers="frames of answers; forgotten closing tags and brackets",
)
