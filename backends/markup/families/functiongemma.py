"""FunctionGemma: `<start_function_call>call:NAME{key:<escape>value<escape>}<end_function_call>`, every value between
the same marks, whatever its type."""

from dragoman.backends.markup.family import Family
from dragoman.backends.markup.readers.brace_calls import BraceCalls

FAMILY = Family(
    "functiongemma",
    "FunctionGemma",
    openers={"<start_function_call>": BraceCalls("call:", "<escape>", "<end_function_call>", typed=True)},
    ends=("<end_of_turn>", "<start_function_response>"),
    signs=(("<start_function_call>",),),
    names=("functiongemma",),
    markup="`<start_function_call>call:NAME{key:<escape>value<escape>}<end_function_call>`",
    recovers="values by their types; what is not closed",
)
