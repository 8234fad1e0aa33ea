"""Hunyuan A13B: `<tool_calls>[{"name": …, "arguments": {…}}]</tool_calls>`, within `<answer>` after the thought."""

from dragoman.backends.markup.family import Family, in_array, on_a_line
from dragoman.backends.markup.readers.json_calls import JsonCalls

FAMILY = Family(
    "hunyuan",
    "Hunyuan A13B",
    openers=on_a_line({"<tool_calls>": JsonCalls(("</tool_calls>",))}),
    ends=("<|eos|>", "<|endoftext|>"),
    frames=("<answer>", "</answer>", "\n</answer>"),
    signs=(("<|extra_0|>",),),
    names=("hunyuan-a13b",),
    written=in_array("<answer>\n<tool_calls>[", "]</tool_calls>\n</answer>"),
    markup='`<answer><tool_calls>[{"name": …}]</tool_calls></answer>`',
    recovers="frames of answers; forgotten closing tags and brackets",
)
