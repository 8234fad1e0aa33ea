"""Harmony, the format of gpt-oss: messages of `<|start|>ROLE<|channel|>CHANNEL<|message|>…` ended by `<|end|>`,
`<|call|>` or `<|return|>`; `to=RECIPIENT` and `<|constrain|>json` stand in the header, the recipient also before the
channel."""

from dragoman.backends.markup.family import Family, Headers, Written

_STOPS = ("<|end|>", "<|return|>", "<|call|>")

FAMILY = Family(
    "harmony",
    "gpt-oss",
    headers=Headers("<|start|>", "<|channel|>", "<|message|>", _STOPS),
    thinking={},
    ends=("<|endoftext|>",),
    frames=_STOPS,
    signs=(("<|channel|>", "<|message|>"),),
    names=("gpt-oss",),
    written=Written("<|channel|>commentary to=functions.", " <|constrain|>json<|message|>", "<|call|>", single=True),
    markup="`<|channel|>commentary to=functions.NAME<|message|>{…}<|call|>`",
    field="thinking",
    recovers="recipients before the channel, in its place or in the role's header; bodies that are no JSON",
)
