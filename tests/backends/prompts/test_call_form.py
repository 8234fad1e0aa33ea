"""What templates print for earlier calls and thoughts: the smallest template that shows each trait."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.backends.prompts.call_form import Failed, find_call_form, find_thought_field
from dragoman.backends.prompts.template import ChatTemplate
from dragoman.translators.errors import GatewayError, Kind

Json = dict[str, Any]

WRITTEN = '{"city": "Zürich", "days": 2}'
TOOLS: list[Json] = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


def conversation(content: str | None = None, written: str = WRITTEN, **thought: str) -> list[Json]:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": written}}
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": content, "tool_calls": [call], **thought},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]


def calling(form: str) -> str:
    """A template that prints each call by `form`, in which it is called f."""
    return (
        "{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
        "{% set f = c.function %}" + form + "{% endfor %}{% endfor %}"
    )


def prompt(source: str, messages: list[Json] | None = None, tools: list[Json] | None = None) -> str:
    return ChatTemplate(source).render(conversation() if messages is None else messages, tools)


def called(source: str, **told: Any) -> str:
    return prompt(calling(source), conversation(**told)).split("[assistant]")[1].split("[tool]")[0]


# ------------------------------------------------------------------------------------------------- tools and the probe

UNGUARDED = "{% for t in tools %}<tool>{{ t.function | tojson }}</tool>{% endfor %}"
HERMES = calling(
    '<tool_call>\n{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}\n</tool_call>',
)


@pytest.mark.parametrize("start", [UNGUARDED, "{{ tools | length }}"])
@pytest.mark.parametrize("tools", [TOOLS, None])
def test_calls_are_printed_by_a_template_that_does_not_ask_whether_there_are_tools(
    start: str, tools: list[Json] | None
) -> None:
    shown = prompt(start + HERMES, tools=tools)
    assert f'[assistant]<tool_call>\n{{"name": "look_up", "arguments": {WRITTEN}}}\n</tool_call>[tool]' in shown


def test_calls_that_are_printed_only_where_tools_are_declared() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}{% if tools %}"
        "<call>{{ c.function.arguments | tojson }}</call>{% endif %}{% endfor %}{% endfor %}"
    )
    assert f"<call>{WRITTEN}</call>" in template.render(conversation(), TOOLS)
    assert (template.calls_as_text(True), template.calls_as_text(False)) == (False, True)


def test_a_template_that_fails_on_calls_answers_in_its_words() -> None:
    template = ChatTemplate(calling("{{ messages.append(f) }}"))
    with pytest.raises(GatewayError, match="attribute 'append' of 'list' object is unsafe"):
        template.render(conversation(), TOOLS)
    (fault,) = template.faults
    assert fault.startswith("an earlier call: ")
    assert "append" in fault
    assert not template.calls_as_text(True)


def test_a_template_that_fails_on_tools_is_told() -> None:
    template = ChatTemplate("{% if tools %}{{ raise_exception('No tools!') }}{% endif %}Hi.")
    assert [fault.partition(":")[0] for fault in template.faults] == ["a declared tool", "an earlier call"]
    assert "No tools!" in template.faults[0]
    assert not template.takes_tools


def test_a_template_without_faults_has_none() -> None:
    assert ChatTemplate(UNGUARDED + HERMES).faults == ()


def test_tools_that_are_printed_beside_a_system_message() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% if m.role == 'system' %}{{ tools | tojson }}{% endif %}{{ m.content }}{% endfor %}"
    )
    assert template.takes_tools


# ------------------------------------------------------------------------------------------------------------ arguments

GEMMA_4 = (
    "<|call>{{ f.name }}{{ '{' }}{% if f.arguments is mapping %}{% for k, v in f.arguments | dictsort %}{{ k }}:"
    '{% if v is string %}<|"|>{{ v }}<|"|>{% else %}{{ v | tojson }}{% endif %}{% if not loop.last %},{% endif %}'
    "{% endfor %}{% elif f.arguments is string %}{{ f.arguments }}{% endif %}{{ '}' }}<call|>"
)
KIMI_K3 = (
    "<call {{ f.name }}>{% if f.arguments is string %}<json>{{ f.arguments }}</json>{% else %}"
    "{% for k, v in f.arguments.items() %}<arg {{ k }}>{{ v if v is string else v | tojson }}</arg>{% endfor %}"
    "{% endif %}</call>"
)


def test_an_object_goes_in_where_a_string_would_stand_in_braces_of_the_templates_own() -> None:
    assert called(GEMMA_4) == '<|call>look_up{city:<|"|>Zürich<|"|>,days:2}<call|>'


def test_an_object_goes_in_where_a_string_is_second_best() -> None:
    assert called(KIMI_K3) == "<call look_up><arg city>Zürich</arg><arg days>2</arg></call>"


@pytest.mark.parametrize(
    "form",
    [
        "{{ f.arguments if f.arguments is string else f.arguments | tojson }}",
        "{{ f.arguments if f.arguments is string else f.arguments | tojson(indent=4) }}",
    ],
)
def test_the_models_own_bytes_go_in_where_they_amount_to_the_same(form: str) -> None:
    assert called(form, written='{"city":"Z\u00fcrich",  "days":2}') == '{"city":"Zürich",  "days":2}'


def test_a_string_goes_in_where_an_object_would_be_pythons_repr() -> None:
    assert called('{"name": "{{ f.name }}", "arguments": {{ f.arguments }}}') == (
        f'{{"name": "look_up", "arguments": {WRITTEN}}}'
    )


def test_a_string_goes_in_where_an_object_fails() -> None:
    assert called("{{ f.name + f.arguments }}") == f"look_up{WRITTEN}"


@pytest.mark.parametrize(
    ("form", "printed"),
    [
        ("{% for k, v in f.arguments.items() %}{{ k }}={{ v }};{% endfor %}", "city=Zürich;days=2;"),
        ("{{ f.arguments | tojson }}", WRITTEN),
        ("{% for k in f.arguments %}{{ k }}={{ f.arguments[k] }};{% endfor %}", "city=Zürich;days=2;"),
    ],
)
def test_an_object_goes_in_where_a_string_fails_or_is_quoted_twice(form: str, printed: str) -> None:
    assert called(form) == printed


def test_an_object_goes_in_where_members_that_are_null_are_left_out() -> None:
    form = "{% for k, v in f.arguments.items() if v is not none %}<{{ k }}>{{ v }}</{{ k }}>{% endfor %}"
    assert called(form, written='{"a": null, "b": [1]}') == "<b>[1]</b>"


# -------------------------------------------------------------------------------------------------- what stands beside


@pytest.mark.parametrize(
    ("condition", "content"),
    [
        ("'content' not in m", "absent"),
        ("'content' in m and m.content is none", "null"),
        ("'content' in m and m.content is string", "empty"),
    ],
)
def test_content_beside_calls_is_what_the_template_wants(condition: str, content: str) -> None:
    source = (
        "{% for m in messages %}{% if m.tool_calls %}{% if " + condition + " %}{{ m.tool_calls | tojson }}{% endif %}"
    )
    form = ChatTemplate(source + "{% endif %}{% endfor %}")._call_form(True)
    assert form is not None
    assert form.content == content


def test_null_is_never_printed_beside_calls() -> None:
    needs_content = "{% if m.content is undefined %}{{ raise_exception('no content') }}{% endif %}"
    calls = "{{ m.content }}{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments }}{% endif %}"
    for source in (calls, needs_content + calls):
        assert "sunny" in (shown := prompt("{% for m in messages %}" + source + "{% endfor %}"))
        assert "None" not in shown


def test_text_that_would_be_dropped_beside_calls_goes_first() -> None:
    source = (
        "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments }}{% else %}"
        "{{ m.content }}{% endif %}{% endfor %}"
    )
    assert f"[assistant]One moment.[assistant]{WRITTEN}[tool]" in prompt(source, conversation("One moment."))


GPT_OSS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}{% if m.content and m.thinking %}"
    "{{ raise_exception('content and thinking beside calls') }}{% endif %}{% if m.content or m.thinking %}"
    "<analysis>{{ m.content or m.thinking }}</analysis>{% endif %}{{ m.tool_calls[0].function.arguments | tojson }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


def test_a_thought_beside_calls() -> None:
    shown = prompt(GPT_OSS, conversation(thinking="I look it up."))
    assert f"[assistant]<analysis>I look it up.</analysis>{WRITTEN}[tool]sunny" in shown


def test_text_goes_first_where_text_and_thought_are_refused_beside_calls() -> None:
    shown = prompt(GPT_OSS, conversation("One moment.", thinking="I look it up."))
    assert f"[assistant]One moment.[assistant]<analysis>I look it up.</analysis>{WRITTEN}[tool]sunny" in shown
    assert f"[assistant]<analysis>One moment.</analysis>{WRITTEN}[tool]" in prompt(GPT_OSS, conversation("One moment."))


@pytest.mark.parametrize("second", ["", "{{ raise_exception('one call at a time!') }}"])
def test_a_template_of_single_calls_gets_each_with_its_result(second: str) -> None:
    source = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content or '' }}{% if m.tool_calls %}"
        "{% if m.tool_calls | length > 1 %}" + second + "{% endif %}{{ m.tool_calls[0].function.arguments | tojson }}"
        "{% endif %}{% endfor %}"
    )
    first = {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": '{"n": 1}'}}
    other = {"id": "b", "type": "function", "function": {"name": "look_up", "arguments": '{"n": 2}'}}
    messages: list[Json] = [
        {"role": "assistant", "content": "Two.", "tool_calls": [first, other]},
        {"role": "tool", "tool_call_id": "b", "content": "second"},
        {"role": "tool", "tool_call_id": "a", "content": "first"},
    ]
    assert prompt(source, messages) == '[assistant]Two.{"n": 1}[tool]first[assistant]{"n": 2}[tool]second'


# ------------------------------------------------------------------------------------------------------------- thoughts

THOUGHTS = [
    ("{% if m.thinking %}<think>{{ m.thinking }}</think>{% endif %}", "thinking"),
    ("{% if 'thought' in m and m['thought'] %}<thinking>{{ m['thought'] }}</thinking>{% endif %}", "thought"),
    ("{% set t = m.get('reasoning') or m.get('reasoning_content') %}{{ t or '' }}", "reasoning_content"),
    ("{% if m.reasoning %}<|think|>{{ m.reasoning }}<|end|>{% endif %}", "reasoning"),
    ("{% if m.reasoning_content %}{{ m.reasoning_content }}{% endif %}", "reasoning_content"),
    ("{% if m.tool_calls and m.reasoning %}{{ m.reasoning }}{% endif %}", "reasoning"),
    ("{% if not loop.last and not m.tool_calls and m.thought %}{{ m.thought }}{% endif %}", "thought"),
    ("{% if thinking and m.reasoning_content %}{{ m.reasoning_content }}{% endif %}", "reasoning_content"),
    ("{% if thinking and reasoning_content %}{{ m.content }}{% endif %}", None),
]


@pytest.mark.parametrize(("printed", "field"), THOUGHTS)
def test_the_field_of_thoughts_is_the_one_that_is_printed(printed: str, field: str | None) -> None:
    template = ChatTemplate("{% for m in messages %}" + printed + "{{ m.content or '' }}{% endfor %}")
    assert template.thought_field == field


BLOCKS = (
    "{% for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for b in m.content or [] %}{% if b.type == 'text' %}{{ b.text }}{% else %}[THINK]{{ b.thinking }}[/THINK]"
    "{% endif %}{% endfor %}{% endif %}{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}{% endfor %}"
    "{% endfor %}"
)


def test_thoughts_are_blocks_of_the_content_where_the_template_prints_those() -> None:
    assert ChatTemplate(BLOCKS).thought_field == "thinking"
    shown = prompt(BLOCKS, conversation("One moment.", thinking="I look it up."))
    assert f"[assistant][THINK]I look it up.[/THINK]One moment.{WRITTEN}[tool]sunny" in shown
    assert f"[assistant]{WRITTEN}[tool]sunny" in prompt(BLOCKS, conversation(thinking=""))
    assert f"[THINK]Hm.[/THINK]{WRITTEN}" in prompt(BLOCKS, conversation(thinking="Hm."))


def test_a_list_that_is_printed_as_it_is_is_no_place_for_thoughts() -> None:
    assert ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}").thought_field is None


# ------------------------------------------------------------------------------------------------------- by themselves


def test_a_rendering_that_always_fails_is_told_from_one_without_calls() -> None:
    def fail(messages: object, tools: object) -> str:
        raise GatewayError(Kind.UNSUPPORTED, "No!")

    assert find_call_form(fail, None, None) == Failed("No!")
    assert find_call_form(lambda messages, tools: "Hi", None, None) is None
    assert find_thought_field(fail, None) is None
