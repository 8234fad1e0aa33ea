"""The lines that people paste: the address that a client can reach, quoted for a shell, and never a key."""

from __future__ import annotations

import shlex
import tomllib
from itertools import pairwise
from typing import Any

import pytest

from dragoman.gateway.serve.client_setup import ClientSetup, client_setup


def codex_settings(line: str) -> dict[str, object]:
    """What Codex makes of its `-c` options: each a line of TOML."""
    words = shlex.split(line)
    given = [tomllib.loads(value) for flag, value in pairwise(words) if flag == "-c" and "{" in value]
    settings: dict[str, object] = given[0]["model_providers"]["dragoman"]
    return settings


def variables(line: str) -> dict[str, str]:
    verb, *pairs = shlex.split(line)
    assert verb == "export"
    return dict(pair.split("=", 1) for pair in pairs)


@pytest.mark.parametrize("base", ["http://127.0.0.1:8080", "https://gateway.example:443", "http://[::1]:8080"])
@pytest.mark.parametrize("model", ["any", "org/a model; rm -rf", "it's", "$HOME"])
def test_each_client_gets_its_own_base_and_a_name_that_survives_the_shell(base: str, model: str) -> None:
    openai, anthropic, codex = ClientSetup(base).lines(model)
    assert variables(openai) == {"OPENAI_BASE_URL": f"{base}/v1", "OPENAI_API_KEY": "any"}
    assert variables(anthropic) == {
        "ANTHROPIC_BASE_URL": base,
        "ANTHROPIC_AUTH_TOKEN": "any",
        "ANTHROPIC_MODEL": model,
    }
    assert codex_settings(codex) == {"name": "dragoman", "base_url": f"{base}/v1"}
    assert shlex.split(codex)[:3] == ["codex", "-m", model]


def test_with_keys_the_lines_take_the_client_s_from_a_variable() -> None:
    setup = ClientSetup("http://h:1", keys=True)
    openai, anthropic, codex = setup.lines("m")
    assert variables(openai)["OPENAI_API_KEY"] == variables(anthropic)["ANTHROPIC_AUTH_TOKEN"] == "$KEY"
    assert codex_settings(codex)["env_key"] == "KEY"
    assert setup.text("m").startswith(
        "Paste a line to point a client at it, after `export KEY=` with your key:\n  export "
    )


@pytest.mark.parametrize(
    ("host", "bound", "reached", "everywhere"),
    [
        ("127.0.0.1", ("127.0.0.1", 9), "127.0.0.1:9", False),
        ("localhost", ("127.0.0.1", 9), "localhost:9", False),
        ("0.0.0.0", ("0.0.0.0", 9), "127.0.0.1:9", True),
        ("0", ("0.0.0.0", 9), "127.0.0.1:9", True),
        ("::1", ("::1", 9, 0, 0), "[::1]:9", False),
        ("::", ("::", 9, 0, 0), "[::1]:9", True),
        ("fe80::1%eth0", ("fe80::1%eth0", 9, 0, 2), "[fe80::1%25eth0]:9", False),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_client_is_sent_to_an_address_that_it_can_connect_to(
    host: str, bound: tuple[Any, ...], reached: str, everywhere: bool, scheme: str
) -> None:
    setup = client_setup(host, bound, scheme, keys=False)
    assert (setup.base, setup.everywhere) == (f"{scheme}://{reached}", everywhere)
    assert ("in place of" in setup.text("m")) == everywhere


def test_from_other_machines_it_is_the_machine_that_must_be_named() -> None:
    sentence = ClientSetup("http://[::1]:9", everywhere=True).text("m").splitlines()[0]
    assert sentence.endswith("; from other machines, with this one's name in place of ::1:")
