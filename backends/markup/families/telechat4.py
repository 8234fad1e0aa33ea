"""TeleChat 4: `<tool_call>NAME<param_key>KEY</param_key><param_value>VALUE</param_value></tool_call>`, or the name and
one object."""

from dragoman.backends.markup.families.glm import keyed
from dragoman.backends.markup.family import Family, on_a_line

_KEY, _VALUE = ("<param_key>", "</param_key>"), ("<param_value>", "</param_value>")

FAMILY = Family(
    "telechat4",
    "TeleChat 4",
    openers=on_a_line({"<tool_call>": keyed(key=_KEY, value=_VALUE, body=True)}),
    ends=("<_end>", "<|endoftext|>"),
    signs=(("<param_key>",),),
    names=("telechat4", "telechat-4"),
    markup="`<tool_call>NAME<param_key>KEY</param_key><param_value>…`",
    recovers="JSON instead of parameters; forgotten closing tags; values by their types",
)
