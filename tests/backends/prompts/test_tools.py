"""Tools as the model is shown them."""

from dataclasses import replace

from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.prompts.tools import described, shown_tools, with_definitions
from dragoman.translators.ir import Image, Message, Named, Request, Text, Tool, ToolReference, ToolResult

ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "number"}}}, strict=True)
MAIL = Tool("mail", "Mails ä.", {"type": "object"}, deferred=True)
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


def test_what_became_known_is_listed_or_described_in_its_place() -> None:
    asked = replace(ASKED, tools=(ADD, MAIL))
    assert shown_tools(asked, Rendering()) == (ADD, MAIL)
    assert shown_tools(asked, Rendering(deferred_tools="native")) == (ADD, MAIL)
    assert shown_tools(asked, Rendering(deferred_tools="in_place")) == (ADD,)
    forced = replace(asked, tool_choice=Named("mail"))
    assert shown_tools(forced, Rendering(deferred_tools="in_place")) == (ADD, MAIL)


def test_a_template_that_knows_it_is_told_what_is_deferred() -> None:
    for settings in (Rendering(), Rendering(deferred_tools="in_place")):
        assert "defer_loading" not in described(MAIL, settings)["function"]
    native = Rendering(deferred_tools="native")
    assert described(MAIL, native)["function"]["defer_loading"] is True
    assert "defer_loading" not in described(ADD, native)["function"]


def test_a_definition_stands_where_the_tool_became_known() -> None:
    told = Text('there\n{"name":"mail","description":"Mails ä.","parameters":{"type":"object"}}')
    image = Image("data:image/png;base64,AA==")
    found = Message("tool", (ToolResult("c", (ToolReference("there", MAIL), image, ToolReference("there")), True),))
    added = Message("system", (Text("a"), ToolReference("there", MAIL)))
    in_place, native = Rendering(deferred_tools="in_place"), Rendering(deferred_tools="native")
    seen = (ToolResult("c", (told, image, ToolReference("there")), True),)
    assert with_definitions(found, in_place) == Message("tool", seen)
    assert with_definitions(found, native) == found  # its template prints what a result refers to
    assert with_definitions(added, in_place) == with_definitions(added, native) == Message("system", (Text("a"), told))
