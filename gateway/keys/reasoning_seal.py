"""Reasoning that travels through the client: sealed on the way out, opened when it comes back.

AES-SIV (RFC 5297) is authenticated and deterministic: the same thought gives the same seal on every replica and on
every turn, so prompts and transcripts stay byte-identical. The first key seals and every key opens, which is how keys
rotate. A seal that cannot be opened (another gateway's, an expired key's, a made-up one) gives None, never an error.

Without configured keys, one is generated and stored in the state directory, where all workers of the machine find it.
The library of ciphers takes 8 MB, and is loaded in some 6 ms when there is the first thought to seal or to open.
"""

from __future__ import annotations

import binascii
import hashlib
import os
import secrets
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dragoman.gateway.telemetry.logs import log
from dragoman.translators.errors import GatewayError, Kind

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

PREFIX = "dragoman1."
MAX_OPENED = 4 * 1024 * 1024  # bytes of one thought
_PURPOSE = b"dragoman reasoning"
_KEY_FILE = "seal.key"


class Sealer:
    """`keys` are secrets of any length with enough entropy; each is hashed to an AES-256-SIV key. What was sealed for
    one `purpose` cannot be opened for another. `most`: bytes of what is opened."""

    def __init__(self, keys: Sequence[str], purpose: bytes = _PURPOSE, most: int = MAX_OPENED) -> None:
        if not keys:
            raise ValueError("a sealer needs a key")
        self._keys = keys
        self._purpose = purpose
        self._most = most

    @cached_property
    def _ciphers(self) -> list[AESSIV]:
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV

        return [AESSIV(hashlib.sha512(self._purpose + key.encode()).digest()) for key in self._keys]

    def seal(self, text: str) -> str:
        # level 1 compresses thoughts to a third, and the largest must not hold up the loop
        sealed = self._ciphers[0].encrypt(zlib.compress(text.encode("utf-8", "replace"), 1), [self._purpose])
        return PREFIX + urlsafe_b64encode(sealed).decode()

    def open(self, blob: str) -> str | None:
        if not blob.startswith(PREFIX):
            return None
        try:
            sealed = urlsafe_b64decode(blob.removeprefix(PREFIX).encode("ascii"))
        except (ValueError, binascii.Error):
            return None
        from cryptography.exceptions import InvalidTag

        for cipher in self._ciphers:
            try:
                return _inflated(cipher.decrypt(sealed, [self._purpose]), self._most)
            except (InvalidTag, ValueError, zlib.error):
                continue
        return None


class Opener:
    """Opens what one request holds, `most` bytes of it together: sealed text is compressed, and a small request could
    hold very much of it."""

    __slots__ = ("_left", "_most", "_sealer")

    def __init__(self, sealer: Sealer, most: int) -> None:
        self._sealer = sealer
        self._left = self._most = most

    def open(self, blob: str) -> str | None:
        """As `Sealer.open`; raises TOO_LARGE for what is too much."""
        text = self._sealer.open(blob)
        if text is not None:
            self._left -= len(text)
            if self._left < 0:
                message = f"The reasoning that this request holds sealed is larger than {self._most} bytes."
                raise GatewayError(Kind.TOO_LARGE, message, code="request_too_large")
        return text


def _inflated(data: bytes, most: int) -> str:
    inflater = zlib.decompressobj()
    text = inflater.decompress(data, most)
    if inflater.unconsumed_tail:
        raise ValueError("too large")
    return text.decode()


def state_directory(configured: Path | None) -> Path:
    if configured is not None:
        return configured
    base = os.environ.get("XDG_STATE_HOME")
    return Path(base if base else _home() / ".local" / "state") / "dragoman"


def _home() -> Path:
    """A user without HOME and without an entry in passwd, as in a container or a service that runs under a number, has
    the one that container runtimes give it."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


def own_key(directory: Path) -> str:
    """The key of this machine, generated if there is none. If it cannot be written, it lasts as long as the
    process."""
    path = directory / _KEY_FILE
    try:
        if not path.exists():  # where it exists, nothing need be writable
            _make_key(path)
        if key := path.read_text("ascii").strip():
            return key
        raise OSError(f"{path.name} is empty")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        log.warning("reasoning is sealed with a key that lasts as long as this process: %s", reason)
        return secrets.token_hex(32)


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        os.link(made, path)  # fails if another worker was first; then all use that worker's key
    except FileExistsError:
        pass
    finally:
        made.unlink(missing_ok=True)
