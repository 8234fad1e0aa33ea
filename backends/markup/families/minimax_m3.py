"""MiniMax M3: every tag has a prefix, and those of the parameters are their names; objects nest, arrays are `<item>`s.
Thoughts stand in `<mm:think>`."""

from dragoman.backends.markup.family import Family, Written, on_a_line
from dragoman.backends.markup.readers.element_calls import ElementCalls

PREFIX = "]<]minimax[>["

FAMILY = Family(
    "minimax_m3",
    "MiniMax M3",
    openers=on_a_line({f"{PREFIX}<tool_call>": ElementCalls(PREFIX)}),
    thinking={"<mm:think>": "</mm:think>"},
    ends=("[e~[",),
    signs=((PREFIX,),),
    names=("minimax-m3",),
    written=Written(
        f'{PREFIX}<invoke name="',
        '">',
        f"{PREFIX}</invoke>\n",
        f"{PREFIX}<tool_call>\n",
        f"{PREFIX}</tool_call>",
        style="minimax_m3_xml",
    ),
    markup='`]<]minimax[>[<invoke name="NAME">`, a tag of that prefix for each parameter',
    field="reasoning_content",
    recovers="forgotten closing tags; nested values by their types",
)
