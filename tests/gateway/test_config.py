"""Where the configuration and its secrets come from, and what beats what; `config/test_faults.py` has the errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dragoman.gateway.config import BackendConfig, Config, ConfigError, load
from dragoman.gateway.keys.secrets import Secrets, read


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("DRAGOMAN_"):
            monkeypatch.delenv(name)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    return path


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "port: 1\nhost: 127.0.0.2\nmodel: from-file\ntimeouts: {connect: 1, drain: 7}\n")
    monkeypatch.setenv("DRAGOMAN_PORT", "2")
    monkeypatch.setenv("DRAGOMAN_MODEL", "from-environment")
    monkeypatch.setenv("DRAGOMAN_TIMEOUTS__CONNECT", "2.5")
    config = load(path, {"port": 3, "model": None})
    assert (config.port, config.model, config.host) == (3, "from-environment", "127.0.0.2")
    assert (config.timeouts.connect, config.timeouts.drain, config.timeouts.keepalive) == (2.5, 7, 15)


def test_the_backend_variable_takes_a_comma_list_and_flags_replace_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_BACKEND", "http://a/v1, http://b/v1")
    assert [each.url for each in load().named_backends] == ["http://a/v1", "http://b/v1"]
    assert [each.name for each in load().named_backends] == ["chat", "chat-2"]
    config = load(None, {"backends": [{"url": "http://c/v1"}]})
    assert [each.url for each in config.named_backends] == ["http://c/v1"]


def test_servers_named_by_address_alone_are_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_BACKEND", "http://a/v1, http://b/v1")
    assert [(group.name, [each.name for each in group.members]) for group in load().groups] == [
        ("pool", ["chat", "chat-2"])
    ]
    monkeypatch.setenv("DRAGOMAN_BACKEND", "http://a/v1")
    assert [(group.name, group.pooled) for group in load().groups] == [("chat", False)]


def test_backends_of_the_file_are_alone_unless_they_name_a_pool(tmp_path: Path) -> None:
    text = """
    backends:
      - {url: http://a/v1, name: a, pool: qwen, window: 8192}
      - {url: http://b/v1, name: b}
      - {url: http://c/v1, name: c, pool: qwen, model: Qwen, window: 4096, wake: wake}
    models: [{name: m, backend: qwen}, {name: n, backend: b}]
    """
    qwen, alone = load(write(tmp_path, text)).groups
    assert (qwen.name, [each.name for each in qwen.members]) == ("qwen", ["a", "c"])
    assert (qwen.pooled, qwen.wakes, qwen.model, qwen.window) == (True, True, "Qwen", 4096)
    assert (alone.name, alone.pooled, alone.wakes) == ("b", False, False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "backends: [{url: 'http://a', name: a, pool: p}, {url: 'http://b', name: p}]",
            "'p' is a pool's and a backend",
        ),
        (
            "backends: [{url: 'http://a', name: a, pool: p}]\nmodels: [{name: m, backend: a}]",
            "no backend is called 'a'; it is a server of the pool 'p'",
        ),
    ],
)
def test_names_of_pools_and_backends_are_not_mixed_up(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(write(tmp_path, text))


def test_the_local_model_is_the_default_backend() -> None:
    assert [each.url for each in Config().named_backends] == ["local:"]


def test_lists_of_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_MODELS", '[{"name": "a", "aliases": ["b"]}]')
    assert load().models[0].aliases == ("b",)


def test_the_file_can_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_CONFIG", str(write(tmp_path, "port: 99")))
    assert load().port == 99


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load(tmp_path / "absent.yaml")


def test_the_variables_that_kubernetes_adds_for_a_service_of_our_name_are_none_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DRAGOMAN_PORT", "tcp://10.0.0.1:8080")
    monkeypatch.setenv("DRAGOMAN_PORT_8080_TCP_ADDR", "10.0.0.1")
    monkeypatch.setenv("DRAGOMAN_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("DRAGOMAN_SERVICE_PORT_HTTP", "8080")
    assert load() == Config()


def secrets(config: Config | None = None, **environ: str) -> Secrets:
    return read(config or Config(), environ)


def test_client_keys_come_from_the_environment_and_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nthree\n\nfour\n")
    config = Config(api_keys_file=path)
    assert secrets(config, DRAGOMAN_API_KEYS="one, two,").client_keys == ("one", "two", "three", "four")


def test_without_keys_only_loopback_is_listened_on() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        assert secrets(Config(host=host)).client_keys == ()
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ConfigError, match="host: without client keys only a loopback"):
            secrets(Config(host=host))
        assert secrets(Config(host=host), DRAGOMAN_API_KEYS="sk-dummy").client_keys == ("sk-dummy",)


def test_backend_keys_are_referenced_by_variable_file_or_the_common_variable(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("from-file\n")
    entries: list[dict[str, Any]] = [
        {"url": "a", "name": "a", "api_key_env": "A_KEY"},
        {"url": "b", "name": "b", "api_key_file": path},
        {"url": "c", "name": "c"},
    ]
    config = Config(backends=tuple(BackendConfig(**entry) for entry in entries))
    read_keys = secrets(config, A_KEY="from-variable", DRAGOMAN_BACKEND_API_KEY="common")
    assert [read_keys.backend_key(name) for name in "abc"] == ["from-variable", "from-file", "common"]
    assert "from-" not in repr(read_keys)
    with pytest.raises(ConfigError, match="the variable A_KEY is not set"):
        secrets(config)


def test_a_path_that_can_be_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^api_keys_file: a.b cannot be read: embedded null byte$"):
        read(Config(api_keys_file=Path("a\0b")), {})


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for text in ("# ours\r\nfirst\r\n", "first\r\n"):
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert read(Config(api_keys_file=path), {}).client_keys == ("first",)


def test_an_empty_or_missing_key_file_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(ConfigError, match=r"api_keys_file: .*keys cannot be read"):
        secrets(Config(api_keys_file=path))
    path.write_text("# none yet\n")
    with pytest.raises(ConfigError, match="holds no key"):
        secrets(Config(api_keys_file=path))


@pytest.mark.parametrize(
    ("models", "told"),
    [(("a", "b"), "backends.1.model: the pool 'p' serves 'a' already"), (("a", "a"), None), (("a", None), None)],
)
def test_the_servers_of_a_pool_are_replicas_of_one_model(
    models: tuple[str | None, str | None], told: str | None
) -> None:
    backends = [{"url": f"http://h{n}/v1", "pool": "p", "model": model} for n, model in enumerate(models)]
    if told is None:
        assert len(Config(backends=backends).groups) == 1
        return
    with pytest.raises(ValueError, match=told):
        Config(backends=backends)


def test_servers_of_two_pools_may_have_different_models() -> None:
    backends = [{"url": f"http://{name}/v1", "pool": name, "model": name} for name in ("a", "b")]
    assert [group.model for group in Config(backends=backends).groups] == ["a", "b"]


@pytest.mark.parametrize(
    ("file", "environment", "url", "age"),
    [
        ("", {"STORE": "off"}, "off", 86_400),
        ("", {"STORE": "memory", "STORE__AGE": "5"}, "memory", 5),
        ("store: {age: 7}", {"STORE": "off"}, "off", 7),
        ("store: off", {"STORE__AGE": "5"}, "off", 5),
        ("store: memory", {"STORE": "sqlite:/x.db"}, "sqlite:/x.db", 86_400),
    ],
)
def test_a_store_may_be_named_by_one_word_in_each_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, environment: dict[str, str], url: str, age: float
) -> None:
    path = write(tmp_path, file)
    for name, value in environment.items():
        monkeypatch.setenv(f"DRAGOMAN_{name}", value)
    store = load(path).store
    assert (store.url, store.age) == (url, age)


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TIMEOUTS", "5", "'5' is not a section; write keys below it: connect, first_event, between_events …"),
        ("LOG", "debug", "'debug' is not a section; write keys below it: level, format, begins …"),
        ("STORE", "of", "url: must be off, memory, sqlite:PATH or postgresql://HOST/DATABASE"),
        ("HOST", "localhost:8080", "must be an address or a name alone; the port has a key of its own"),
        ("HOST", "[::1]:8080", "must be an address or a name alone; the port has a key of its own"),
        ("HOST", "http://127.0.0.1", "must be an address or a name alone; the port has a key of its own"),
    ],
)
def test_a_variable_with_a_value_of_another_kind_is_told_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"DRAGOMAN_{variable}", value)
    with pytest.raises(ConfigError) as raised:
        load()
    assert str(raised.value) == f"environment: DRAGOMAN_{variable}: {told}"


def test_a_wrong_word_for_a_section_has_its_place_in_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "port: 1\nstore: of\n")
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(file))}:2:1: store\.url: must be off"):
        load(file)


def test_an_address_of_ipv6_may_be_written_as_in_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGOMAN_HOST", "[::1]")
    assert load().host == "::1"
    assert load().loopback
