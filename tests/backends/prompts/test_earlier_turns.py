"""Earlier turns in a template's form."""

from __future__ import annotations

import json
from typing import Any

from dragoman.backends.prompts.call_form import CallForm
from dragoman.backends.prompts.earlier_turns import EarlierTurns

Json = dict[str, Any]


def call(id: str, **arguments: Any) -> Json:
    return {"id": id, "type": "function", "function": {"name": f"f_{id}", "arguments": json.dumps(arguments)}}


def result(id: str) -> Json:
    return {"role": "tool", "tool_call_id": id, "content": f"of {id}"}


def prepared(*messages: Json, form: CallForm | None = None, short_ids: bool = False, source: str = "") -> list[Json]:
    given = list(messages)
    before = json.dumps(given)
    found = EarlierTurns(form, short_ids, source).prepared(given)
    assert json.dumps(given) == before
    return found


def test_a_result_knows_the_name_of_its_call() -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [call("a"), call("b")]}
    _, first, second, stray = prepared(turn, result("b"), result("a"), result("c"), form=CallForm())
    assert (first["name"], second["name"], "name" in stray) == ("f_b", "f_a", False)


def test_an_empty_thought_is_none() -> None:
    spoken = {"role": "assistant", "content": "Yes.", "reasoning_content": ""}
    assert prepared(spoken) == [{"role": "assistant", "content": "Yes."}]
    thought = spoken | {"reasoning_content": "Hm."}
    assert prepared(thought) == [thought]


def test_short_ids_are_the_same_for_call_and_result() -> None:
    turn = {"role": "assistant", "content": None, "tool_calls": [call("call_1")]}
    calling, answered = prepared(turn, result("call_1"), form=CallForm(), short_ids=True)
    assert calling["tool_calls"][0]["id"] == answered["tool_call_id"]
    assert len(answered["tool_call_id"]) == 9
    assert answered["name"] == "f_call_1"


def test_text_thought_and_several_calls_are_kept_in_order() -> None:
    turn = {"role": "assistant", "content": "Two.", "thinking": "Hm.", "tool_calls": [call("a", n=1), call("b", n=2)]}
    form = CallForm(content="null", beside_thought=False, together=False)
    text, first, of_first, second, of_second = prepared(turn, result("a"), result("b"), form=form)
    assert text == {"role": "assistant", "content": "Two."}
    assert (first["thinking"], first["content"]) == ("Hm.", None)
    assert first["tool_calls"][0]["function"]["arguments"] == {"n": 1}
    assert (second["content"], "thinking" in second) == (None, False)
    assert [message["tool_call_id"] for message in (of_first, of_second)] == ["a", "b"]


def test_results_that_belong_to_no_call_stay() -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [call("a"), call("b")]}
    messages = prepared(turn, result("x"), result("b"), form=CallForm(together=False))
    assert [message.get("tool_call_id", "") for message in messages] == ["", "", "b", "x"]


def test_calls_without_a_form_are_text() -> None:
    turn = {"role": "assistant", "content": "Yes.", "tool_calls": [call("a", n=1)]}
    assert prepared(turn) == [{"role": "assistant", "content": 'Yes.\n{"name": "f_a", "arguments": {"n": 1}}'}]
