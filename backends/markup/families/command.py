"""Command R7B and A: `<|START_ACTION|>[{"tool_call_id": …, "tool_name": …, "parameters": {…}}]<|END_ACTION|>`, thoughts
and answers in blocks of their own. Marks of citations in the text are dropped."""

from dragoman.backends.markup.family import Family, Written
from dragoman.backends.markup.readers.dropped import Dropped
from dragoman.backends.markup.readers.json_calls import JsonCalls

_FORM = JsonCalls(("<|END_ACTION|>",), name_keys=frozenset({"tool_name", "name"}), id_keys=frozenset({"tool_call_id"}))

FAMILY = Family(
    "command",
    "Command R7B, A, A-reasoning, A-vision, 4",
    openers={"<|START_ACTION|>": _FORM, "</co: ": Dropped(r"[\d:,\[\] ]*>")},
    thinking={"<|START_THINKING|>": "<|END_THINKING|>"},
    ends=("<|END_OF_TURN_TOKEN|>",),
    frames=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>", "<co>", "</co>"),
    signs=(("<|START_ACTION|>",),),
    names=("command-r7b", "command-a"),
    written=Written(
        '{"tool_call_id": "0", "tool_name": "',
        '", "parameters": ',
        "}",
        "<|START_ACTION|>[\n    ",
        "\n]<|END_ACTION|>",
        single=True,  # the next one has another number
    ),
    markup='`<|START_ACTION|>[{"tool_name": …, "parameters": {…}}]<|END_ACTION|>`',
    field="reasoning_content",
    recovers="frames of answers; citations; forgotten brackets",
)
