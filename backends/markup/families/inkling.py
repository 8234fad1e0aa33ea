"""Inkling: blocks, each ended by `<|end_message|>`, for thought, text and calls:
`<|content_invoke_tool_json|>{"name": …, "args": {…}}`, the tool's name at times before the token too."""

from dragoman.backends.markup.family import Family, Written
from dragoman.backends.markup.readers.json_calls import JsonCalls

_END = "<|end_message|>"

FAMILY = Family(
    "inkling",
    "Inkling",
    openers={"<|content_invoke_tool_json|>": JsonCalls((_END,))},
    thinking={"<|content_thinking|>": _END},
    ends=("<|content_model_end_sampling|>",),
    frames=("<|message_model|>", "<|content_text|>", "<|content_invoke_tool_text|>", "<|content_tool_error|>", _END),
    named=True,
    signs=(("<|content_invoke_tool_json|>",),),
    names=("inkling",),
    written=Written('<|content_invoke_tool_json|>{"name": "', '", "args": ', "}<|end_message|>", single=True),
    markup='`<|content_invoke_tool_json|>{"name": …, "args": {…}}<|end_message|>`',
    recovers="frames of answers; forgotten brackets",
)
