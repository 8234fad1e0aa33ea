"""PLaMo 3: `begin_tool_requests`, then for each call `begin_tool_request`, the name and the arguments between tags of
their own, every tag written `<|plamo:…:plamo|>`. What announces JSON before the arguments is missing at times."""

import re

from dragoman.backends.markup.family import Family, Written
from dragoman.backends.markup.readers.headed_calls import HeadedCalls


def _tag(word: str) -> str:
    return f"<|plamo:{word}:plamo|>"


_SECTION, _CALL = _tag("begin_tool_requests"), _tag("begin_tool_request")
_NAME, _NAME_END, _ARGUMENTS = _tag("begin_tool_name"), _tag("end_tool_name"), _tag("begin_tool_arguments")
_JSON, _BODY = "<|plamo:constrain|>json", "<|plamo:msg|>"
_ENDS = tuple(map(_tag, ("end_tool_arguments", "end_tool_request", "end_tool_requests")))
_FORM = HeadedCalls(
    header=re.compile(
        rf"{re.escape(_NAME)}\s*(?P<name>[\w.:/-]+)\s*{re.escape(_NAME_END)}\s*{re.escape(_ARGUMENTS)}\s*"
        rf"(?:{re.escape(_JSON)})?"
    ),
    separator=_BODY,
    sections=(_SECTION,),
    again=(_CALL,),
    closers=_ENDS,
    name_alone=True,
)

FAMILY = Family(
    "plamo3",
    "PLaMo 3",
    openers={_SECTION: _FORM, _CALL: _FORM},
    thinking={_tag("begin_think"): _tag("end_think")},
    ends=("<|plamo:tag|>", "<|plamo:eos|>"),
    signs=((_CALL,), (_SECTION,)),
    names=("plamo-3",),
    written=Written(
        f"{_CALL}{_NAME}",
        f"{_NAME_END}{_ARGUMENTS}{_JSON}{_BODY}",
        f"{_ENDS[0]}{_ENDS[1]}",
        _SECTION,
        _ENDS[2],
    ),
    markup="`<|plamo:begin_tool_request:plamo|>`, name and arguments in tags of that kind",
    field="reasoning_content",
    recovers="sections that stay open; arguments that are not announced",
)
