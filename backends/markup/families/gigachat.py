"""GigaChat: 3 and 3.1 write one JSON object after a token or a role of its own, 3.5 DeepSeek's grammar of tags under
another word."""

from dragoman.backends.markup.families.deepseek import marked
from dragoman.backends.markup.family import Family, Written
from dragoman.backends.markup.readers.json_calls import JsonCalls

_GCML, _OPENERS = marked("GCML")

FAMILY = Family(
    "gigachat",
    "GigaChat 3, 3.1, 3.5",
    openers={
        "<|function_call|>": JsonCalls(),
        "function call<|role_sep|>": JsonCalls(),
        **{opener: _GCML for opener in _OPENERS},
        **{f"\n\n{opener}": _GCML for opener in _OPENERS},
    },
    ends=("</s>",),
    frames=("<|message_sep|>",),
    signs=(("\uff5cGCML\uff5c",), ("<|function_call|>",), ("<|role_sep|>",)),
    names=("gigachat",),
    written=Written('<|function_call|>{"name": "', '", "arguments": ', "}", single=True),
    markup='`<|function_call|>{"name": …}`, tags marked GCML',
    recovers="forgotten closing tags and brackets; JSON instead of parameters",
)
