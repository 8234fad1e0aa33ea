"""dots: `<dots_function_call>` around `<invoke name="NAME">` and `<parameter name="KEY">`."""

from dragoman.backends.markup.families.minimax_m2 import invokes
from dragoman.backends.markup.family import Family, on_a_line
from dragoman.backends.markup.readers.either import Either
from dragoman.backends.markup.readers.json_calls import JsonCalls

_BEGIN, _END = "<dots_function_call>", "</dots_function_call>"

FAMILY = Family(
    "dots",
    "dots",
    openers=on_a_line({_BEGIN: Either(JsonCalls((_END,)), invokes((_BEGIN, _END)), begins=("{", "["))}),
    signs=(("<dots_function_call>",),),
    markup='`<dots_function_call><invoke name="NAME"><parameter name="KEY">…`',
    recovers="forgotten closing tags; values by their types; JSON instead of tags",
)
