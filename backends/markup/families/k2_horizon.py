"""K2 Horizon: GLM's grammar in `<ifm|tool_call>`."""

from dragoman.backends.markup.families.glm import keyed
from dragoman.backends.markup.family import Family, on_a_line

FAMILY = Family(
    "k2_horizon",
    "K2 Horizon",
    openers=on_a_line({"<ifm|tool_call>": keyed("<ifm|tool_call>", "</ifm|tool_call>")}),
    signs=(("<ifm|tool_call>",),),
    names=("k2-horizon",),
    markup="`<ifm|tool_call>NAME<arg_key>KEY</arg_key><arg_value>…`",
    recovers="forgotten closing tags; values by their types",
)
