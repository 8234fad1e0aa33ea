"""Gemma 4: `<|tool_call>call:NAME{key:value}<tool_call|>`, strings between `<|"|>`; thoughts in
`<|channel>thought` … `<channel|>`."""

from dragoman.backends.markup.family import Family
from dragoman.backends.markup.readers.brace_calls import BraceCalls

FAMILY = Family(
    "gemma4",
    "Gemma 4",
    openers={"<|tool_call>": BraceCalls("call:", '<|"|>', "<tool_call|>")},
    breaks=True,
    thinking={"<|channel>thought": "<channel|>"},
    ends=("<turn|>", "<eos>", "<|tool_response>"),
    signs=(("<|tool_call>", "<|turn>"),),
    names=("gemma-4",),
    markup="`<|tool_call>call:NAME{key:value}<tool_call|>`",
    field="reasoning, reasoning_content",
    recovers="strings and braces that are not closed; parentheses and other quotes",
)
