"""MiniMax M2: `<minimax:tool_call>` around `<invoke name="NAME">` and `<parameter name="KEY">VALUE</parameter>`. Names
also stand in single quotes or in none."""

import re

from dragoman.backends.markup.family import Family, Written, on_a_line
from dragoman.backends.markup.readers.either import Either
from dragoman.backends.markup.readers.json_calls import JsonCalls
from dragoman.backends.markup.readers.tagged_calls import TaggedCalls

_BLANK = "\u0120"  # how tokenizers write a blank; some servers leave it, or leave the blank out
_NAMED = rf"""[\s{_BLANK}]*name=["']?{{}}["']?\s*"""


def invokes(
    *sections: tuple[str, str],
    space: str = "",
    call: str = "invoke",
    parameter: str = "parameter",
    skipped: tuple[str, ...] = (),
    cdata: bool = False,
) -> TaggedCalls:
    """Calls of tags that name the call and its parameters in an attribute. `sections` are the tags around them, `space`
    is what stands before the name of every tag."""
    call_open, parameter_open = f"<{space}{call}", f"<{space}{parameter}"
    return TaggedCalls(
        call_tag=re.compile(_NAMED.format(r"([^\"'<>]+?)") + "/?>"),
        parameter_opens=tuple(parameter_open + follows for follows in (" ", _BLANK, "name=")),
        parameter_tag=re.compile(parameter_open + _NAMED.format(r"(?P<key>[^\"'<>]+?)") + ">"),
        value_ends=(f"</{space}{parameter}>",),
        call_ends=(f"</{space}{call}>",),
        section_opens=tuple(begin for begin, _ in sections),
        call_opens=(call_open,),
        section_ends=tuple(end for _, end in sections),
        follows=tuple(begin for begin, _ in sections),
        skipped=skipped,
        body=True,
        cdata=cdata,
    )


_BEGIN, _END = "<minimax:tool_call>", "</minimax:tool_call>"

FAMILY = Family(
    "minimax_m2",
    "MiniMax M2",
    openers=on_a_line({_BEGIN: Either(JsonCalls((_END,)), invokes((_BEGIN, _END)), begins=("{", "["))}),
    breaks=True,
    ends=("[e~[",),
    signs=(("<minimax:tool_call>",),),
    names=("minimax-m2",),
    written=Written(
        '<invoke name="', '">\n', "</invoke>\n", "<minimax:tool_call>\n", "</minimax:tool_call>", style="minimax_xml"
    ),
    markup='`<minimax:tool_call><invoke name="NAME"><parameter name="KEY">…`',
    field="reasoning_content",
    recovers="forgotten closing tags; values by their types; names in other quotes; JSON instead of tags",
)
