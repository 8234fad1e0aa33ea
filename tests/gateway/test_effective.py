"""What is printed of a configuration: every secret masked, and what only looks like one shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from dragoman.gateway.config import BackendConfig, Config, Tls
from dragoman.gateway.effective import effective, mask_settings, without_secrets
from dragoman.gateway.factory import mask_url


@pytest.mark.parametrize("name", ["auth_token", "authToken", "Cookie", "passwd", "x-bearer", "API-Key", "proxy-auth"])
def test_settings_are_masked_by_their_names(name: str) -> None:
    assert mask_settings({"extra_body": {name: "canary"}}) == {"extra_body": {name: "****"}}


def test_what_only_looks_like_a_secrets_name_is_shown() -> None:
    settings = {"output_limit": "max_tokens", "max_tokens": "many", "author": "ann", "token": 3}
    assert mask_settings(settings) == settings


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/v1", "http://h/v1"),
        ("http://me:canary@h/v1?key=canary&x", "http://****@h/v1?key=****&****"),
        ("http://h/v1#canary", "http://h/v1#****"),
        ("triton+grpc://h/m?tokenizer=/d&via=text", "triton+grpc://h/m?tokenizer=/d&via=text"),
        ("triton+grpc://h/m?metrics=http://h:1/metrics", "triton+grpc://h/m?metrics=http://h:1/metrics"),
        ("triton+grpc://h/m?metrics=http://me:canary@h/m", "triton+grpc://h/m?metrics=****"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_key(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_what_another_machine_has_is_left_out_before_the_rest_is_tried(tmp_path: Path) -> None:
    absent, present = (f"triton+http://h/m?tokenizer={folder}" for folder in (tmp_path / "absent", tmp_path))
    config = Config(
        tls=Tls(certificate=Path("/run/tls.crt")),
        backends=tuple(BackendConfig(url=url) for url in (absent, present, "http://h/v1")),
    )
    tried = without_secrets(config)
    assert tried.tls == Tls()
    assert [each.url for each in tried.backends] == [present, "http://h/v1"]
    assert "were not read" in effective(config, None)


def test_a_folder_that_another_machine_has_is_left_out_of_the_settings(tmp_path: Path) -> None:
    given = [{"tokenizer": str(tmp_path / "absent"), "images": False}, {"tokenizer": str(tmp_path)}]
    config = Config(backends=tuple(BackendConfig(url="http://h/v1", settings=settings) for settings in given))
    assert [each.settings for each in without_secrets(config).backends] == [{"images": False}, given[1]]
    assert config.backends[0].settings == given[0]
