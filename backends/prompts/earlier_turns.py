"""Earlier turns in the form that a chat template prints: calls, their results, thoughts.

Pure: it makes new messages and leaves the caller's alone. Nothing is left out: text, thought and calls that the
template does not take together become two messages, several calls of which it prints one become as many turns, each
with its result, and calls without any form become text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dragoman.backends.prompts.call_form import THOUGHT_FIELDS, CallForm, with_thought_block, without_text
from dragoman.backends.prompts.messages import short_id
from dragoman.backends.prompts.spoken_calls import parsed, spoken

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class EarlierTurns:
    """`form` None: the template prints no calls. `short_ids`: it demands ids of nine letters and digits. `source` is
    its text. `thought_blocks`: it prints thoughts that are blocks of the content."""

    form: CallForm | None
    short_ids: bool
    source: str
    thought_blocks: bool = False

    def prepared(self, messages: Sequence[Json]) -> list[Json]:
        prepared: list[Json] = []
        names: dict[str, str] = {}  # of calls by their ids
        at = 0
        while at < len(messages):
            message = _without_empty_thought(messages[at])
            at += 1
            if not (calls := message.get("tool_calls")):
                prepared.append(self._result(message, names) if message.get("role") == "tool" else message)
                continue
            names.update({str(call.get("id")): str(_function(call).get("name", "")) for call in calls})
            results: list[Json] = []
            while at < len(messages) and messages[at].get("role") == "tool":
                results.append(self._result(messages[at], names))
                at += 1
            prepared += self._with_calls(message, results)
        if self.thought_blocks:
            return [with_thought_block(message) if "thinking" in message else message for message in prepared]
        return prepared

    def _result(self, message: Json, names: dict[str, str]) -> Json:
        """With the call's name, which a few templates print (Kimi K2, FunctionGemma)."""
        id = str(message.get("tool_call_id", ""))
        named = {"name": names[id]} | message if names.get(id) else message
        return named | {"tool_call_id": short_id(id)} if self.short_ids else named

    def _with_calls(self, message: Json, results: list[Json]) -> list[Json]:
        form, content = self.form, message.get("content")
        if form is None:
            text = spoken(message["tool_calls"], self.source)
            text = f"{content}\n{text}" if content else text
            return [_without(message, "tool_calls") | {"content": text}, *results]
        message = message | {"tool_calls": [self._call(call, as_text=form.as_text) for call in message["tool_calls"]]}
        if not content:
            return _turns(without_text(message, form.content), results, form)
        if form.beside_thought if _thinks(message) else form.beside_text:
            return _turns(message, results, form)
        text_alone = {"role": message["role"], "content": content}
        return [text_alone, *_turns(without_text(message, form.content), results, form)]

    def _call(self, call: Json, *, as_text: bool) -> Json:
        call = dict(call)
        if self.short_ids:
            call["id"] = short_id(str(call.get("id", "")))
        function = call.get("function")
        if isinstance(function, dict):
            arguments = function.get("arguments")
            if isinstance(arguments, str) and not as_text:
                call["function"] = function | {"arguments": parsed(arguments)}
            elif not isinstance(arguments, str) and as_text:
                call["function"] = function | {"arguments": json.dumps(arguments, ensure_ascii=False)}
        return call


def _turns(message: Json, results: list[Json], form: CallForm) -> list[Json]:
    """The calls with their results, in as many turns as the template needs. Text and thought stand in the first."""
    calls = message["tool_calls"]
    if form.together or len(calls) == 1:
        return [message, *results]
    turns: list[Json] = []
    by_id: dict[object, list[Json]] = {}
    for result in results:
        by_id.setdefault(result.get("tool_call_id"), []).append(result)
    for call in calls:
        turns.append(message | {"tool_calls": [call]})
        turns += by_id.pop(call.get("id"), ())
        message = without_text(_without(message, *THOUGHT_FIELDS), form.content)
    return turns + [result for result in results if result.get("tool_call_id") in by_id]


def _thinks(message: Json) -> bool:
    return any(message.get(field) for field in THOUGHT_FIELDS)


def _without_empty_thought(message: Json) -> Json:
    """Some templates ask whether there is a thought, others what it says."""
    held = any(field in message for field in THOUGHT_FIELDS)
    return _without(message, *THOUGHT_FIELDS) if held and not _thinks(message) else message


def _without(message: Json, *keys: str) -> Json:
    return {name: value for name, value in message.items() if name not in keys}


def _function(call: Json) -> Json:
    function = call.get("function")
    return function if isinstance(function, dict) else {}
