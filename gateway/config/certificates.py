"""Certificate files: loading them into a TLS context, with a `ConfigError` for whatever is wrong with them.

Both ends use this: what the gateway shows to clients (`serve.tls`) and to model servers (`factory`). A file is read
when a context is made, at the start and at each reload, so a renewed certificate needs no restart.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from dragoman.gateway.config.fields import ConfigError


def load_own(context: ssl.SSLContext, certificate: Path, key: Path | None, where: str) -> None:
    """The certificate to show, with its key; `where` is the section of the configuration that names them."""
    try:
        # an encrypted key must not make the process ask at a terminal
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        files = f"{certificate}" + (f" and {key}" if key else "")
        raise ConfigError(f"{where}: {files} cannot be used: {_reason(error)}") from None


def load_authority(context: ssl.SSLContext, authority: Path, where: str) -> None:
    """The authority whose certificates are accepted."""
    try:
        context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: {authority} cannot be used: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not valid").lower().replace("_", " ")
    return getattr(error, "strerror", None) or " ".join(str(error).split())
