"""InternLM2 and 2.5, Intern-S1: `<|action_start|><|plugin|>{"name": …, "parameters": {…}}<|action_end|>`."""

from dragoman.backends.markup.family import Family, Written
from dragoman.backends.markup.readers.json_calls import JsonCalls

_FORM = JsonCalls(("<|action_end|>",))

FAMILY = Family(
    "internlm2",
    "InternLM 2 and 2.5, Intern-S1",
    openers={f"<|action_start|>{blank}<|plugin|>": _FORM for blank in ("", " ", "\n")},
    signs=(("<|action_start|>",),),
    names=("internlm2", "intern-s1"),
    written=Written('<|action_start|><|plugin|>\n{"name": "', '", "parameters": ', "}<|action_end|>", single=True),
    markup='`<|action_start|><|plugin|>{"name": …}<|action_end|>`',
    recovers="forgotten closing tags and brackets",
)
