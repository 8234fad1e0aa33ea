"""Chat templates: the real ones of three families, and templates of other families' forms."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.chat.settings import resolve
from dragoman.backends.markup import detect, open_markup
from dragoman.backends.model_folder import build, read_template, today
from dragoman.backends.prompts.messages import BRIDGE
from dragoman.backends.prompts.prompt import Prompt
from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.prompts.template import ChatTemplate
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Message, Reasoning, Request, StopReason, Text, Thinking, Tool, ToolCall, ToolResult
from dragoman.translators.parts import Parts
from tests.conftest import RealComponent
from tests.event_grammar import fold

Json = dict[str, Any]
FAMILIES = ("qwen3", "llama3_1", "deepseek_v3")
TOOL: Json = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Für <b> & co", "parameters": {"type": "object"}},
}
DATE = datetime(2026, 11, 22, 13, 14, 15)


def call(arguments: str, id: str = "call_1") -> Json:
    return {"id": id, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


def conversation(arguments: str = '{"city":"Rome"}', content: str | None = None) -> list[Json]:
    return [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": content, "tool_calls": [call(arguments)]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]


def folder(real_component: RealComponent, family: str) -> Path:
    found = real_component("chat-tokenizers") / f"tokenizer-{family}" / "models"
    assert found.is_dir(), found
    return found


# ------------------------------------------------------------------------------------------------- the real templates


@pytest.mark.real
@pytest.mark.parametrize("family", FAMILIES)
def test_real_templates_show_calls_and_results(family: str, real_component: RealComponent) -> None:
    template = read_template(folder(real_component, family))
    for content in (None, "", "I look it up."):
        prompt = template.render(conversation(content=content), [TOOL])
        for word in ("Be brief.", "Weather?", "get_weather", "Rome", "sunny", content or ""):
            assert word in prompt
        assert prompt.count(template.bos or "\0") <= 1


@pytest.mark.real
@pytest.mark.parametrize("family", FAMILIES)
def test_real_prompts_are_prefixes_of_the_next_turn(family: str, real_component: RealComponent) -> None:
    template = read_template(folder(real_component, family))
    messages: list[Json] = [{"role": "system", "content": "Be brief."}]
    before = ""
    for turn in range(4):
        messages.append({"role": "user", "content": f"Question {turn}?"})
        prompt = template.render(messages, [TOOL], add_generation_prompt=False)
        assert prompt.startswith(before)
        before = prompt
        messages.append({"role": "assistant", "content": f"Answer {turn}."})


@pytest.mark.real
def test_real_templates_name_their_families(real_component: RealComponent) -> None:
    found = {family: read_template(folder(real_component, family)) for family in FAMILIES}
    assert {family: detect(template.source) for family, template in found.items()} == {
        "qwen3": "hermes",
        "llama3_1": None,  # this package's template knows no tools
        "deepseek_v3": "deepseek",
    }
    assert {family: template.takes_tools for family, template in found.items()} == {
        "qwen3": True,
        "llama3_1": False,
        "deepseek_v3": False,
    }


@pytest.mark.real
def test_arguments_stay_as_the_model_wrote_them(real_component: RealComponent) -> None:
    written = '{"city":  "Rom\u00e9"}'
    for family in ("qwen3", "deepseek_v3"):
        template = read_template(folder(real_component, family))
        assert written in template.render(conversation(written), [TOOL])


@pytest.mark.real
def test_thinking_is_switched_by_the_template(real_component: RealComponent) -> None:
    template = read_template(folder(real_component, "qwen3"))
    assert template.render(conversation(), kwargs={"enable_thinking": False}).endswith("<think>\n\n</think>\n\n")


BAR, LINE = "\uff5c", "\u2581"
WRITTEN = {
    "qwen3": "<think>\nThe user wants\n\nthe weather.\n</think>\n\nI look it up.\n<tool_call>\n"
    '{"name": "get_weather", "arguments": {"city":"Rom\u00e9"}}\n</tool_call>\n<tool_call>\n'
    '{"name": "get_weather", "arguments": {"city": "Oslo",  "days": 3}}\n</tool_call><|im_end|>\n',
    "deepseek_v3": f"<{BAR}tool{LINE}calls{LINE}begin{BAR}><{BAR}tool{LINE}call{LINE}begin{BAR}>function"
    f'<{BAR}tool{LINE}sep{BAR}>get_weather\n```json\n{{"city":"Rome"}}\n```<{BAR}tool{LINE}call{LINE}end{BAR}>',
}


@pytest.mark.real
@pytest.mark.parametrize("family", WRITTEN)
def test_what_a_model_wrote_goes_back_to_it_byte_by_byte(family: str, real_component: RealComponent) -> None:
    """Through markup, parts and the next turn's rendering: else the server's prefix cache ends at the answer."""
    template = read_template(folder(real_component, family))
    prompt = Prompt(resolve(), template, Letters())
    tools = (Tool("get_weather", "", {"type": "object"}),)
    asked = Request(id="r", model="m", messages=(Message("user", (Text("Weather?"),)),), tools=tools)
    before = prompt.text(asked, strftime_now=today)
    parts = Parts.of(asked)
    markup = open_markup(detect(template.source), parts, prompt=before, request=asked)
    markup.feed(WRITTEN[family])
    markup.finish()
    parts.finish(StopReason.STOP, None)
    answer = Message("assistant", tuple(fold(parts.take()).parts))
    calls = [part for part in answer.parts if isinstance(part, ToolCall)]
    results = [Message("tool", (ToolResult(call.id, (Text("sunny"),)),)) for call in calls]
    after = prompt.text(replace(asked, messages=(*asked.messages, answer, *results)), strftime_now=today)
    assert after.startswith(before + WRITTEN[family])


# --------------------------------------------------------------------------------------------------------- other forms

OBJECTS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments | tojson }}@{{ c.function.name }}{% endfor %}{% endfor %}"
)
ITEMS = (
    "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}<function={{ c.function.name }}>"
    "{% for k, v in c.function.arguments.items() %}<{{ k }}>{{ v }}{% endfor %}{% endfor %}{% endfor %}"
)
NINE = (
    "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{% if c.id | length != 9 %}"
    "{{ raise_exception('ids of length 9!') }}{% endif %}{{ c.id }}{{ c.function.name }}{{ c.function.arguments }}"
    "{% endfor %}{% if m.role == 'tool' %}={{ m.tool_call_id }}{% endif %}{% endfor %}"
)


def test_arguments_are_objects_where_the_template_wants_objects() -> None:
    assert '{"city": "Rome"}@get_weather' in ChatTemplate(OBJECTS).render(conversation())
    assert "<function=get_weather><city>Rome" in ChatTemplate(ITEMS).render(conversation())


def test_arguments_that_are_no_object_stay_text() -> None:
    assert '"nonsense"@get_weather' in ChatTemplate(OBJECTS).render(conversation("nonsense"))


def test_the_callers_messages_are_left_alone() -> None:
    messages = conversation()
    before = json.dumps(messages)
    ChatTemplate(OBJECTS).render(messages)
    assert json.dumps(messages) == before


def test_call_ids_of_nine_letters_where_the_template_demands_them() -> None:
    prompt = ChatTemplate(NINE).render(conversation())
    name = prompt.index("get_weather")
    assert prompt[name - 9 : name].isalnum()
    assert prompt.endswith("=" + prompt[name - 9 : name])
    assert prompt == ChatTemplate(NINE).render(conversation())


def test_a_template_without_calls_gets_them_as_text() -> None:
    template = ChatTemplate("{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}")
    assert 'assistant:Yes.\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n' in template.render(
        conversation(content="Yes.")
    )
    assert not template.takes_tools


def test_white_space_loop_controls_and_generation_blocks_as_hugging_face_has_them() -> None:
    source = """{% for m in messages %}
    {% if m.role == 'system' %}{% continue %}{% endif %}
    {% generation %}
{{ m.content }}
    {% endgeneration %}
{% endfor %}
"""
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert ChatTemplate(source).render(messages) == "U\n"


def test_tojson_escapes_nothing() -> None:
    template = ChatTemplate("{{ tools[0] | tojson }}|{{ tools | tojson(indent=2) }}")
    prompt = template.render([], [TOOL])
    assert prompt.startswith(json.dumps(TOOL, ensure_ascii=False) + "|")
    assert prompt.endswith(json.dumps([TOOL], ensure_ascii=False, indent=2))


def test_the_date_is_the_arguments_and_never_has_minutes_by_itself() -> None:
    template = ChatTemplate("{{ strftime_now('%d %b %Y %H:%M') }}")
    assert template.render([], strftime_now=DATE.strftime) == "22 Nov 2026 13:14"
    assert template.render([], strftime_now=today).endswith(" 00:00")


def test_kwargs_reach_the_template_and_replace_nothing_of_ours() -> None:
    template = ChatTemplate("{{ enable_thinking }}{{ messages | length }}{{ documents }}", tokens={"bos_token": "<s>"})
    assert template.render([], kwargs={"enable_thinking": False, "messages": [1], "documents": [2]}) == "False0[2]"


def test_a_template_refuses_in_its_own_words() -> None:
    template = ChatTemplate("{{ raise_exception('Roles must alternate!') }}")
    with pytest.raises(GatewayError, match="Roles must alternate!") as caught:
        template.render([])
    assert caught.value.kind is Kind.UNSUPPORTED


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10**9 }}",
        "{{ 10**10**10 }}",
        "{{ range(10**9) | list }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ 'x' * 999 }}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].content.nothing.more }}",
        "{{ 1 + 'a' }}",
    ],
)
def test_bombs_break_ins_and_faults_are_errors(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.backends.prompts.sandbox.OUTPUT_LIMIT", 1 << 20)
    with pytest.raises(GatewayError) as caught:
        ChatTemplate(source).render([{"role": "user", "content": "Hi"}])
    assert caught.value.kind is Kind.UNSUPPORTED
    assert "\n" not in caught.value.message


def test_a_template_that_was_stopped_is_not_probed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.backends.prompts.sandbox.SECONDS", 0.1)
    template = ChatTemplate("{% for a in range(999999) %}{{ a|string|length|string|length }}{% endfor %}")
    begun = time.monotonic()
    assert "it took more than 0.1 s" in template.faults[0]
    assert time.monotonic() - begun < 5


def test_a_template_that_is_none_stops_the_start() -> None:
    with pytest.raises(GatewayError, match="cannot be read") as caught:
        ChatTemplate("{% if %}")
    assert caught.value.kind is Kind.INVALID


# -------------------------------------------------------------------------------------------------------------- files


def write(path: Path, **config: Any) -> None:
    (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def test_from_the_configuration_with_tokens_as_strings_or_objects(tmp_path: Path) -> None:
    write(tmp_path, chat_template="{{ bos_token }}{{ eos_token }}", bos_token={"content": "<s>"}, eos_token="</s>")
    template = read_template(tmp_path)
    assert template.render([]) == "<s></s>"
    assert template.strip_bos("<s>x<s>") == "x<s>"


def test_a_template_of_its_own_for_tools(tmp_path: Path) -> None:
    both = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "<tool_call>"}]
    write(tmp_path, chat_template=both)
    template = read_template(tmp_path)
    assert (template.render([]), template.render([], [TOOL])) == ("plain", "<tool_call>")
    assert detect(template.source) == "hermes"


def test_the_file_goes_before_the_configuration(tmp_path: Path) -> None:
    write(tmp_path, chat_template="old")
    (tmp_path / "chat_template.jinja").write_text("new é", encoding="utf-8")
    assert read_template(tmp_path).render([]) == "new é"


def test_no_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="no chat template"):
        read_template(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(GatewayError, match="not JSON"):
        read_template(tmp_path)


# -------------------------------------------------------------------------------------------------------------- prompts


class Letters:
    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        assert not add_special_tokens
        return [ord(letter) for letter in text]


SOURCE = (
    "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
    "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% if enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% endif %}{% endif %}"
)
REQUEST = Request(
    id="r",
    model="m",
    messages=(
        Message("system", (Text("S"),)),
        Message("user", (Text("Weather?"),)),
        Message("assistant", (Reasoning("Hm."), ToolCall("c1", "get_weather", '{"a":1}'))),
        Message("tool", (ToolResult("c1", (Text("sunny"),)),)),
    ),
    tools=(Tool("get_weather", "", {"type": "object"}),),
)


async def test_a_request_becomes_a_prompt_with_its_ids() -> None:
    prompt = Prompt(resolve(), ChatTemplate(SOURCE), Letters())
    text = '<system>S<user>Weather?<assistant>(Hm.)get_weather{"a":1}<tool>sunny<assistant>'
    assert (await build(prompt, REQUEST)).text == text
    assert (await build(prompt, REQUEST)).count == len(text)
    assert [note.name for note in prompt.notes(REQUEST)] == ["auto:unsupported"]


def test_calls_that_the_template_does_not_print_are_noted() -> None:
    prompt = Prompt(resolve(), ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}"), Letters())
    assert [f"{note.kind}:{note.name}" for note in prompt.notes(REQUEST)] == [
        "tool:auto:unsupported",
        "item:reasoning",
        "item:tool_call:as_text",
    ]
    assert "item:tool_call:as_text" not in [
        f"{note.kind}:{note.name}" for note in prompt.notes(replace(REQUEST, messages=()))
    ]


LATE = replace(REQUEST, messages=(*REQUEST.messages, Message("system", (Text("Be kind."),))), tools=())
FIRST = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}REFUSED{% else %}<{{ m.role }}>"


@pytest.mark.parametrize("refusal", ["{{ raise_exception('System message must be at the beginning.') }}", ""])
def test_later_system_messages_become_user_messages_where_the_template_takes_none(refusal: str) -> None:
    template = ChatTemplate(FIRST.replace("REFUSED", refusal) + "{{ m.content }}{% endif %}{% endfor %}")
    text = Prompt(Rendering(), template, Letters()).text(LATE, strftime_now=today)
    assert text.endswith("<user><system-message>\nBe kind.\n</system-message>")
    kept = Prompt(Rendering(system_messages="leading"), template, Letters())
    if refusal:
        with pytest.raises(GatewayError, match="must be at the beginning"):
            kept.text(LATE, strftime_now=today)
    else:
        assert "Be kind." not in kept.text(LATE, strftime_now=today)
    assert "<system>Be kind." in Prompt(Rendering(), ChatTemplate(SOURCE), Letters()).text(LATE, strftime_now=today)


STRICT = (
    "{% set ns = namespace(last='') %}{% for m in messages %}"
    "{% if m.role == 'user' and ns.last in ('user', 'tool') %}REFUSED{% else %}<{{ m.role }}>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}{{ call | tojson }}{% endfor %}{% endif %}"
    "{% set ns.last = m.role %}{% endfor %}"
)


@pytest.mark.parametrize("refusal", ["{{ raise_exception('roles must alternate') }}", ""])
def test_turns_alternate_where_the_template_wants_it(refusal: str) -> None:
    answered = ToolResult("call_1", (Text("sunny"),))
    said = (Message("user", (Text("Weather?"),)), Message("assistant", (ToolCall("call_1", "get_weather", "{}"),)))
    later = (Message("tool", (answered,)), Message("user", (Text("And"),)), Message("user", (Text("now?"),)))
    request = replace(REQUEST, messages=(*said, *later))
    template = ChatTemplate(STRICT.replace("REFUSED", refusal))
    text = Prompt(Rendering(), template, Letters()).text(request, strftime_now=today)
    assert text.endswith(f"<tool>sunny<assistant>{BRIDGE}<user>And\nnow?")
    kept = Prompt(Rendering(turns="as_sent"), template, Letters())
    if refusal:
        with pytest.raises(GatewayError, match="must alternate"):
            kept.text(request, strftime_now=today)
    else:
        assert "now?" not in kept.text(request, strftime_now=today)
    free = Prompt(Rendering(), ChatTemplate(STRICT.replace("m.role == 'user'", "false")), Letters())
    assert free.text(request, strftime_now=today).endswith("<tool>sunny<user>And<user>now?")


def test_thinking_reaches_the_template_by_its_own_switch() -> None:
    asked = Request(id="r", model="m", messages=REQUEST.messages, thinking=Thinking(effort="none"))
    assert (
        Prompt(resolve(), ChatTemplate(SOURCE), Letters()).text(asked, strftime_now=today).endswith("<think></think>")
    )
    operator = resolve(overrides={"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}})
    assert Prompt(operator, ChatTemplate(SOURCE), Letters()).text(asked, strftime_now=today).endswith("<assistant>")


def test_variables_of_the_client_reach_the_template_and_others_are_noted() -> None:
    prompt = Prompt(resolve(), ChatTemplate(SOURCE + "{{ motto }}"), Letters())
    asked = Request(id="r", model="m", messages=REQUEST.messages, template_kwargs={"motto": "KEEP", "thinking": True})
    assert prompt.text(asked, strftime_now=today).endswith("<assistant>KEEP")
    assert prompt.notes(asked) == ()
    unknown = Request(id="r", model="m", messages=REQUEST.messages, template_kwargs={"slogan": "x"})
    assert [note.name for note in prompt.notes(unknown)] == ["chat_template_kwargs"]


@pytest.mark.parametrize("module", ["template", "tokenizer"])
def test_a_missing_package_names_what_installs_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, {"template": "jinja2", "tokenizer": "tokenizers"}[module], None)
    monkeypatch.delitem(sys.modules, f"dragoman.backends.prompts.{module}", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'dragoman\[tokenizer\]'"):
        importlib.import_module(f"dragoman.backends.prompts.{module}")
