"""Why there was no answer of a server, in the words of somebody who has to mend its address."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from enum import Enum

import aiohttp


class Trouble(Enum):
    """Why there was no answer."""

    REFUSED = "nothing listens there"
    NO_NAME = "the host's name has no address"
    SILENT = "it does not answer"
    CLOSED = "the connection was closed without an HTTP answer"
    CERTIFICATE = "the certificate is not trusted"
    NO_TLS = "what listens there does not speak TLS"


@dataclass(frozen=True, slots=True)
class Unreached:
    trouble: Trouble
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.trouble.value}: {self.detail}" if self.detail else self.trouble.value


def unreached(error: Exception) -> Unreached:
    """From what aiohttp, or the dialling of a connection, has raised."""
    if isinstance(error, TimeoutError):
        return Unreached(Trouble.SILENT)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner = error.certificate_error
        return Unreached(Trouble.CERTIFICATE, str(getattr(inner, "verify_message", "") or inner))
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unreached(Trouble.NO_NAME)
    if isinstance(error, aiohttp.ClientConnectorSSLError | ssl.SSLError):
        inner_error = error.os_error if isinstance(error, aiohttp.ClientConnectorSSLError) else error
        name = str(getattr(inner_error, "reason", "") or inner_error)
        plain = any(word in name for word in ("WRONG_VERSION", "RECORD_LAYER", "HTTP_REQUEST", "PACKET_LENGTH"))
        return Unreached(Trouble.NO_TLS) if plain else Unreached(Trouble.CERTIFICATE, name)
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return Unreached(Trouble.REFUSED, "" if refused else error.os_error.strerror or "")
    return Unreached(Trouble.CLOSED)
