"""TLS towards clients. Versions and ciphers are the library's defaults, never older than TLS 1.2."""

from __future__ import annotations

import ssl

from dragoman.gateway.config import Tls
from dragoman.gateway.config.certificates import load_authority, load_own


def for_clients(section: Tls) -> ssl.SSLContext | None:
    """None where no certificate is configured; with `client_ca`, clients must show one that it has signed."""
    if section.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    load_own(context, section.certificate, section.key, "tls")
    if section.client_ca is not None:
        load_authority(context, section.client_ca, "tls: client_ca")
        context.verify_mode = ssl.CERT_REQUIRED
    return context
