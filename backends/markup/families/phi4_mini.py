"""Phi-4-mini: `functools[{"name": …, "arguments": {…}}]`, also `<|tool_call|>[…]<|/tool_call|>`."""

from dragoman.backends.markup.family import Family, in_array
from dragoman.backends.markup.readers.json_calls import JsonCalls

_FORM = JsonCalls(closers=("<|/tool_call|>",))

FAMILY = Family(
    "phi4_mini",
    "Phi-4-mini, firefunction v2",
    openers={"functools[": _FORM, "<|tool_call|>": _FORM},
    ends=("<|end|>", "<|endoftext|>"),
    signs=(("<|/tool|>",), ("functools",)),
    names=("phi-4-mini",),
    written=in_array("functools[", "]"),
    markup='`functools[{"name": …}]`',
    recovers="forgotten brackets",
)
