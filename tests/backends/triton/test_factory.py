"""A Triton backend's URL, and what is said when it, a folder or an installation cannot be used."""

from __future__ import annotations

import importlib
import ssl
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.registry import Options, open_backend
from dragoman.backends.triton.address import parse
from dragoman.translators.errors import GatewayError, Kind


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    return tmp_path


def refusal(url: str) -> str:
    with pytest.raises(GatewayError) as caught:
        open_backend(url)
    assert caught.value.kind is Kind.INVALID
    assert "\n" not in caught.value.message
    return caught.value.message


def test_everything_a_url_can_say(folder: Path) -> None:
    query = f"tokenizer={folder}&via=text&markup=llama3&window=8192&metrics=http://m:1/metrics"
    address = parse(f"triton+http://host:8100/my%20model?{query}")
    assert (address.transport, address.host, address.model) == ("http", "host:8100", "my model")
    assert (address.via_text, address.markup, address.window) == (True, "llama3", 8192)
    assert (address.tokenizer, address.metrics) == (folder, "http://m:1/metrics")


def test_what_a_url_may_leave_out(folder: Path) -> None:
    address = parse(f"triton+grpc://[::1]/ensemble?tokenizer={folder}")
    assert (address.host, address.metrics) == ("[::1]:8001", "http://[::1]:8002/metrics")
    assert (address.via_text, address.markup, address.window) == (False, None, None)
    assert parse(f"triton+http://h/m?tokenizer={folder}").host == "h:8000"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("triton+grpc://host:8001/ensemble", "?tokenizer=DIR"),
        ("triton+grpc://host:8001/ensemble?tokenizer=", "?tokenizer=DIR"),
        ("triton+grpc://host:8001/ensemble?tokenizer=/nowhere", "no tokenizer.json in /nowhere"),
        (f"triton+grpc://host:8001/m?tokenizer={'x' * 300}", "tokenizer.json cannot be read: File name too long"),
        ("triton+grpc://host:8001/m?tokenizer=~nobody-of-that-name/m", "no tokenizer.json in ~nobody-of-that-name/m"),
        ("triton+grpc://host:8001/m?tokenizer=a%00b", "no tokenizer.json in"),
        ("triton+grpc://host:8001/?tokenizer={0}", "the model's name"),
        ("triton+grpc://host:8001/a/b?tokenizer={0}", "the model's name"),
        ("triton+grpc:///m?tokenizer={0}", "no host"),
        ("triton+grpc://host:99999/m?tokenizer={0}", "ort"),
        ("triton+grpc://host:8001/m?tokenizer={0}&speed=9", "unknown parameter speed"),
        ("triton+grpc://host:8001/m?tokenizer={0}&window=big", "window"),
        ("triton+grpc://host:8001/m?tokenizer={0}&via=sea", "via"),
        ("triton+grpc://host:8001/m?tokenizer={0}&markup=klingon", "hermes"),
        ("triton+grpc://host:8001/m?tokenizer={0}#top", "fragment"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_its_reason(url: str, said: str, folder: Path) -> None:
    assert said in refusal(url.format(folder))


def test_a_password_in_the_url_is_not_repeated(folder: Path) -> None:
    told = refusal(f"triton+grpc://me:secret@host:8001/m?tokenizer={folder}")
    assert "secret" not in told


@pytest.mark.parametrize(
    ("missing", "transport", "extra"),
    [
        ("dragoman.backends.triton.rpc", "grpc", "triton"),
        ("tritonclient.grpc.service_pb2", "grpc", "triton"),
        ("dragoman.backends.prompts.tokenizer", "http", "tokenizer"),
        ("dragoman.backends.prompts.template", "grpc", "tokenizer"),
    ],
)
def test_a_missing_extra_is_named_with_its_command(
    missing: str, transport: str, extra: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == missing:
            raise ImportError(f"No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    assert f"pip install 'dragoman[{extra}]'" in refusal(f"triton+{transport}://host/m?tokenizer={folder}")


@pytest.mark.parametrize("url", ["triton+grpc://host:8001/m?tokenizer={0}", "local:"])
@pytest.mark.parametrize("options", [Options(preset="vllm"), Options(tls=ssl.create_default_context())])
def test_what_only_a_chat_server_obeys_is_refused_for_others(url: str, options: Options, folder: Path) -> None:
    with pytest.raises(GatewayError, match=r"(preset|tls) has a meaning for http: and https: alone") as caught:
        open_backend(url.format(folder), options)
    assert caught.value.kind is Kind.INVALID


def test_opening_contacts_nothing_and_reads_nothing(folder: Path) -> None:
    backend = open_backend(f"triton+grpc://nowhere.invalid:1/m?tokenizer={folder}", Options(name="mine"))
    assert backend.name == "mine"
