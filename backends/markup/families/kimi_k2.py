"""Kimi K2: `<|tool_calls_section_begin|>`, then for each call `<|tool_call_begin|>functions.NAME:INDEX`,
`<|tool_call_argument_begin|>{…}<|tool_call_end|>`, and `<|tool_calls_section_end|>`.

The model reads its earlier calls by these ids, so the id is kept as it is; a bare `functions.NAME` or a name alone, as
the model writes at times, is a name without an id; a bare number names the tool that takes the arguments. The word for
the section occurs in the singular, and its end where nothing was open.
"""

import re

from dragoman.backends.markup.family import Family, Written
from dragoman.backends.markup.readers.headed_calls import HeadedCalls

_SECTIONS = ("<|tool_calls_section_begin|>", "<|tool_call_section_begin|>")
_SECTION_ENDS = ("<|tool_calls_section_end|>", "<|tool_call_section_end|>")
_CALL = "<|tool_call_begin|>"
_FORM = HeadedCalls(
    header=re.compile(r"(?=(?P<id>\S+:\d+)?)(?:functions\.)?(?P<name>[\w.-]+?)(?::\d+)?"),
    separator="<|tool_call_argument_begin|>",
    sections=_SECTIONS,
    again=(_CALL,),
    closers=("<|tool_call_end|>", *_SECTION_ENDS),
    by_keys=True,
)

FAMILY = Family(
    "kimi_k2",
    "Kimi K2, K2-Thinking",
    openers={opener: _FORM for opener in (*_SECTIONS, _CALL)},
    breaks=True,
    ends=("<|im_end|>", "[EOS]"),
    frames=_SECTION_ENDS,
    signs=(("<|tool_calls_section_begin|>",),),
    names=("kimi-k2",),
    written=Written(
        f"{_CALL}functions.",
        ":0<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        _SECTIONS[0],
        _SECTION_ENDS[0],
        single=True,  # the next one has another number
    ),
    markup="`<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`",
    field="reasoning_content",
    recovers="sections in the singular, open or closed twice; headers without a name",
)
