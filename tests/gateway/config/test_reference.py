"""The explained file, the schema and the page are what the descriptions of the keys make; `make golden` writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from dragoman.backends.chat.settings import PRESETS
from dragoman.gateway import command_line
from dragoman.gateway.config import BackendConfig, Config, ConfigError, ModelRule, load, reference

ROOT = Path(__file__).parents[3]
GATEWAY_YAML = ROOT / "configs" / "gateway.yaml"
MADE = {
    GATEWAY_YAML: reference.example,
    ROOT / "configs" / "gateway.schema.json": reference.schema,
    ROOT / "docs" / "configuration.md": reference.page,
}
SHIPPED = [*sorted((ROOT / "configs").rglob("gateway.yaml"))]


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_what_is_shipped_is_what_the_descriptions_make(path: Path, rewrite_golden: bool) -> None:
    if rewrite_golden:
        path.write_text(MADE[path](), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == MADE[path]()


def models(kind: type[BaseModel]) -> list[type[BaseModel]]:
    return [kind, *(each for field in kind.model_fields.values() for each in inner(field.annotation))]


def inner(annotation: Any) -> list[type[BaseModel]]:
    kinds = (annotation, *getattr(annotation, "__args__", ()))
    sections = [each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)]
    return [each for section in sections for each in models(section)]


def test_every_key_has_a_description_and_one_without_a_value_has_an_example() -> None:
    for model in models(Config):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert field.default is not None or field.examples or inner(field.annotation), f"{model.__name__}.{name}"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return path


def uncommented(text: str) -> str:
    """The file with every example switched on. `# key:` and `#   key:` are examples, other comments are prose."""
    lines = []
    for line in text.splitlines():
        match = re.match(r"# ((?:  )*(?:- )?(?:# )?[a-z_]+:(?: .*)?|  - # .*)$", line)
        lines.append(match.group(1) if match and not match.group(1).lstrip(" ").startswith("http") else line)
    switched = "\n".join(lines)
    return re.sub(r"(?m)^( +)# ([a-z_]+: \S+)$", r"\1\2", switched)


def keys_of(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


def test_every_key_of_the_models_is_in_the_file_and_the_other_way_round() -> None:
    content = yaml.safe_load(uncommented(GATEWAY_YAML.read_text()))
    assert set(content) == keys_of(Config)
    for section in ("tls", "timeouts", "limits", "policy", "pool", "admission", "log"):
        annotation = Config.model_fields[section].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, BaseModel)
        assert set(content[section]) == keys_of(annotation)
    assert set(content["backends"][0]) == keys_of(BackendConfig)
    assert set(content["models"][0]) == keys_of(ModelRule)


def test_the_file_as_it_is_gives_the_defaults() -> None:
    assert load(GATEWAY_YAML) == Config()


def test_the_file_with_every_example_switched_on_validates(tmp_path: Path) -> None:
    others = [f"  - {{url: http://{name}/v1, name: {name}}}\n" for name in ("spare", "cloud")]  # for `fallback`
    text = uncommented(GATEWAY_YAML.read_text()).replace("\nmodels:", "\n" + "".join(others) + "models:")
    with pytest.raises(ConfigError, match="exclude each other"):
        load(write(tmp_path, text))
    config = load(write(tmp_path, re.sub(r"(?m)^ +api_key_file:.*$", "", text)))
    assert config.backends[0].name == "gpu"
    assert config.models[0].prefixes == ("claude-", "gpt-")


def test_every_key_is_explained() -> None:
    lines = GATEWAY_YAML.read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"^ *[a-z_]+:", line):
            assert lines[number - 1].lstrip().startswith("#"), line


def schema() -> Any:
    return json.loads(reference.schema())


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_the_schema_accepts_what_is_shipped(path: Path) -> None:
    assert not list(Draft202012Validator(schema()).iter_errors(yaml.safe_load(path.read_text())))


@pytest.mark.parametrize(
    "text",
    [
        "prot: 1",
        "port: high",
        "timeouts: {keepalive: 0}",
        "backends: [{url: http://a, preset: vlm}]",
        "backends: [{url: http://a, settings: {imagse: true}}]",
        "log: {level: loud}",
    ],
)
def test_the_schema_refuses_what_the_gateway_refuses(text: str) -> None:
    assert list(Draft202012Validator(schema()).iter_errors(yaml.safe_load(text)))


def test_the_presets_of_the_command_line_and_of_the_descriptions_are_those_that_exist() -> None:
    assert tuple(PRESETS) == command_line.PRESETS
    assert all(preset in str(Config.model_fields["preset"].description) for preset in PRESETS)
