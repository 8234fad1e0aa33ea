"""Values set in YAML text: what is around them stays byte for byte, and what would be lost is refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dragoman.gateway.config import ConfigError
from dragoman.gateway.config.yaml_edit import Key, edited, put

FILE = """\
# what we serve
backends:
  # below the desk
  - url: http://x/v1   # its port changes
    name: gpu

# names
models:
- name: a
  upstream: "b"  # the large one
log: {level: info}
tls:
"""


@pytest.mark.parametrize(
    ("key", "value", "before", "after"),
    [
        (("backends", 0, "url"), "http://y/v1", "url: http://x/v1   #", "url: http://y/v1   #"),
        (("backends", 0, "preset"), "vllm", "    name: gpu\n", "    name: gpu\n    preset: vllm\n"),
        (
            ("backends", 0, "settings", "markup"),
            "hermes",
            "    name: gpu\n",
            "    name: gpu\n    settings:\n      markup: hermes\n",
        ),
        (("models", 0, "upstream"), "c", 'upstream: "b"  #', "upstream: c  #"),
        (("log", "format"), "text", "log: {level: info}", "log: {level: info, format: text}"),
        (("tls", "key"), "a.key", "tls:\n", "tls: {key: a.key}\n"),
        (("port",), 80, "tls:\n", "tls:\nport: 80\n"),
        (("backends", 1), {"url": "local:"}, "    name: gpu\n", "    name: gpu\n  - url: 'local:'\n"),
    ],
)
def test_only_the_value_changes(key: Key, value: Any, before: str, after: str) -> None:
    assert edited(FILE, {key: value}) == FILE.replace(before, after)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "# nothing yet"])
def test_an_empty_file_gets_what_is_set(text: str) -> None:
    made = edited(text, {("backends",): [{"url": "local:"}], ("log", "level"): "debug"})
    assert made.startswith(text)
    assert yaml.safe_load(made) == {"backends": [{"url": "local:"}], "log": {"level": "debug"}}


def test_several_changes_at_once() -> None:
    changes: dict[Key, Any] = {
        ("backends", 0, "settings", "markup"): "hermes",
        ("backends", 0, "settings", "parameters"): ["seed", "stop"],
        ("backends", 0, "settings", "extra_body"): {"tool_choice": "none"},
    }
    made = yaml.safe_load(edited(FILE, changes))
    assert made["backends"][0]["settings"] == {
        "markup": "hermes",
        "parameters": ["seed", "stop"],
        "extra_body": {"tool_choice": "none"},
    }


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize(
    "text",
    [
        "base: &gpu {url: http://x/v1}\nbackends:\n- *gpu\nother: *gpu\n",
        "base: &gpu\n  url: http://x/v1\nbackends:\n- <<: *gpu\n",
        "backends: [\n  {url: http://x/v1, settings: {markup: a} }, # one\n]\n",
        "backends:\n- url: http://x/v1\n  settings: {}\n",
        "backends:\n- url: http://x/v1\n  settings: ~  # none yet\n",
        "backends:\n- url: |\n    http://x/v1\n  name: a\n",
        "backends:\n- url: http://x/v1\n  settings:\n    # first\n    images: false\n    # more to come\nport: 1\n",
        "backends:\n- {url: http://x/v1}",
        "backends:\n- settings:\n    markup: >\n      folded\n      text\n",
        "backends:\r\n- url: http://x/v1\r\nport: 80\r\n",
        "---\nbackends:\n- url: http://x/v1\n...\n",
    ],
)
def test_all_else_stays_or_nothing_is_changed(text: str) -> None:
    key, expected = ("backends", 0, "settings", "markup"), yaml.safe_load(text)
    put(expected, key, "hermes")
    try:
        made = edited(text, {key: "hermes"})
    except ConfigError:
        pass
    else:
        assert yaml.safe_load(made) == expected
        assert comments(made) == comments(text)


@pytest.mark.parametrize("text", ["", "# later\n", "~", "~  # later\n", "null\n", "---\n", "# later\n---\n", "--- ~\n"])
def test_a_file_that_holds_nothing_begins_with_the_value(text: str) -> None:
    made = edited(text, {("backends", 0, "url"): "http://x/v1", ("port",): 80})
    assert yaml.safe_load(made) == {"backends": [{"url": "http://x/v1"}], "port": 80}
    assert comments(made) == comments(text)


SCALARS = st.one_of(st.integers(), st.booleans(), st.text(), st.none())
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(min_size=1), SCALARS, max_size=3))
NAMES = st.sampled_from(["url", "settings", "name", "a b", "#x", "no"])


@given(
    st.dictionaries(NAMES, st.one_of(VALUES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=4),
    st.lists(NAMES, min_size=1, max_size=3),
    VALUES,
    st.booleans(),
)
def test_whatever_the_file_holds_it_is_right_or_refused(content: Any, path: list[str], value: Any, flow: bool) -> None:
    text = yaml.safe_dump(content, default_flow_style=flow, allow_unicode=True)
    expected = yaml.safe_load(text)
    try:
        put(expected, tuple(path), value)
    except ConfigError:  # a value stands where a section has to be
        return
    try:
        made = edited(text, {tuple(path): value})
    except ConfigError:
        return
    assert yaml.safe_load(made) == expected
