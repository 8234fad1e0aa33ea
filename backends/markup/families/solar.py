"""Solar: `<|tool_calls|>`, then for each call `<|tool_call:begin|>ID<|tool_call:name|>NAME<|tool_call:args|>{…}
<|tool_call:end|>`, and `<|calls|>`."""

import re

from dragoman.backends.markup.family import Family
from dragoman.backends.markup.readers.headed_calls import HeadedCalls

_CALL = "<|tool_call:begin|>"
_FORM = HeadedCalls(
    header=re.compile(r"(?P<id>[^\s<]*)\s*<\|tool_call:name\|>\s*(?P<name>[\w.:/-]+)"),
    separator="<|tool_call:args|>",
    sections=("<|tool_calls|>",),
    again=(_CALL,),
    closers=("<|tool_call:end|>", "<|calls|>"),
)

FAMILY = Family(
    "solar",
    "Solar Open",
    openers={"<|tool_calls|>": _FORM, _CALL: _FORM},
    thinking={"<|think|>": "<|end|>"},
    ends=("<|flush|>", "<|endoftext|>"),
    frames=("<|begin|>assistant", "<|content|>", "<|end|>"),
    signs=((_CALL,),),
    names=("solar-open",),
    markup="`<|tool_call:begin|>ID<|tool_call:name|>NAME<|tool_call:args|>{…}<|tool_call:end|>`",
    field="reasoning",
    recovers="frames of answers; sections that stay open",
)
