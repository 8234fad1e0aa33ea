"""LFM2: `<|tool_call_start|>[NAME(key=value)]<|tool_call_end|>`, also an array of JSON in the same tags."""

from dragoman.backends.markup.family import Family
from dragoman.backends.markup.readers.either import Either
from dragoman.backends.markup.readers.json_calls import JsonCalls
from dragoman.backends.markup.readers.python_calls import PythonCalls

_CLOSERS = ("<|tool_call_end|>",)
_FORM = Either(JsonCalls(_CLOSERS), PythonCalls(_CLOSERS, lines=True), begins=("{", "[{", "[\n"))

FAMILY = Family(
    "lfm2",
    "LFM2, LFM2.5",
    openers={"<|tool_call_start|>": _FORM},
    signs=(("<|tool_call_start|>",), ("<|tool_list_start|>",), ("List of tools: [",)),
    names=("lfm2",),
    markup="`<|tool_call_start|>[NAME(key=value)]<|tool_call_end|>`",
    field="thinking",
    recovers="JSON instead of Python",
)
