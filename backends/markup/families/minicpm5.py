"""MiniCPM 5: `<function name="NAME"><param name="KEY">VALUE</param></function>`, values that hold tags in CDATA."""

from dragoman.backends.markup.families.minimax_m2 import invokes
from dragoman.backends.markup.family import Family, on_a_line

_FORM = invokes(call="function", parameter="param", cdata=True)

FAMILY = Family(
    "minicpm5",
    "MiniCPM 5",
    openers=on_a_line({"<function": _FORM}),
    signs=(("<param name=",),),
    names=("minicpm5",),
    markup='`<function name="NAME"><param name="KEY">…`',
    field="reasoning_content",
    recovers="forgotten closing tags; values by their types",
)
