"""Llama 3.1 to 3.3: bare JSON, `{"name": …, "parameters": {…}}`, with or without `<|python_tag|>` before it; several
are separated by `;`, a comma or a newline, or stand in an array. Also `<function=name>{…}</function>`.

Bare JSON is a call only where the answer, or what follows a call, begins with it, where it has no other members, and
where its name is declared; any other JSON is an answer in JSON. Code after `<|python_tag|>` (the built-in tools of
ipython) stays text.
"""

import re

from dragoman.backends.markup.family import Bare, Family, Written
from dragoman.backends.markup.readers.headed_calls import HeadedCalls
from dragoman.backends.markup.readers.json_calls import JsonCalls

JSON = JsonCalls(closers=("</function>",), separators=",;", fenced=True)
_TAGGED = HeadedCalls(header=re.compile(r"(?P<name>[\w.:/-]+)"), separator=">", closers=("</function>",))

FAMILY = Family(
    "llama3",
    "Llama 3.1 to 3.3, functionary 3.1",
    openers={"<|python_tag|>": JSON, "<function=": _TAGGED},
    bare=Bare(JSON, begins=("{", "[", "```json")),
    ends=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
    signs=(("<|python_tag|>",), ("<|start_header_id|>", '"parameters"')),
    names=("llama-3",),
    written=Written('{"name": "', '", "parameters": ', "}", separator="; "),
    markup='`{"name": …, "parameters": {…}}`, `<|python_tag|>` before it, `<function=NAME>{…}`',
    recovers="several calls with any separator; a fence; forgotten brackets",
)
