"""TLS towards clients and backends, with certificates made here."""

from __future__ import annotations

import signal
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from dragoman.gateway.config import BackendTls, ConfigError, Tls
from dragoman.gateway.factory import tls_context
from dragoman.gateway.serve.tls import for_clients
from tests.certificates import Authority, trusting
from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_command import serving
from tests.serving_gateway import ASK, over

BODY = text_stream("x")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


# ------------------------------------------------------------------------------------------------------------- clients


async def ask(url: str, context: ssl.SSLContext) -> int:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.post(f"{url}/v1/responses", json=ASK) as answer,
    ):
        await answer.read()
        return answer.status


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_clients_are_met_with_a_certificate_which_a_reload_renews(authority: Authority, workers: str) -> None:
    certificate, key = authority.make("gateway")
    settings = {"DRAGOMAN_TLS__CERTIFICATE": str(certificate), "DRAGOMAN_TLS__KEY": str(key)}
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        serving("--backend", server.url, "--workers", workers, **settings) as process,
    ):
        url = await process.ready()
        assert url.startswith("https://")
        assert await ask(url, trusting(authority)) == 200
        newer = authority.folder / "newer"
        newer.mkdir()
        other = Authority(newer)
        for old, new in zip((certificate, key), other.make("gateway"), strict=True):
            new.replace(old)
        await process.reload(workers=int(workers))
        assert await ask(url, trusting(other)) == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(url, trusting(authority))
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0


async def test_clients_without_the_right_certificate_are_turned_away(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.make("gateway")
    settings = {
        "DRAGOMAN_TLS__CERTIFICATE": str(certificate),
        "DRAGOMAN_TLS__KEY": str(key),
        "DRAGOMAN_TLS__CLIENT_CA": str(authority.ca),
    }
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        serving("--backend", server.url, **settings) as process,
    ):
        url = await process.ready()
        assert await ask(url, trusting(authority, authority.make("ann"))) == 200
        with pytest.raises(aiohttp.ClientError):
            await ask(url, trusting(authority))
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0


# ------------------------------------------------------------------------------------------------------------ backends


async def test_a_backends_certificate_is_checked_and_ours_is_shown(authority: Authority, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.ca))
    context.load_cert_chain(*authority.make("gpu"))
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m"}]})
        return web.Response(body=BODY, content_type="text/event-stream")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/v1"
    certificate, key = authority.make("gateway")
    right = {"ca": authority.ca, "certificate": certificate, "key": key}
    try:
        async with over(url, backend={"tls": right}) as it:
            assert (await it.answer())[0] == 200
        for wrong in ({"ca": authority.ca}, {"certificate": certificate, "key": key}, None):
            async with over(url, backend={"tls": wrong}) as it:
                status, text = await it.answer()
                assert status in (502, 503)
                assert str(tmp_path) not in text
    finally:
        await runner.cleanup()


# -------------------------------------------------------------------------------------------------------------- faults


def test_what_cannot_be_used_is_named_in_one_line(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.make("one")
    _, other = authority.make("two")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    wrong: list[Callable[[], object]] = [
        lambda: for_clients(Tls(certificate=tmp_path / "missing", key=key)),
        lambda: for_clients(Tls(certificate=certificate, key=other)),
        lambda: for_clients(Tls(certificate=nonsense, key=key)),
        lambda: for_clients(Tls(certificate=certificate, key=key, client_ca=nonsense)),
        lambda: tls_context(BackendTls(ca=nonsense), "gpu"),
        lambda: tls_context(BackendTls(certificate=certificate, key=other), "gpu"),
    ]
    for each in wrong:
        with pytest.raises(ConfigError, match="cannot be used") as caught:
            each()
        assert "\n" not in str(caught.value)
    assert for_clients(Tls()) is None


@pytest.mark.parametrize("given", [{"key": "k"}, {"client_ca": "c"}])
def test_a_key_or_an_authority_needs_a_certificate(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="needs a certificate"):
        Tls.model_validate(given)


def test_an_encrypted_key_does_not_ask_at_the_terminal(authority: Authority) -> None:
    certificate, path = authority.make("one")
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="cannot be used"):
        for_clients(Tls(certificate=certificate, key=path))
