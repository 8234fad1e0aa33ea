"""Names of tools that every server takes: letters, digits, `_` and `-`, at most 64 of them."""

from __future__ import annotations

import re
from hashlib import sha256

MAX_NAME = 64
_REFUSED = re.compile(r"[^a-zA-Z0-9_-]")


def plain_name(name: str) -> str:
    """`name` with `_` in place of what servers refuse; it may still be too long."""
    return _REFUSED.sub("_", name)


def hashed_name(plain: str, identity: str) -> str:
    """`plain` cut to make room for a hash of `identity`: `long_na_1f2e3d4c`."""
    digest = sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[: MAX_NAME - 9]}_{digest}"
