"""Kimi K3: channels of `<|open|>NAME<|sep|>` … `<|close|>NAME<|sep|>`, one each for thought, answer and calls; each
argument says its type, or one JSON object holds all of them."""

import re

from dragoman.backends.markup.family import Family, Written
from dragoman.backends.markup.readers.tagged_calls import TaggedCalls

_SEP = re.escape("<|sep|>")
_FORM = TaggedCalls(
    call_tag=re.compile(rf'\s+tool="([^"]+)"[^<]*{_SEP}'),
    tag_end="<|sep|>",
    parameter_opens=("<|open|>argument",),
    parameter_tag=re.compile(rf'<\|open\|>argument key="(?P<key>[^"]*)"(?:\s+type="(?P<type>\w+)")?\s*{_SEP}'),
    parameter_tag_end="<|sep|>",
    value_ends=("<|close|>argument<|sep|>",),
    call_ends=("<|close|>call<|sep|>",),
    section_opens=("<|open|>tools<|sep|>",),
    call_opens=("<|open|>call",),
    section_ends=("<|close|>tools<|sep|>", "<|close|>message<|sep|>"),
    body=True,
    escaped=True,
    body_opens=('<|open|>json type="object"<|sep|>',),
    body_ends=("<|close|>json<|sep|>",),
)

FAMILY = Family(
    "kimi_k3",
    "Kimi K3",
    openers={"<|open|>tools<|sep|>": _FORM},
    breaks=True,
    thinking={"<|open|>think<|sep|>": "<|close|>think<|sep|>"},
    ends=("<|end_of_msg|>",),
    frames=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
    signs=(("<|open|>", "<|sep|>"),),
    names=("kimi-k3",),
    written=Written(
        '<|open|>call tool="',
        '" index="1"<|sep|>',
        "<|close|>call<|sep|>",
        "<|open|>tools<|sep|>",
        "<|close|>tools<|sep|>",
        single=True,  # the next one has another number
        style="kimi_k3_xml",
    ),
    markup='`<|open|>call tool="NAME"<|sep|><|open|>argument key="KEY" type="…"<|sep|>…`',
    field="reasoning, reasoning_content",
    recovers="forgotten ends",
)
