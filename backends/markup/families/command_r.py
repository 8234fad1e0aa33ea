"""Command R and R+, the first ones: `Action:` and a fence with an array of `{"tool_name": …, "parameters": {…}}`.

The models also name a tool of their own there, `directly_answer`, which means that none is called; so only a declared
tool makes a call."""

from dragoman.backends.markup.family import Family, Written, on_a_line
from dragoman.backends.markup.readers.json_calls import JsonCalls

_FORM = JsonCalls(("```",), name_keys=frozenset({"tool_name", "name"}), declared=True)

FAMILY = Family(
    "command_r",
    "Command R and R+ of 2024",
    openers=on_a_line({"Action: ```json": _FORM, "Action:\n```json": _FORM, "Action:```json": _FORM}),
    thinking={},
    ends=("<|END_OF_TURN_TOKEN|>",),
    signs=(("json-formatted list of actions",),),
    names=("command-r",),
    written=Written(
        '    {\n        "tool_name": "',
        '",\n        "parameters": ',
        "\n    }",
        "Action: ```json\n[\n",
        "\n]```",
        ",\n",
    ),
    markup='`Action:` and a fence with `[{"tool_name": …, "parameters": {…}}]`',
    recovers="forgotten brackets and fences",
)
