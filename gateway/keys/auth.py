"""Clients' API keys: who may ask, for which models, and how much a minute.

Keys are stored as hashes and compared in constant time, every one of them on every request, so that timing reveals
nothing. There is one generic 401, whatever was wrong. A key comes as `Authorization: Bearer …` or as `x-api-key`,
because the same SDKs use both. The decision depends on the parsed path only, never on the Host header.

Checking a key looks at memory only; `Keys.follow` takes what a changed key file says (`keys.key_file`). What is spent
of a key's rates is kept in `keys.spending`, for all workers together.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Iterable, Mapping

from dragoman.gateway.keys.key_file import KeyFile
from dragoman.gateway.keys.secrets import Grant
from dragoman.gateway.keys.spending import LEAST, Rate, Spending
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.rate_headers import Standing

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
TOKENS = 1  # their place in a row of `Spending`


class Client:
    """The client that a key belongs to. `name` may be logged: given with the key, or the first digits of its hash.
    `owner` is the whole hash, by which what the client keeps here is told from others'."""

    def __init__(
        self, name: str = "", grant: Grant | None = None, owner: str = "", spending: Spending | None = None
    ) -> None:
        self.name = name
        self.owner = owner
        self._grant = grant or Grant()
        limits = (("requests", self._grant.rpm), ("tokens", self._grant.tpm))
        # by the place of its time in a row
        self._rates = {place: (what, Rate(limit)) for place, (what, limit) in enumerate(limits) if limit}
        self._spending = (spending or Spending()) if self._rates else None
        self._row = bytes.fromhex(owner)[:16] or b"-" * 16

    @property
    def named(self) -> bool:
        """Whether the operator has named it."""
        return bool(self._grant.name)

    @property
    def counts_tokens(self) -> bool:
        return TOKENS in self._rates

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
        if self._spending is None:
            return
        with self._spending.row(self._row) as row:
            now = time.monotonic()
            amounts = (1, tokens)
            for place, (what, rate) in self._rates.items():
                if (wait := rate.wait(row[place], amounts[place], now)) > 0:
                    message = f"This API key's limit of {rate.per_minute} {what} a minute is reached."
                    raise GatewayError(Kind.RATE_LIMITED, message, code="rate_limit_exceeded", retry_after=wait)
            for place, (_, rate) in self._rates.items():
                row[place] = rate.taken(row[place], amounts[place], now)

    def settle(self, estimated: int, measured: int) -> None:
        if self._spending is not None and self.counts_tokens:
            _, rate = self._rates[TOKENS]
            with self._spending.row(self._row) as row:
                row[TOKENS] = rate.taken(row[TOKENS], measured - estimated, time.monotonic())

    def standings(self) -> dict[str, Standing]:
        """By what is limited: `requests`, `tokens`, or neither."""
        if self._spending is None:
            return {}
        now, row = time.monotonic(), self._spending.look(self._row)
        return {
            what: Standing(
                int(rate.per_minute),
                max(0, math.floor(rate.left(row[place], now) + LEAST)),
                max(0.0, row[place] - now),
            )
            for place, (what, rate) in self._rates.items()
        }


def _common(name: str, granted: str) -> str | None:
    """The names that a valid name and a granted one both stand for; either may be a prefix with `*`."""
    if name == granted or (granted.endswith("*") and name.startswith(granted[:-1])):
        return name
    return granted if name.endswith("*") and granted.startswith(name[:-1]) else None


ANYBODY = Client()


class Keys:
    """`grants` says what single keys may do; `file` is what `follow` watches. What clients have spent is in `spending`,
    else in that of `previous`."""

    def __init__(
        self,
        keys: Iterable[str],
        metrics_public: bool = False,
        grants: Mapping[str, Grant] | None = None,
        *,
        file: KeyFile | None = None,
        previous: Keys | None = None,
        spending: Spending | None = None,
    ) -> None:
        self._spending: Spending = spending or (Spending() if previous is None else previous._spending)
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
        """Clients whose key and grant have not changed stay the same; what others have spent is not forgotten."""
        clients: dict[bytes, tuple[Grant, Client]] = {}
        for key, grant in grants.items():
            digest = _digest(key)
            old = self._clients.get(digest)
            clients[digest] = (
                old
                if old is not None and old[0] == grant
                else (grant, Client(grant.name or f"key-{digest.hex()[:8]}", grant, digest.hex(), self._spending))
            )
        self._clients = clients


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _offered(headers: Mapping[str, str]) -> tuple[str, str]:
    """Both, since Claude Code with a token and a key sends both, and one of them may be meant for another service; if
    both are known here, `x-api-key` decides."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "").strip()
