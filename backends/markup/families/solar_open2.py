"""Solar Open 2: `<|tool_call:start|>NAME`, on a line for each parameter
`<|tool_arg:start|>KEY<|tool_arg:value|>VALUE<|tool_arg:end|>`, and `<|tool_call:end|>`."""

import re

from dragoman.backends.markup.family import Family, on_a_line
from dragoman.backends.markup.readers.tagged_calls import TaggedCalls

_CALL = "<|tool_call:start|>"
_FORM = TaggedCalls(
    parameter_opens=("<|tool_arg:start|>",),
    parameter_tag=re.compile(r"<\|tool_arg:start\|>(?P<key>[^<]*)<\|tool_arg:value\|>"),
    parameter_tag_end="<|tool_arg:value|>",
    value_ends=("<|tool_arg:end|>",),
    call_ends=("<|tool_call:end|>",),
    follows=(_CALL,),
    stops=(_CALL,),
)

FAMILY = Family(
    "solar_open2",
    "Solar Open 2",
    openers=on_a_line({_CALL: _FORM}),
    breaks=True,
    thinking={"<|think:start|>": "<|think:end|>"},
    ends=("<|im:end|>", "<|endoftext|>"),
    signs=((_CALL,),),
    names=("solar-open2", "solar-open-2", "solar-pro-4"),
    markup="`<|tool_call:start|>NAME`, `<|tool_arg:start|>KEY<|tool_arg:value|>…`",
    field="reasoning",
    recovers="forgotten closing tags; values by their types",
)
