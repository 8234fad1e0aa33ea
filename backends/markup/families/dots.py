"""dots: `<dots_function_call>` around `<invoke name="NAME">` and `<parameter name="KEY">`."""

from dragoman.backends.markup.families.minimax_m2 import invokes
from dragoman.backends.markup.family import Family, on_a_line

FAMILY = Family(
    "dots",
    "dots",
    openers=on_a_line({"<dots_function_call>": invokes(("<dots_function_call>", "</dots_function_call>"))}),
    signs=(("<dots_function_call>",),),
    markup='`<dots_function_call><invoke name="NAME"><parameter name="KEY">…`',
    recovers="forgotten closing tags; values by their types",
)
