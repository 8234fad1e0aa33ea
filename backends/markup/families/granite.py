"""Granite: `<|tool_call|>[{…}, …]` (3.0, 3.2, 3.3), `<tool_call>[…]` (3.1), `<tool_call>{…}</tool_call>` (4),
`<function_call> {…}` (20B). After reasoning, 3.3 puts its answer into `<response>`."""

from dragoman.backends.markup.family import Family, on_a_line
from dragoman.backends.markup.readers.json_calls import JsonCalls

_FORM = JsonCalls(closers=("</tool_call>", "<|/tool_call|>"))

FAMILY = Family(
    "granite",
    "Granite 3 and 4",
    openers={"<|tool_call|>": _FORM, "<function_call>": _FORM, **on_a_line({"<tool_call>": _FORM})},
    breaks=True,
    ends=("<|end_of_text|>", "<|end|>", "<|endoftext|>"),
    answer_frames=("<response>", "</response>"),
    signs=(
        ("<|start_of_role|>", "<|tool_call|>"),
        ("<|start_of_role|>", "<tool_call>"),
        ("<|tool_call|>",),
        ("<function_call>",),
    ),
    names=("granite",),
    markup='`<|tool_call|>[{"name": …}]`, `<tool_call>{"name": …}</tool_call>`',
    recovers="forgotten closing tags and brackets",
)
