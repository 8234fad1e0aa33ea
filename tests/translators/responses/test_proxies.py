"""Calls of tools that have an item type of their own, as models write them and as their clients can read them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dragoman.translators.ir import Delta, Event, Finished, PartEnded, PartStarted, Started, StopReason
from dragoman.translators.protocol import Json
from tests.grammar.responses import check_stream
from tests.replay import CONTEXT, PROTOCOL


def item(kind: str, arguments: Json) -> Json:
    """The finished item of a call with these arguments."""
    asked = {"model": "m", "input": "x", "stream": True, "tools": [{"type": kind}]}
    stream = PROTOCOL["responses"].parse(asked, CONTEXT).stream
    written = Delta(orjson.dumps(arguments).decode())
    events: list[Event] = [Started(), PartStarted("call", "c", kind), written, PartEnded(), Finished(StopReason.STOP)]
    [made] = check_stream(b"".join(stream.feed(events)))["output"]
    assert made["type"] == f"{kind}_call"
    return dict(made)


EXEC: Json = {"type": "exec", "command": ["ls"], "env": {}}
RUN: Json = {"commands": ["ls"], "timeout_ms": None, "max_output_length": None}
CHANGE: Json = {"type": "update_file", "path": "a", "diff": "@@"}


@pytest.mark.parametrize(
    ("kind", "field", "arguments", "made"),
    [
        ("local_shell", "action", {"command": ["ls"], "env": None, "timeout_ms": None, "user": None}, EXEC),
        ("local_shell", "action", {"command": ["ls"], "type": "shell"}, EXEC),
        ("local_shell", "action", {"command": ["ls"], "timeout_ms": "5 s", "env": []}, EXEC),
        ("local_shell", "action", {"command": ["sleep", 1.5]}, {**EXEC, "command": ["sleep", "1.5"]}),
        ("local_shell", "action", {"command": ["ls"], "env": {"N": 1}}, {**EXEC, "env": {"N": "1"}}),
        ("local_shell", "action", {"command": 7}, {**EXEC, "command": []}),
        ("shell", "action", {"commands": "ls", "timeout_ms": 5.0}, {**RUN, "timeout_ms": 5}),
        ("shell", "action", {"commands": ["ls"], "timeout_ms": True, "max_output_length": "all"}, RUN),
        ("shell", "action", {"commands": [None]}, {**RUN, "commands": ["null"]}),
        ("apply_patch", "operation", {**CHANGE, "type": "add_file"}, CHANGE),
        ("apply_patch", "operation", {**CHANGE, "diff": None}, {**CHANGE, "diff": ""}),
        ("apply_patch", "operation", {**CHANGE, "path": 3}, {**CHANGE, "path": ""}),
        ("apply_patch", "operation", {**CHANGE, "move_to": "b"}, {**CHANGE, "move_to": "b"}),
    ],
)
def test_an_item_is_of_its_type_whatever_the_model_wrote(kind: str, field: str, arguments: Json, made: Any) -> None:
    """AI SDK 7 ends its stream at an item that is not, and openai-agents 0.24 its run."""
    assert item(kind, arguments)[field] == made
