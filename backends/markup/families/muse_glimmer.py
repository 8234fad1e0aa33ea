"""Muse Glimmer: messages `to=self` (thoughts), `to=user` and to a tool, whose body holds
`<atem:invoke name="NAME">` and `<atem:parameter name="KEY">`."""

from dragoman.backends.markup.families.minimax_m2 import invokes
from dragoman.backends.markup.family import Family, Headers

_BEGIN, _END = "<atem:function_calls>", "</atem:function_calls>"
_STOPS = ("<|eom|>", "<|eot|>")

FAMILY = Family(
    "muse_glimmer",
    "Muse Glimmer",
    openers={_BEGIN: invokes((_BEGIN, _END), space="atem:")},
    headers=Headers("<|start|>", "<|channel|>", "<|message|>", _STOPS, to_self=("self",), in_body=True),
    thinking={},
    ends=("<|endoftext|>",),
    frames=_STOPS,
    signs=((_BEGIN,),),
    names=("muse-glimmer",),
    markup='`<|start|>assistant to=NAME<|message|><atem:invoke name="NAME">…`',
    field="reasoning_content",
    recovers="forgotten closing tags; values by their types",
)
