"""Gemma 4: `<|tool_call>call:NAME{key:value}<tool_call|>`, strings between `<|"|>`; thoughts in
`<|channel>thought` … `<channel|>`. The tag before a call is at times forgotten, or written `<call>`."""

from dragoman.backends.markup.family import Bare, Family
from dragoman.backends.markup.readers.brace_calls import BraceCalls

_OPENER, _WORD = "<|tool_call>", "call:"
_FORM = BraceCalls(_WORD, '<|"|>', "<tool_call|>", opener=_OPENER)

FAMILY = Family(
    "gemma4",
    "Gemma 4",
    openers={_OPENER: _FORM, "<call>": _FORM, f"\n{_WORD}": _FORM},
    bare=Bare(_FORM, begins=(_WORD,)),
    breaks=True,
    thinking={"<|channel>thought": "<channel|>"},
    ends=("<turn|>", "<eos>", "<|tool_response>"),
    signs=(("<|tool_call>", "<|turn>"),),
    names=("gemma-4",),
    markup="`<|tool_call>call:NAME{key:value}<tool_call|>`",
    field="reasoning, reasoning_content",
    recovers="strings and braces that are open at either end; parentheses; other quotes; a forgotten tag before a call",
)
