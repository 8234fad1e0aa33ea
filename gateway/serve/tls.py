"""TLS: what clients are met with, and what is shown to backends.

Files are read when a context is made, at the start and at each reload, so that a renewed certificate needs no restart.
Whatever is wrong with them becomes a `ConfigError`. Versions and ciphers are the library's defaults, never older than
TLS 1.2.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from dragoman.gateway.config import BackendTls, ConfigError, Tls


def for_clients(given: Tls) -> ssl.SSLContext | None:
    """None where no certificate is given; with `client_ca` clients must show one of that authority."""
    if given.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _own(context, given.certificate, given.key, "tls")
    if given.client_ca is not None:
        _trust(context, given.client_ca, "tls: client_ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def for_backend(given: BackendTls, name: str) -> ssl.SSLContext:
    """`ca` replaces the system's authorities; a certificate is shown to servers that ask for one."""
    where = f"backends: {name}: tls"
    context = ssl.create_default_context()
    if given.ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        _trust(context, given.ca, f"{where}: ca")
    if given.certificate is not None:
        _own(context, given.certificate, given.key, where)
    return context


def _own(context: ssl.SSLContext, certificate: Path, key: Path | None, where: str) -> None:
    try:
        # an encrypted key must not make the process ask at a terminal
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        told = f"{certificate}" + (f" and {key}" if key else "")
        raise ConfigError(f"{where}: {told} cannot be used: {_reason(error)}") from None


def _trust(context: ssl.SSLContext, authority: Path, where: str) -> None:
    try:
        context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: {authority} cannot be used: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not valid").lower().replace("_", " ")
    return getattr(error, "strerror", None) or " ".join(str(error).split())
