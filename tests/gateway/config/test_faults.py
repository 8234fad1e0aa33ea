"""What is said of a wrong configuration: one line for each fault, with its place, the key, and what would be right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dragoman.gateway.config import ConfigError, load


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DRAGOMAN_"):
            monkeypatch.delenv(name)


def told(path: Path | None = None, flags: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, flags)
    return str(caught.value).splitlines()


GPU = "backends:\n- url: http://a/v1\n"
TWO = GPU + "  name: gpu\n- url: http://b/v1\n  name: spare\nmodels:\n- name: m\n  fallback: "

# The file, and the line that is said of it after its name.
BROKEN = [
    # keys
    ("prot: 1", "1:1: prot: unknown key; did you mean `port`?"),
    ("hots: 127.0.0.1", "1:1: hots: unknown key; did you mean `host`?"),
    ("port: 1\nlisten: 0.0.0.0", "2:1: listen: unknown key; did you mean `host`?"),
    ("timeouts:\n  conect: 1", "2:3: timeouts.conect: unknown key; did you mean `connect`?"),
    ("timeouts: {keep-alive: 1}", "1:12: timeouts.keep-alive: unknown key; did you mean `keepalive`?"),
    ("keepalive: 15", "1:1: keepalive: unknown key; it belongs in `timeouts`"),
    ("log:\n  port: 1", "2:3: log.port: unknown key; it belongs at the top"),
    (GPU + "  nmae: x", "3:3: backends.0.nmae: unknown key; did you mean `name`?"),
    ("backends: [{base_url: 'http://a'}]", "1:13: backends.0.base_url: unknown key; did you mean `url`?"),
    ("backends:\n- name: x", "2:3: backends.0.url: is missing"),
    (GPU + "  settings: {imagse: false}", "3:14: backends.0.settings.imagse: unknown key; did you mean `images`?"),
    ("tsl: {}", "1:1: tsl: unknown key; did you mean `tls`?"),
    ("port: 1\nhost: a\nport: 2", "3:1: the key 'port' is given twice"),
    ("xyzzy: 1", "1:1: xyzzy: unknown key"),
    # secrets, which are not repeated
    ("api_keys: [sk-secret]", "1:1: api_keys: keys are never written down here; use DRAGOMAN_API_KEYS or "
     "api_keys_file"),
    (GPU + "  api_key: sk-secret", "3:3: backends.0.api_key: a key is never written down here; use api_key_env or "
     "api_key_file"),
    (GPU + "  api_key_env: sk-secret", "3:3: backends.0.api_key_env: must be the name of an environment variable, not "
     "the key"),
    # kinds of values
    ("port: high", "1:7: port: 'high' is not a whole number"),
    ("port: 80.5", "1:7: port: 80.5 is not a whole number"),
    ("port: 70000", "1:7: port: 70000 must be at most 65535"),
    ("port:", "1:6: port: is empty; give it a value, or leave the key out"),
    ("no_auth: maybe", "1:10: no_auth: 'maybe' is not true or false"),
    ("model: 4", '1:8: model: 4 is not text; quote it: "4"'),
    ("backends: {url: 'http://a'}", "1:11: backends: a section is not a list; begin each entry with `- `, or write "
     "[a, b]"),
    ("log: debug", "1:6: log: 'debug' is not a section; write keys below it: level, format, begins …"),
    # units
    ("timeouts:\n  between_events: 10m", "2:19: timeouts.between_events: '10m' is not a number of seconds; write 600"),
    ("timeouts: {drain: 1.5h}", "1:19: timeouts.drain: '1.5h' is not a number of seconds; write 5400"),
    ("timeouts: {connect: 500ms}", "1:21: timeouts.connect: '500ms' is not a number of seconds; write 0.5"),
    ("timeouts: {first_event: 600000}", "1:25: timeouts.first_event: 600000 must be at most 86400 seconds; if "
     "milliseconds are meant, write 600"),
    ("timeouts: {keepalive: 0}", "1:23: timeouts.keepalive: 0 must be above 0 seconds"),
    ("limits: {bodies_bytes: 1000000}", "1:10: limits.bodies_bytes: smaller than limits.body_bytes: one body "
     "may never find room"),
    ("limits: {body_bytes: 64MiB}", "1:22: limits.body_bytes: '64MiB' is not a number of bytes; write 67108864"),
    (GPU + "  window: 32k", "3:11: backends.0.window: '32k' is not a number of tokens; write 32768"),
    ("documents: {characters: 100k}", "1:25: documents.characters: '100k' is not a number of characters; write 100000"),
    ("documents: {pages: many}", "1:20: documents.pages: 'many' is not a number of pages"),
    ("search: {text: 0.5M}", "1:16: search.text: '0.5M' is not a number of characters; write 500000"),
    # YAML's `yes` is true, which is no number
    ("port: true", "1:7: port: true is not a whole number"),
    ("timeouts: {connect: yes}", "1:21: timeouts.connect: true is not a number of seconds"),
    ("timeouts: {grace: off}", "1:19: timeouts.grace: false is not a number of seconds"),
    ("admission: {requests: on}", "1:23: admission.requests: true is not a whole number"),
    (GPU + "  window: yes", "3:11: backends.0.window: true is not a number of tokens"),
    (GPU + "  settings: {max_tokens_default: yes}", "3:34: backends.0.settings.max_tokens_default: true is not a whole "
     "number"),
    # words
    ("log: {level: warn}", "1:14: log.level: 'warn' is not one of debug, info, warning, error; did you mean "
     "`warning`?"),
    ("policy: {hosted_tools: refuse}", "1:24: policy.hosted_tools: 'refuse' is not one of ignore, reject"),
    (GPU + "  preset: vlm", "3:11: backends.0.preset: unknown preset 'vlm'; did you mean `vllm`?"),
    (GPU + "  settings: {images: much}", "3:22: backends.0.settings.images: 'much' is not true or false"),
    ("search:\n  parameters: {page: [1]}", "2:16: search.parameters.page: must be text, a number, true or false"),
    ("search: {parameters: {page: }}", "1:23: search.parameters.page: must be text, a number, true or false"),
    # keys that contradict each other
    ("workers: 2", "1:1: workers: the local model belongs to one process; several need a backend of their own"),
    ("models:\n- aliases: [a]", "2:3: models.0: aliases need a name or an upstream name to stand for"),
    (GPU + "  name: gpu\nmodels:\n- name: m\n  backend: gup", "6:3: models.0.backend: no backend is called 'gup'; did "
     "you mean `gpu`?"),
    (TWO + "[spar]", "8:14: models.0.fallback.0: no backend is called 'spar'; did you mean `spare`?"),
    (TWO + "[gpu]", "8:14: models.0.fallback.0: 'gpu' was tried before it"),
    (TWO + "[spare, {backend: spare}]", "8:21: models.0.fallback.1: 'spare' was tried before it"),
    (TWO + "[{backnd: spare}]", "8:15: models.0.fallback.0.backnd: unknown key; did you mean `backend`?"),
    (TWO + "[{backend: spare, window: 3}]", "8:39: models.0.fallback.0.window: 3 must be at least 256 tokens"),
    ("policy: {pass_through: [embedings]}", "1:25: policy.pass_through.0: 'embedings' is not one of embeddings, "
     "completions, rerank; did you mean `embeddings`?"),
    ("models: [{name: a}, {name: b, aliases: [a]}]", "1:21: models.1: the name 'a' is matched twice"),
    ("backends: [{url: x, name: a}, {url: y, name: a}]", "1:40: backends.1.name: the name 'a' is used twice"),
    ("tls: {key: a.key}", "1:1: tls: needs a certificate"),
    (GPU + "  api_key_env: A\n  api_key_file: b", "2:3: backends.0: api_key_env and api_key_file exclude each other"),
    ("images: {allow: ['http://x/y']}", "1:18: images.allow.0: must be host, .suffix or either with :port, without a "
     "scheme or a path"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), BROKEN)
def test_a_fault_is_one_line_with_file_line_key_and_what_would_be_right(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    assert told(path) == [f"{path}:{line}"]


MERGED = """\
backends:
- &one
  url: http://a:1/v1
  pool: p
  settings: &settings {images: false}
- <<: *one
  url: http://b:1/v1
- <<: [*one]
  settings: {<<: *settings, imagse: true}
"""


def test_sections_may_be_merged_into_others(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(MERGED)
    assert told(path) == [f"{path}:9:29: backends.2.settings.imagse: unknown key; did you mean `images`?"]
    path.write_text(MERGED.replace("imagse", "images"))
    config = load(path)
    assert [each.url for each in config.backends] == ["http://a:1/v1", "http://b:1/v1", "http://a:1/v1"]
    assert {each.pool for each in config.backends} == {"p"}
    assert [each.settings["images"] for each in config.backends] == [False, False, True]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("port: [1", ":1:9: not valid YAML: expected ',' or ']'"),
        (
            "log:\n\tlevel: info",
            ":2:1: not valid YAML: found character '\\t' that cannot start any token: a tab cannot",
        ),
        ("model: 2024-13-45", ": not valid YAML"),
        ("port: !!int abc", ": not valid YAML"),
        ("port: !!bool abc", ": not valid YAML"),
        ("port: !!timestamp abc", ": not valid YAML"),
        ("[" * 3000, ": not valid YAML: nested too deeply"),
        ("- a", ": must hold keys and values"),
    ],
)
def test_what_is_not_yaml_is_one_line_too(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    (said,) = told(path)
    assert said.startswith(f"{path}{line}")


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("DRAGOMAN_PORTS", "1", "DRAGOMAN_PORTS: no such setting; did you mean `DRAGOMAN_PORT`?"),
        ("DRAGOMAN_TIMEOUT__DRAIN", "1", "DRAGOMAN_TIMEOUT__DRAIN: no such setting; did you mean "
         "`DRAGOMAN_TIMEOUTS__DRAIN`?"),
        ("DRAGOMAN_PORT", "x", "DRAGOMAN_PORT: 'x' is not a whole number"),
        ("DRAGOMAN_TIMEOUTS__CONECT", "1", "DRAGOMAN_TIMEOUTS__CONECT: unknown key; did you mean "
         "`DRAGOMAN_TIMEOUTS__CONNECT`?"),
        ("DRAGOMAN_TIMEOUTS__CONNECT", "-1", "DRAGOMAN_TIMEOUTS__CONNECT: '-1' must be above 0 seconds"),
        ("DRAGOMAN_TIMEOUTS__CONNECT", "5s", "DRAGOMAN_TIMEOUTS__CONNECT: '5s' is not a number of seconds; write 5"),
        ("DRAGOMAN_LOG__LEVEL", "warn", "DRAGOMAN_LOG__LEVEL: 'warn' is not one of debug, info, warning, error; did "
         "you mean `warning`?"),
        ("DRAGOMAN_MODELS", '[{"name": "a", "alias": []}]', "DRAGOMAN_MODELS: 0.alias: unknown key; did you mean "
         "`aliases`?"),
        ("DRAGOMAN_MODELS", "[{", "DRAGOMAN_MODELS: Expecting property name"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, line: str
) -> None:
    monkeypatch.setenv(variable, value)
    (said,) = told()
    assert said.startswith(f"environment: {line}")


def test_what_is_wrong_in_a_flag_names_the_flag() -> None:
    assert told(flags={"workers": 2})[0].startswith("command line: --workers: the local model belongs")
    assert told(flags={"preset": "vlm", "backends": [{"url": "http://a/v1"}]}) == [
        "command line: --preset: unknown preset 'vlm'; did you mean `vllm`?"
    ]


def test_all_faults_of_all_sources_are_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("prot: 1\nlog: {level: warn}\ntimeouts:\n  drain: 10m\n  drain: 5\nworkers: 0\n")
    monkeypatch.setenv("DRAGOMAN_PORTS", "1")
    monkeypatch.setenv("DRAGOMAN_LIMITS__TOOLS", "many")
    lines = told(path, {"port": -1})
    assert [line.removeprefix(f"{path}:").split(": ")[0] for line in lines] == [
        "1:1", "2:14", "5:3", "6:10", "environment", "command line", "environment"
    ]  # fmt: skip


def test_what_is_wrong_in_presets_and_settings_is_reported_beside_other_faults(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(GPU + "  preset: vlm\n- url: http://b/v1\n  settings: {usag: never}\n- 5\n- {url: 7}\nprot: 1\n")
    lines = told(path)
    assert [line.removeprefix(f"{path}:").split(": ")[0] for line in lines] == ["3:11", "5:14", "6:3", "7:9", "8:1"]
    path.write_text("preset: vlm\nbackends:\n- {url: http://a/v1, preset: 3, settings: 4}\n- url: http://b/v1\n")
    assert [": preset: unknown preset" in line for line in told(path)].count(True) == 1


def test_a_value_from_which_a_secret_could_be_read_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("backends:\n- url: 5\n  api_key_file: 12\nmodel: " + "1" * 80 + "\n")
    assert not [line for line in told(path) if "12" in line.split(": ", 1)[1] or "1111" in line]


def test_an_alias_of_yaml_that_holds_itself_ends(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("backends: &a\n- url: x\n  settings: {a: *a}\nprot: 1\n")
    assert told(path) == [f"{path}:4:1: prot: unknown key; did you mean `port`?"]


def test_a_reload_is_checked_with_the_workers_that_run(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(GPU + "workers: 2\n")
    running = load(path)
    path.write_text(GPU + "store: {url: memory}\n")
    with pytest.raises(ConfigError, match=r"store\.url: workers do not share their memory"):
        load(path).as_running(running)
