"""Nemotron (Llama-3.x-Nemotron, Nemotron Nano v2): `<TOOLCALL>[{"name": …, "arguments": {…}}, …]</TOOLCALL>`.
Nemotron 3 writes what `qwen3_coder` reads."""

from __future__ import annotations

from typing import ClassVar

from dragoman.backends.markup.json_calls import JsonCalls


class Nemotron(JsonCalls):
    openers: ClassVar = {"<TOOLCALL>": "_json_calls", "\n<TOOLCALL>": "_json_calls"}
    closers = ("</TOOLCALL>",)
    ends = ("<|eot_id|>", "<SPECIAL_12>", "</s>", "<|im_end|>")
    arrays = True
