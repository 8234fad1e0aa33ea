"""Which session a model call belongs to, so that a pool can send it to the server that has its prefix cached.

The protocol knows best: Codex's thread or `prompt_cache_key`, Claude Code's session. Without that, the client's key and
the first user message identify the session: both stay the same from turn to turn.
"""

from __future__ import annotations

import hashlib

from dragoman.translators.ir import Request, Text


def session(request: Request, client: str) -> str | None:
    """`client` is a name for the key that was used. None if nothing distinguishes this conversation from others."""
    if request.affinity:
        return request.affinity
    first = next((message for message in request.messages if message.role == "user"), None)
    texts = [part.text for part in first.parts if isinstance(part, Text)] if first else []
    if not texts:
        return None
    digest = hashlib.blake2b(client.encode("utf-8", "replace"), digest_size=16)
    for text in texts:
        digest.update(b"\0" + text.encode("utf-8", "replace"))
    return digest.hexdigest()
