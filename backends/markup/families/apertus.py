"""Apertus: `<|tools_prefix|>[{"NAME": {…}}]<|tools_suffix|>`, the name being the key; thoughts in
`<|inner_prefix|>`."""

from dragoman.backends.markup.family import Family, Written
from dragoman.backends.markup.readers.json_calls import JsonCalls

FAMILY = Family(
    "apertus",
    "Apertus",
    openers={"<|tools_prefix|>": JsonCalls(("<|tools_suffix|>",), name_is_key=True)},
    thinking={"<|inner_prefix|>": "<|inner_suffix|>"},
    ends=("<|assistant_end|>",),
    signs=(("<|tools_prefix|>",),),
    names=("apertus",),
    written=Written('{"', '": ', "}", "<|tools_prefix|>[", "]<|tools_suffix|>", ", "),
    markup='`<|tools_prefix|>[{"NAME": {…}}]<|tools_suffix|>`',
    field="blocks in content",
    recovers="forgotten closing tags and brackets",
)
