"""TLS towards clients and backends, with certificates made here."""

from __future__ import annotations

import datetime
import ipaddress
import signal
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dragoman.gateway.config import BackendTls, ConfigError, Tls
from dragoman.gateway.factory import tls_context
from dragoman.gateway.serve.tls import for_clients
from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_command import serving
from tests.serving_gateway import ASK, over

BODY = text_stream("x")


@dataclass
class Authority:
    """Certificates in `folder`: `ca.crt`, and for each name of `make` a `.crt` with its chain and a `.key`."""

    folder: Path

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ca of {self.folder.name}")])
        own = self._builder(self._name, self._key)
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        own = own.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        uses = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only", "digital_signature"), False,
        )  # fmt: skip
        own = own.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **uses), critical=True)
        self.ca = self._write("ca.crt", own.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def make(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        unsigned = self._builder(subject, key).add_extension(names, critical=False)
        made = unsigned.add_extension(issuer, critical=False).sign(self._key, hashes.SHA256())
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificate = self._write(f"{name}.crt", made.public_bytes(serialization.Encoding.PEM))
        return certificate, self._write(f"{name}.key", text)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if own:
        context.load_cert_chain(*own)
    return context


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
