"""The rendering of a conversation: roles by policy, results, images, reasoning, and the prefix rule as a property."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.chat.settings import Settings
from dragoman.backends.prompts.messages import BRIDGE, render
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolReference,
    ToolResult,
)
from dragoman.translators.unreadable import UNSEEN_IMAGE

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def say(role: Role, *parts: Part | str) -> Message:
    return Message(role, tuple(Text(part) if isinstance(part, str) else part for part in parts))


def result(call: str, *parts: Text | Image | str, error: bool = False) -> Message:
    content = tuple(Text(part) if isinstance(part, str) else part for part in parts)
    return Message("tool", (ToolResult(call, content, error),))


def rendered(*messages: Message, **settings: Any) -> list[dict[str, Any]]:
    return render(messages, Settings(**settings))


def roles(*messages: Message, **settings: Any) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in rendered(*messages, **settings)]


CONVERSATION = (say("system", "a"), say("developer", "b"), say("user", "hi"), say("developer", "late"))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("leading", [("system", "a\n\nb"), ("user", "hi"), ("system", "late")]),
        ("keep", [("system", "a"), ("system", "b"), ("user", "hi"), ("system", "late")]),
        ("hoist", [("system", "a\n\nb\n\nlate"), ("user", "hi")]),
        ("user", [("system", "a\n\nb"), ("user", "hi\n<system-message>\nlate\n</system-message>")]),
    ],
)
def test_system_messages_go_where_the_policy_says(policy: str, expected: list[tuple[str, str]]) -> None:
    assert roles(*CONVERSATION, system_messages=policy) == expected


LATE = "<system-message>\nlate\n</system-message>"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ("us", ["user: hi\nlate"]),
        ("su", ["system: late", "user: hi"]),
        ("usu", ["user: hi\nlate\nhi"]),
        ("ussu", ["user: hi\nlate\nlate\nhi"]),
        ("uasu", ["user: hi", "assistant: well", "user: late\nhi"]),
        ("uasau", ["user: hi", "assistant: well", "user: late", "assistant: well", "user: hi"]),
        ("uasua", ["user: hi", "assistant: well", "user: late\nhi", "assistant: well"]),
        ("uuasuu", ["user: hi", "user: hi", "assistant: well", "user: late\nhi\nhi"]),
    ],
)
def test_a_system_message_as_the_users_is_one_with_those_beside_it(messages: str, expected: list[str]) -> None:
    kinds: dict[str, tuple[Role, str]] = {"u": ("user", "hi"), "s": ("system", "late"), "a": ("assistant", "well")}
    shown = roles(*(say(*kinds[each]) for each in messages), system_messages="user")
    assert [f"{role}: {content}" for role, content in shown] == [
        each if each.startswith("system") else each.replace("late", LATE) for each in expected
    ]


def test_a_system_message_as_the_users_stands_beside_an_image() -> None:
    [message] = rendered(say("user", "see", Image(PIXEL)), say("system", "late"), system_messages="user")
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    assert message["content"] == [{"type": "text", "text": "see"}, image, {"type": "text", "text": LATE}]


def test_developer_is_kept_where_the_server_knows_it() -> None:
    kept = roles(say("developer", "a"), say("developer", "b"), say("user", "hi"), developer_role=True)
    assert kept == [("developer", "a\n\nb"), ("user", "hi")]


def test_a_merged_message_of_both_ranks_is_a_system_message() -> None:
    assert roles(*CONVERSATION, developer_role=True) == [
        ("system", "a\n\nb"),
        ("user", "hi"),
        ("developer", "late"),
    ]


def test_text_is_always_one_plain_string() -> None:
    assert roles(say("user", "one")) == [("user", "one")]
    assert roles(say("user", "one", "two")) == [("user", "one\ntwo")]
    assert roles(say("user")) == [("user", "")]


def test_an_image_of_the_user_becomes_a_content_list() -> None:
    message = say("user", "look", Image(PIXEL, "original"), Image(PIXEL))
    assert rendered(message) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": PIXEL, "detail": "high"}},
                {"type": "image_url", "image_url": {"url": PIXEL}},
            ],
        }
    ]


def test_an_image_that_the_model_cannot_see_is_refused_with_its_place() -> None:
    with pytest.raises(GatewayError, match="does not see images") as caught:
        rendered(
            say("user", "x"), say("user", "look", Image(PIXEL, path="input[1].content[1].image_url")), images=False
        )
    assert caught.value.kind is Kind.UNSUPPORTED
    assert caught.value.param == "input[1].content[1].image_url"


def test_images_of_tool_results_follow_all_results_of_the_turn() -> None:
    messages = rendered(
        say("assistant", ToolCall("a", "shot", "{}"), ToolCall("b", "shot", "{}")),
        result("a", "first", Image(PIXEL)),
        result("b", Image(PIXEL)),
        say("user", "and?"),
    )
    assert [message["role"] for message in messages] == ["assistant", "tool", "tool", "user", "user"]
    assert messages[1]["content"] == "first"
    assert messages[2]["content"] == "The images follow in the next user message."
    assert [part["type"] for part in messages[3]["content"]] == ["text", "image_url", "text", "image_url"]
    assert "base64" not in messages[1]["content"] + messages[2]["content"]


CALLED = (say("user", "go"), say("assistant", ToolCall("a", "shot", "{}")))


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ([result("a", "r")], ["tool r"]),
        ([result("a", "r"), say("assistant", "done")], ["tool r", "assistant done"]),
        ([result("a", "r"), say("user", "and?")], ["tool r", f"assistant {BRIDGE}", "user and?"]),
        (
            [result("a", "r"), say("user", "one"), say("user", "two"), say("assistant", "x"), say("user", "y")],
            ["tool r", f"assistant {BRIDGE}", "user one\ntwo", "assistant x", "user y"],
        ),
        (
            [result("a", "r"), say("system", "late"), say("user", "and?")],
            ["tool r", f"assistant {BRIDGE}", "user <system-message>\nlate\n</system-message>\nand?"],
        ),
    ],
)
def test_turns_alternate_where_the_template_wants_it(later: list[Message], expected: list[str]) -> None:
    shown = roles(*CALLED, *later, turns="alternate", system_messages="user")
    assert [f"{role} {content}" for role, content in shown[2:]] == expected


def test_images_and_what_is_said_about_them_are_one_message_where_turns_alternate() -> None:
    image: dict[str, Any] = {"type": "image_url", "image_url": {"url": PIXEL}}
    said = [*CALLED, result("a", Image(PIXEL)), say("user", "and?"), say("user", "see", Image(PIXEL))]
    *_, bridge, last = rendered(*said, turns="alternate", reasoning_field="reasoning")
    assert bridge == {"role": "assistant", "content": BRIDGE, "reasoning": ""}
    assert last["role"] == "user"
    assert [part.get("text", part) for part in last["content"]][1:] == [image, "and?", "see", image]


def test_images_of_tool_results_are_a_note_where_the_model_sees_none() -> None:
    messages = rendered(result("a", "text", Image(PIXEL)), images=False)
    assert messages == [{"role": "tool", "tool_call_id": "a", "content": f"text\n{UNSEEN_IMAGE}"}]


@pytest.mark.parametrize(
    "later",
    [
        [say("assistant", "ok"), say("user", "and now?")],
        [say("user", "and now?")],
        [say("assistant", ToolCall("a", "ls", "{}")), result("a", "x")],
    ],
)
def test_an_image_of_an_earlier_turn_is_a_note_where_the_model_sees_none(later: list[Message]) -> None:
    messages = rendered(say("user", "look", Image(PIXEL)), *later, images=False)
    assert messages[0] == {"role": "user", "content": f"look\n{UNSEEN_IMAGE}"}


def test_a_reminder_of_the_system_does_not_make_a_question_history() -> None:
    with pytest.raises(GatewayError, match="does not see images"):
        rendered(say("user", "look", Image(PIXEL)), say("system", "Be brief."), images=False)


def test_images_stay_inside_the_tool_message_by_setting() -> None:
    (message,) = rendered(result("a", Image(PIXEL), error=True), tool_images="inside")
    assert message["content"] == [
        {"type": "text", "text": "Error: "},
        {"type": "image_url", "image_url": {"url": PIXEL}},
    ]


def test_an_error_of_a_tool_says_so() -> None:
    assert roles(result("a", "boom", error=True)) == [("tool", "Error: boom")]


def test_a_refusal_is_text() -> None:
    assert roles(say("assistant", Refusal("No."))) == [("assistant", "No.")]


@pytest.mark.parametrize(("setting", "content"), [("null", None), ("empty", "")])
def test_a_turn_of_calls_only_has_the_content_that_the_server_wants(setting: str, content: str | None) -> None:
    (message,) = rendered(say("assistant", ToolCall("a", "f", '{"x":1}')), empty_content=setting)
    assert message == {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}],
    }


def test_reasoning_goes_back_on_every_assistant_turn_or_on_none() -> None:
    turns = (say("assistant", Reasoning("hm"), "yes"), say("user", "so?"), say("assistant", "no"))
    with_field = rendered(*turns, reasoning_field="reasoning_content")
    assert [message.get("reasoning_content") for message in with_field] == ["hm", None, ""]
    assert all("reasoning" not in json.dumps(message) for message in rendered(*turns))


def test_a_turn_that_broke_off_in_its_reasoning_is_no_empty_turn() -> None:
    turns = (say("user", "q"), say("assistant", Reasoning("hm")), say("user", "so?"))
    assert [message["role"] for message in rendered(*turns)] == ["user", "user"]
    assert rendered(*turns, reasoning_field="reasoning")[1] == {"role": "assistant", "content": "", "reasoning": "hm"}


TEXTS = st.text(min_size=1, max_size=8)
IMAGES = st.builds(Image, st.just(PIXEL), st.sampled_from([None, "low", "original"]))
USER = st.builds(
    lambda parts: Message("user", tuple(parts)), st.lists(st.builds(Text, TEXTS) | IMAGES, min_size=1, max_size=3)
)
SYSTEM = st.builds(lambda role, text: Message(role, (Text(text),)), st.sampled_from(["system", "developer"]), TEXTS)


@st.composite
def turns(draw: st.DrawFn) -> list[Message]:
    """What happens between two requests: an assistant's turn, its results, and what the client adds."""
    calls = draw(st.lists(st.builds(ToolCall, TEXTS, TEXTS, st.just("{}")), max_size=2))
    said: list[Part] = [*draw(st.lists(st.builds(Reasoning, TEXTS) | st.builds(Text, TEXTS), max_size=2)), *calls]
    results = [
        Message("tool", (ToolResult(call.id, tuple(draw(st.lists(st.builds(Text, TEXTS) | IMAGES, max_size=2)))),))
        for call in calls
    ]
    added = draw(st.lists(USER | SYSTEM, min_size=0 if results else 1, max_size=2))
    return [Message("assistant", tuple(said)), *results, *added]


MAIL = Tool("mail", "", {"type": "object"}, deferred=True)
FOUND = ToolReference("There is mail.", MAIL)


@pytest.mark.parametrize(
    ("setting", "contents"),
    [
        ("listed", ["two\nThere is mail."]),
        ("in_place", ['two\nThere is mail.\n{"name":"mail","description":"","parameters":{"type":"object"}}']),
        ("native", ["two", [{"type": "tool_reference", "name": "mail"}]]),
    ],
)
def test_a_tool_that_was_found_is_shown_as_the_setting_says(setting: str, contents: list[Any]) -> None:
    messages = rendered(result("c", "two", FOUND), deferred_tools=setting)
    assert messages == [{"role": "tool", "tool_call_id": "c", "content": content} for content in contents]


def test_a_result_of_references_alone_is_one_message() -> None:
    [message] = rendered(result("c", FOUND), deferred_tools="native")
    assert message["content"] == [{"type": "tool_reference", "name": "mail"}]
    known = ToolReference("There is mail.")
    assert [each["content"] for each in rendered(result("c", known), deferred_tools="native")] == ["There is mail."]


@given(
    st.lists(SYSTEM, max_size=3),
    USER,
    st.lists(turns(), min_size=1, max_size=4),
    st.sampled_from(["leading", "keep", "user"]),
    st.booleans(),
    st.sampled_from([None, "reasoning"]),
    st.sampled_from(["user", "inside"]),
    st.booleans(),
    st.sampled_from(["as_sent", "alternate"]),
)
def test_the_next_turn_only_appends(
    first: list[Message],
    user: Message,
    later: list[list[Message]],
    policy: Any,
    developer: bool,
    field: Any,
    where: Any,
    sees: bool,
    turns: Any,
) -> None:
    settings = Settings(
        system_messages=policy,
        developer_role=developer,
        reasoning_field=field,
        tool_images=where,
        images=sees,
        turns=turns if field else "as_sent",  # a turn of thoughts that are not sent leaves two of the user's in a row
    )
    conversation = [*first, user]
    before = "]"
    for turn in [[], *later]:
        conversation += turn
        try:
            after = json.dumps(render(conversation, settings))
        except GatewayError:
            assert not sees
            continue  # what was refused was never sent
        assert after.startswith(before.removesuffix("]"))
        before = after
