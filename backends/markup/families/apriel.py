"""Apriel: `<tool_calls>[{"name": …, "arguments": {…}, "id": …}]</tool_calls>`. 1.5 thinks in `<thinking>`, 1.6 after
the words with which its prompt ends; both answer after `[BEGIN FINAL RESPONSE]`."""

from dragoman.backends.markup.family import Family, in_array, on_a_line
from dragoman.backends.markup.readers.json_calls import JsonCalls

_FINAL = "[BEGIN FINAL RESPONSE]"

FAMILY = Family(
    "apriel",
    "Apriel 1.5 and 1.6",
    openers=on_a_line({"<tool_calls>": JsonCalls(("</tool_calls>",))}),
    breaks=True,
    thinking={"<thinking>": "</thinking>", "Here are my reasoning steps:": _FINAL},
    ends=("<|end|>", "<|endoftext|>"),
    frames=(_FINAL, "\n[END FINAL RESPONSE]", "[END FINAL RESPONSE]"),
    signs=((_FINAL,), ("Here are my reasoning steps",), ("<thinking>", "<tool_calls>")),
    names=("apriel",),
    written=in_array("<tool_calls>[", "]</tool_calls>"),
    markup='`<tool_calls>[{"name": …}]</tool_calls>`',
    field="thought, reasoning_content",
    recovers="forgotten closing tags and brackets",
)
