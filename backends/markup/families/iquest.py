"""IQuest: GLM's grammar in `<iquest_tool_call>`, that of IQuest-Coder V2 and Q1 in `<iquestcoder_tool_call>`."""

from dragoman.backends.markup.families.glm import keyed
from dragoman.backends.markup.family import Family, on_a_line

_TAGS = ("iquest_tool_call", "iquestcoder_tool_call")

FAMILY = Family(
    "iquest",
    "IQuest, IQuest-Coder V2, Q1",
    openers=on_a_line({f"<{tag}>": keyed(f"<{tag}>", f"</{tag}>") for tag in _TAGS}),
    ends=("<|iquest_end|>", "<|im_end|>", "<|endoftext|>"),
    signs=tuple((f"<{tag}>",) for tag in _TAGS),
    names=("iquest",),
    markup="`<iquest_tool_call>` or `<iquestcoder_tool_call>`, `NAME<arg_key>KEY</arg_key><arg_value>…`",
    recovers="forgotten closing tags; values by their types",
)
