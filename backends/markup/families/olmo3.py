"""OLMo 3: `<function_calls>` around calls as Python writes them, one on a line."""

from dragoman.backends.markup.family import Family, on_a_line
from dragoman.backends.markup.readers.python_calls import PythonCalls

FAMILY = Family(
    "olmo3",
    "OLMo 3",
    openers=on_a_line({"<function_calls>": PythonCalls(("</function_calls>",), lines=True)}),
    signs=(("<function_calls>",),),
    names=("olmo-3",),
    markup="`<function_calls>NAME(key=value)</function_calls>`",
    recovers="JSON's words; a list instead of lines",
)
