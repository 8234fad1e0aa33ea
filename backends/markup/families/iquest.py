"""IQuest: GLM's grammar in `<iquest_tool_call>`."""

from dragoman.backends.markup.families.glm import keyed
from dragoman.backends.markup.family import Family, on_a_line

FAMILY = Family(
    "iquest",
    "IQuest",
    openers=on_a_line({"<iquest_tool_call>": keyed("<iquest_tool_call>", "</iquest_tool_call>")}),
    ends=("<|iquest_end|>", "<|im_end|>", "<|endoftext|>"),
    signs=(("<iquest_tool_call>",),),
    names=("iquest",),
    markup="`<iquest_tool_call>NAME<arg_key>KEY</arg_key><arg_value>…`",
    recovers="forgotten closing tags; values by their types",
)
