"""Clients' API keys: who may ask, for which models, and how much a minute.

Keys are stored as hashes and compared in constant time, every one of them on every request, so that timing reveals
nothing. There is one generic 401, whatever was wrong. A key comes as `Authorization: Bearer …` or as `x-api-key`,
because the same SDKs use both. The decision depends on the parsed path only, never on the Host header.

Checking a key looks at memory only; `Keys.follow` takes what a changed key file says (`keys.key_file`). Rates are token
buckets of one minute's worth, local to this process.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping

from dragoman.gateway.keys.key_file import KeyFile
from dragoman.gateway.keys.secrets import Grant
from dragoman.translators.errors import GatewayError, Kind

OPEN_PATHS = frozenset({"/healthz", "/readyz"})


class Bucket:
    """A token bucket. What was taken beyond its level is a debt: a client waits until that is paid back."""

    def __init__(self, per_minute: float) -> None:
        self._most = per_minute
        self._level = per_minute
        self._at = time.monotonic()

    def missing(self, amount: float) -> float:
        """Seconds until `amount` can be taken, 0 if it can be now; more than a minute's worth needs a full bucket."""
        now = time.monotonic()
        self._level = min(self._most, self._level + (now - self._at) * self._most / 60)
        self._at = now
        return max(0.0, min(amount, self._most) - self._level) * 60 / self._most

    def take(self, amount: float) -> None:
        """A negative amount gives back."""
        self._level = min(self._most, self._level - amount)


class Client:
    """The client that a key belongs to. `name` may be logged: given with the key, or the first digits of its hash.
    `owner` is the whole hash, by which what the client keeps here is told from others'."""

    def __init__(self, name: str = "", grant: Grant | None = None, workers: int = 1, owner: str = "") -> None:
        self.name = name
        self.owner = owner
        self._grant = grant or Grant()
        self._requests = Bucket(self._grant.rpm / workers) if self._grant.rpm else None
        self._tokens = Bucket(self._grant.tpm / workers) if self._grant.tpm else None

    @property
    def counts_tokens(self) -> bool:
        return self._tokens is not None

    def may_use(self, model: str) -> bool:
        models = self._grant.models
        return models is None or any(
            model.startswith(each[:-1]) if each.endswith("*") else model == each for each in models
        )

    def usable(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that this client may ask for, each once. A name that ends in `*` stands for all names with
        that prefix; if the key may use only some of them, those are returned: of `claude-*` perhaps `claude-opus`."""
        granted = self._grant.models
        if granted is None:
            return list(names)
        common = (_common(name, each) for name in names for each in granted)
        return list(dict.fromkeys(name for name in common if name is not None))

    def check_model(self, model: str) -> None:
        if not self.may_use(model):
            asked = model if len(model) <= 200 else f"{model[:200]}…"
            message = f"This API key may not use the model '{asked}'."
            raise GatewayError(Kind.FORBIDDEN, message, "model", code="model_not_allowed")

    def spend(self, tokens: int) -> None:
        """Takes one request and its estimated tokens, or takes nothing and raises RATE_LIMITED with a time to wait."""
        wanted = ((self._requests, 1, "requests"), (self._tokens, tokens, "tokens"))
        for bucket, amount, what in wanted:
            if bucket is not None and (wait := bucket.missing(amount)) > 0:
                limit = self._grant.rpm if what == "requests" else self._grant.tpm
                message = f"This API key's limit of {limit} {what} a minute is reached."
                raise GatewayError(Kind.RATE_LIMITED, message, code="rate_limit_exceeded", retry_after=wait)
        for bucket, amount, _ in wanted:
            if bucket is not None:
                bucket.take(amount)

    def settle(self, estimated: int, measured: int) -> None:
        if self._tokens is not None:
            self._tokens.take(measured - estimated)


def _common(name: str, granted: str) -> str | None:
    """The names that a valid name and a granted one both stand for; either may be a prefix with `*`."""
    if name == granted or (granted.endswith("*") and name.startswith(granted[:-1])):
        return name
    return granted if name.endswith("*") and granted.startswith(name[:-1]) else None


ANYBODY = Client()


class Keys:
    """`grants` says what single keys may do; `file` is what `follow` watches. `previous` passes on what clients have
    spent."""

    def __init__(
        self,
        keys: Iterable[str],
        metrics_public: bool = False,
        grants: Mapping[str, Grant] | None = None,
        *,
        workers: int = 1,
        file: KeyFile | None = None,
        previous: Keys | None = None,
    ) -> None:
        self._workers = workers
        self._clients: dict[bytes, tuple[Grant, Client]] = {} if previous is None else previous._clients
        self._take({key: (grants or {}).get(key, Grant()) for key in keys})
        self._open = OPEN_PATHS | {"/metrics"} if metrics_public else OPEN_PATHS
        self._file = file

    async def follow(self) -> None:
        """Takes what the key file says whenever it changes, until it is cancelled."""
        if self._file is not None:
            await self._file.follow(self._take)

    def check(self, path: str, headers: Mapping[str, str]) -> Client:
        """The client; raises UNAUTHENTICATED. Without configured keys, everybody who reaches the port may ask."""
        if path in self._open:
            return ANYBODY
        if not self._clients:
            return ANYBODY
        found: Client | None = None
        for offered in map(_digest, _offered(headers)):
            for digest, (_, client) in self._clients.items():
                if hmac.compare_digest(digest, offered):
                    found = client
        if found is None:
            raise GatewayError(Kind.UNAUTHENTICATED, "A valid API key is needed.", code="invalid_api_key")
        return found

    def _take(self, grants: Mapping[str, Grant]) -> None:
        """Clients whose key and grant have not changed keep what they have spent."""
        clients: dict[bytes, tuple[Grant, Client]] = {}
        for key, grant in grants.items():
            digest = _digest(key)
            old = self._clients.get(digest)
            clients[digest] = (
                old
                if old is not None and old[0] == grant
                else (grant, Client(grant.name or f"key-{digest.hex()[:8]}", grant, self._workers, digest.hex()))
            )
        self._clients = clients


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _offered(headers: Mapping[str, str]) -> tuple[str, str]:
    """Both, since Claude Code with a token and a key sends both, and one of them may be meant for another service; if
    both are known here, `x-api-key` decides."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "").strip()
