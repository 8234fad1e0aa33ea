"""Nemotron (Llama-3.x-Nemotron, Nemotron Nano v2): `<TOOLCALL>[{"name": …, "arguments": {…}}, …]</TOOLCALL>`.
Nemotron 3 writes what `qwen3_coder` reads."""

from dragoman.backends.markup.family import Family, in_array, on_a_line
from dragoman.backends.markup.readers.json_calls import JsonCalls

FAMILY = Family(
    "nemotron",
    "Llama-Nemotron, Nemotron Nano v2",
    openers=on_a_line({"<TOOLCALL>": JsonCalls(closers=("</TOOLCALL>",))}),
    breaks=True,
    ends=("<|eot_id|>", "<SPECIAL_12>", "</s>", "<|im_end|>"),
    signs=(("<TOOLCALL>",),),
    names=("nemotron",),
    written=in_array("<TOOLCALL>[", "]</TOOLCALL>"),
    markup='`<TOOLCALL>[{"name": …}]</TOOLCALL>`',
    field="in the content",
    recovers="forgotten closing tags and brackets",
)
