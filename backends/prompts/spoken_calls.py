"""Earlier calls for a template that prints none: as text, in the markup that the template asks the model for.

Where it asks for none that is known here, a call is a JSON object of name and arguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

Json = dict[str, Any]
Calls = Sequence[tuple[str, Any]]  # names, and arguments that are objects where they could be read


def spoken(calls: Sequence[Json], source: str) -> str:
    """`source` is the template's text."""
    functions = [call.get("function") or {} for call in calls]
    named = [(str(function.get("name")), parsed(function.get("arguments") or "{}")) for function in functions]
    write = next((write for marker, write in _MARKUPS if marker in source), _as_json)
    return write(named)


def parsed(arguments: Any) -> Any:
    """The object that is written there; what is none stays as it is."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _as_json(calls: Calls) -> str:
    return "\n".join(_json({"name": name, "arguments": arguments}) for name, arguments in calls)


def _granite(calls: Calls) -> str:
    return "<|tool_call|>" + _json([{"name": name, "arguments": arguments} for name, arguments in calls])


def _lfm2(calls: Calls) -> str:
    if not all(isinstance(arguments, dict) for _, arguments in calls):
        return _as_json(calls)
    written = (f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})" for name, given in calls)
    return f"<|tool_call_start|>[{', '.join(written)}]<|tool_call_end|>"


def _glm(calls: Calls) -> str:
    if not all(isinstance(arguments, dict) for _, arguments in calls):
        return _as_json(calls)
    return "\n".join(
        f"<tool_call>{name}\n"
        + "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{_bare(value)}</arg_value>\n" for key, value in given.items())
        + "</tool_call>"
        for name, given in calls
    )


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# By what the templates say about calls: Granite 3.3, LFM2, LFM2.5-Instruct, GLM-4.
_MARKUPS: tuple[tuple[str, Callable[[Calls], str]], ...] = (
    ("<|tool_call|> followed by a JSON list", _granite),
    ("List of tools: <|tool_list_start|>[", _lfm2),
    ("List of tools: [", _lfm2),
    ("<tool_call>function_name", _glm),
)
