"""Calls as a Python list, `[list_rooms(floor=2), now()]`: Llama 4, which may frame it in `<|python_start|>` and
`<|python_end|>`, Llama 3.2, Gemma 3, ToolACE. Llama 4's other form is bare JSON, several objects without a separator.
Bare calls begin the answer and are of declared tools; any other list is an answer."""

from dragoman.backends.markup.family import Bare, Family
from dragoman.backends.markup.readers.either import Either
from dragoman.backends.markup.readers.json_calls import JsonCalls
from dragoman.backends.markup.readers.python_calls import PythonCalls

_FENCES = ("```python", "```tool_code", "```json")
_CLOSERS = ("<|python_end|>", "```")
FORM = Either(JsonCalls(_CLOSERS, separators=",;"), PythonCalls(_CLOSERS), begins=("{", "[{", "[\n"), skipped=_FENCES)

FAMILY = Family(
    "pythonic",
    "Llama 4, Llama 3.2, Gemma 3, ToolACE",
    openers={"<|python_start|>": FORM},
    bare=Bare(FORM, begins=("{", "[", *_FENCES)),
    ends=("<|eot|>", "<|eom|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>"),
    signs=(("<|python_start|>",), ("<|header_start|>",)),
    names=("llama-4", "gemma-3", "toolace"),
    markup="`[NAME(key=value), …]`",
    recovers="JSON's words; a list of objects instead; a fence; forgotten brackets",
)
