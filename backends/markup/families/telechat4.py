"""TeleChat 4, Xing 4: `<tool_call>NAME<param_key>KEY</param_key><param_value>VALUE</param_value></tool_call>`, the name
and one object, or an object of both."""

from dragoman.backends.markup.families.glm import keyed
from dragoman.backends.markup.family import Family, on_a_line
from dragoman.backends.markup.readers.either import Either
from dragoman.backends.markup.readers.json_calls import JsonCalls

_KEY, _VALUE = ("<param_key>", "</param_key>"), ("<param_value>", "</param_value>")
_FORM = Either(JsonCalls(closers=("</tool_call>",)), keyed(key=_KEY, value=_VALUE, body=True), begins=("{",))

FAMILY = Family(
    "telechat4",
    "TeleChat 4, Xing 4",
    openers=on_a_line({"<tool_call>": _FORM}),
    ends=("<_end>", "<|endoftext|>"),
    signs=(("<param_key>",),),
    names=("telechat4", "telechat-4", "xing4", "xingchen4"),
    markup="`<tool_call>NAME<param_key>KEY</param_key><param_value>…`",
    recovers="JSON instead of parameters or of all; forgotten closing tags; values by their types",
)
