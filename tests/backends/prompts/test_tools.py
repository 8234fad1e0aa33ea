"""Tools as the model is shown them."""

from dataclasses import replace

from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.prompts.tools import described, shown_tools
from dragoman.translators.ir import Request, Tool

ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "number"}}}, strict=True)
ASKED = Request(id="r", model="m", messages=(), tools=(ADD,))


def test_without_a_choice_of_tools_none_are_shown_unless_they_are_to_stay() -> None:
    refused = replace(ASKED, tool_choice="none")
    assert shown_tools(ASKED, Rendering()) == (ADD,)
    assert shown_tools(refused, Rendering()) == ()
    assert shown_tools(refused, Rendering(tool_choice_none="send")) == (ADD,)


def test_strict_is_shown_where_it_is_accepted() -> None:
    function = {"name": "add", "description": "Adds.", "parameters": dict(ADD.parameters)}
    assert described(ADD, Rendering()) == {"type": "function", "function": function}
    assert described(ADD, Rendering(strict_tools=True))["function"] == function | {"strict": True}


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    function = described(Tool("now", "", {}), Rendering())["function"]
    assert function == {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}
