"""Settings of chat servers: every preset is valid, every setting is explained, wrong ones are refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.chat.settings import KNOWN_PARAMETERS, PRESETS, Probing, Settings, Wire, resolve
from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.triton.settings import OBEYED
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Sampling


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resolves_and_knows_its_name(preset: str) -> None:
    assert resolve(preset).preset == preset


def test_all_servers_of_the_documentation_have_a_preset() -> None:
    assert set(PRESETS) == {"generic", "trtllm-serve", "triton-openai", "vllm", "sglang", "lmdeploy", "llama.cpp"}


def test_every_setting_has_one_line_of_explanation() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description, name
        assert field.description.endswith("."), name


def test_every_sampling_field_can_be_named_as_a_parameter() -> None:
    assert set(Sampling.__slots__) | {"logprobs", "parallel_tool_calls"} == KNOWN_PARAMETERS


def test_a_setting_belongs_to_one_of_rendering_wire_and_probing() -> None:
    given = [Rendering.model_fields.keys(), Wire.model_fields.keys(), Probing.model_fields.keys()]
    names = [name for fields in given for name in fields if name != "overflow_patterns"]  # both of the latter read it
    assert sorted([*names, "overflow_patterns", "preset"]) == sorted(Settings.model_fields)


def test_an_override_beats_the_preset_and_leaves_the_rest() -> None:
    settings = resolve("trtllm-serve", {"force_tool": "native", "parameters": ["temperature"]})
    assert settings.force_tool == "native"
    assert settings.parameters == {"temperature"}
    assert settings.thinking_budget_field == "thinking_token_budget"


def test_settings_cannot_be_changed_afterwards() -> None:
    settings: Any = resolve("vllm")
    with pytest.raises(ValueError, match="frozen"):
        settings.images = False


@pytest.mark.parametrize(
    ("preset", "overrides", "param", "words"),
    [
        ("trt", {}, "preset", "unknown preset 'trt'"),
        ("vllm", {"force_tools": "native"}, "force_tools", "not permitted"),
        ("vllm", {"force_tool": "magic"}, "force_tool", "'native', 'required', 'schema' or 'prompt'"),
        ("vllm", {"parameters": ["temprature"]}, "parameters", "unknown parameters temprature"),
        ("vllm", {"overflow_patterns": ["("]}, "overflow_patterns", "not a regular expression"),
        ("vllm", {"max_tokens_default": 0}, "max_tokens_default", "greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    preset: str, overrides: dict[str, object], param: str, words: str
) -> None:
    with pytest.raises(GatewayError, match=words) as caught:
        resolve(preset, overrides)
    assert caught.value.param == param
    assert "\n" not in caught.value.message


def table() -> str:
    """The page of the documentation: every setting with its default and explanation, then what the presets change."""
    lines = [
        "# Settings of chat servers",
        "",
        "A backend that speaks chat completions is described by these settings. `preset` chooses a family of servers,",
        "`settings` of the same backend override single ones. This page is made from the code (`make golden`).",
        "",
        "A Triton backend obeys those that the last column names, and refuses the others at start; it has no presets.",
        "",
        "| setting | default | what it is | also for Triton |",
        "|---|---|---|---|",
    ]
    generic = resolve("generic")
    for name, field in Settings.model_fields.items():
        if name != "preset":
            explained = str(field.description).replace("|", "\\|")
            lines.append(f"| `{name}` | {_shown(getattr(generic, name))} | {explained} | {OBEYED.get(name, 'no')} |")
    for preset in PRESETS:
        changed = [name for name in PRESETS[preset] if getattr(resolve(preset), name) != getattr(generic, name)]
        lines += ["", f"## `{preset}`", "", *([] if changed else ["The defaults."])]
        lines += [f"* `{name}`: {_shown(getattr(resolve(preset), name))}" for name in changed]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, frozenset | tuple):
        words = sorted(value) if isinstance(value, frozenset) else value
        return ", ".join(f"`{word}`" for word in words) or "none"
    return f"`{json.dumps(value)}`"


def test_the_documentation_lists_every_setting(rewrite_golden: bool) -> None:
    page = Path(__file__).parents[3] / "docs" / "chat-settings.md"
    if rewrite_golden:
        page.parent.mkdir(exist_ok=True)
        page.write_text(table(), encoding="utf-8")
    assert page.read_text(encoding="utf-8") == table()
