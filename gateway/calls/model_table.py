"""Which backend serves a model name, and under which name: the models table, else the backends' own lists.

With a table, the table decides: exact names and aliases first, then the longest prefix (an empty prefix matches all);
anything else is 404 with the valid names. Without one: `model` of a backend or of the configuration replaces every
name; a listed name goes unchanged; a single listed model takes every name; if several are listed, an unknown name is
404; if a list cannot be read, the name goes unchanged. Everything that names models to a client, a list or a refusal,
is made here, and holds only those that its key may use.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from dragoman.backends.base import Backend, ModelInfo
from dragoman.gateway.config import Config, Group, ModelRule
from dragoman.gateway.keys.auth import ANYBODY, Client
from dragoman.gateway.telemetry.logs import log
from dragoman.translators.errors import GatewayError, Kind

FRESH = 30.0
FRESH_FAILURE = 2.0
RELOAD_UNKNOWN = 5.0  # seconds: an unknown name makes an older list be read again, since a model may be new
LIST_LIMIT = 5.0
FIRST_PATIENCE = 1.0
MOST_NAMES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Target:
    """`window` is the context window in tokens, None if it is unknown. `fallbacks` are where the call may go instead,
    in order; these have none of their own. `known`: the name is configured or listed, not only what the client sent."""

    backend: Backend
    model: str
    window: int | None = None
    fallbacks: tuple[Target, ...] = ()
    known: bool = True


class Listing:
    """One backend's list, remembered for a while; None if it cannot be read. Requests share one read."""

    def __init__(self, backend: Backend, fixed: str | None, window: int | None) -> None:
        self.backend = backend
        self.fixed = fixed
        self._window = window
        self._models: list[ModelInfo] | None = None
        self._named: list[ModelInfo] | None = None  # whose names these are
        self._names: dict[str, None] = {}
        self.asked = False  # whether it was ever read, or could not be
        self._until = 0.0
        self._read_at = -RELOAD_UNKNOWN
        self._task: asyncio.Task[None] | None = None

    def renew(self, fresh: bool = False) -> asyncio.Task[None] | None:
        """The reading of the list, where that is due; `fresh`: where it is a few seconds old."""
        now = time.monotonic()
        if now < self._until and not (fresh and now - self._read_at >= RELOAD_UNKNOWN):
            return None
        if self._task is None:
            self._task = asyncio.create_task(self._read(), name=f"models of {self.backend.name}")
        return self._task

    async def models(self, fresh: bool = False) -> list[ModelInfo] | None:
        """A known list is returned at once and renewed afterwards; `fresh` waits for one that is a few seconds old."""
        reading = self.renew(fresh)
        if reading is not None and (fresh or self._models is None):
            await asyncio.wait((reading,))
        return self._models

    @property
    def known_names(self) -> Collection[str] | None:
        """What calls of this backend may be sent as, as far as that is known now."""
        if self.fixed is not None:
            return (self.fixed,)
        models = self._models
        if models is not self._named:
            self._named, self._names = models, dict.fromkeys(model.id for model in models or ())
        return None if models is None else self._names

    async def names(self, fresh: bool) -> Collection[str] | None:
        if self.fixed is None:
            await self.models(fresh)
        return self.known_names

    async def window(self, model: str) -> int | None:
        """As configured, else as listed. Only the very first question waits, and not for long: a list that hangs must
        not hold up a request."""
        if self._window is not None:
            return self._window
        if self._task is None and time.monotonic() >= self._until:
            self._task = asyncio.create_task(self._read(), name=f"models of {self.backend.name}")
        if self._task is not None and not self.asked:
            await asyncio.wait((self._task,), timeout=FIRST_PATIENCE)
        known = self._models or []
        listed = known if len(known) == 1 else [each for each in known if each.id == model]
        return listed[0].window if listed else None

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _read(self) -> None:
        try:
            self._models = await asyncio.wait_for(self.backend.models(), LIST_LIMIT)
            self._until = time.monotonic() + FRESH
        except (GatewayError, TimeoutError):
            self._until = time.monotonic() + FRESH_FAILURE  # the previous list stays in use
        except Exception:
            log.exception("the model list of backend %s could not be read", self.backend.name)
            self._until = time.monotonic() + FRESH_FAILURE
        finally:
            self.asked = True
            self._read_at = time.monotonic()
            self._task = None


class Models:
    def __init__(self, config: Config, backends: Sequence[Backend]) -> None:
        groups: Sequence[Group | None] = config.groups
        if len(groups) != len(backends):  # backends that were passed in, not opened from the configuration
            groups = [None] * len(backends)
        self._listings = [
            Listing(backend, (group.model if group else None) or config.model, group.window if group else None)
            for backend, group in zip(backends, groups, strict=True)
        ]
        names = [group.name if group else backend.name for backend, group in zip(backends, groups, strict=True)]
        self._by_name = dict(zip(names, backends, strict=True))
        self._default = backends[0]
        self._rules = config.models
        self._exact = {name: rule for rule in self._rules for name in (rule.name, *rule.aliases) if name}
        self._prefixes = sorted(
            ((prefix, rule) for rule in self._rules for prefix in rule.prefixes), key=lambda pair: -len(pair[0])
        )

    async def resolve(self, name: str, client: Client) -> Target:
        """Raises MODEL_NOT_FOUND, with the names that this client may use."""
        target = self._by_table(name) if self._rules else await self._by_lists(name)
        if isinstance(target, list):
            raise _not_found(name, client.usable(target))
        own = await self._with_window(target)
        if not target.fallbacks:
            return own
        others = [await self._with_window(each) for each in target.fallbacks]
        return replace(own, fallbacks=tuple(others))

    async def _with_window(self, target: Target) -> Target:
        if target.window is not None:
            return target
        listing = next(each for each in self._listings if each.backend is target.backend)
        window = await listing.window(target.model)
        return target if window is None else replace(target, window=window)

    async def one(self, name: str, client: Client) -> ModelInfo:
        """What a call for that name is answered by, listed or not; raises MODEL_NOT_FOUND, also for a model that the
        client may not use."""
        listed = await self.listed(client)
        for model in listed:
            if model.id == name:
                return model
        if client.may_use(name) and (target := await self.resolve(name, client)).known:
            return ModelInfo(name, window=target.window)
        raise _not_found(name, [model.id for model in listed])

    async def listed(self, client: Client) -> list[ModelInfo]:
        """The models that this client may ask for, each name once; raises BACKEND_DOWN if no list can be read."""
        if self._rules:
            names = [name for name in self._exact if client.may_use(name)]
            return [ModelInfo(name, window=(await self.resolve(name, client)).window) for name in names]
        found: dict[str, ModelInfo] = {}
        lists = await asyncio.gather(*map(_list, self._listings))
        for models in lists:
            for model in models or ():
                found.setdefault(model.id, model)
        if all(models is None for models in lists):
            raise GatewayError(
                Kind.BACKEND_DOWN, "The backend's list of models cannot be read.", retry_after=5, source="backend"
            )
        return [model for model in found.values() if client.may_use(model.id)]

    async def example(self) -> str:
        """A served name for a person to try; `any` if every name is served, or if no list can be read soon."""
        names: list[str] = []
        with contextlib.suppress(GatewayError, TimeoutError):
            async with asyncio.timeout(FIRST_PATIENCE):
                names = [model.id for model in await self.listed(ANYBODY) if model.id.isprintable()]
        return next(iter(names), f"{self._prefixes[0][0]}any" if self._prefixes else "any")

    async def close(self) -> None:
        for listing in self._listings:
            await listing.close()

    def _by_table(self, name: str) -> Target | list[str]:
        """Where `name` goes by the table, or the valid names."""
        rule = self._exact.get(name)
        if rule is not None:
            return self._target(rule, rule.upstream or rule.name or name)
        for prefix, candidate in self._prefixes:
            if name.startswith(prefix):
                return self._target(candidate, candidate.upstream or candidate.name or name)
        return list(self._exact) + [f"{prefix}*" for prefix, _ in self._prefixes]

    def _target(self, rule: ModelRule, upstream: str) -> Target:
        own = self._by_name[rule.backend] if rule.backend else self._default
        known = bool(rule.upstream or rule.name)
        others = (
            Target(
                self._by_name[each.backend],
                each.upstream or upstream,
                each.window,
                known=known or each.upstream is not None,
            )
            for each in rule.fallback
        )
        return Target(own, upstream, rule.window, tuple(others), known)

    async def _by_lists(self, name: str) -> Target | list[str]:
        """Where `name` goes by the backends' lists, or the valid names."""
        if (known := self._known_target(name)) is not None:
            return known
        target = await self._listed_target(name, fresh=False)
        if isinstance(target, list):  # a model may have been added since the list was read
            target = await self._listed_target(name, fresh=True)
        return target

    def _known_target(self, name: str) -> Target | None:
        """By the lists that are known. One that could not be read is asked for again meanwhile, and keeps nobody
        waiting whose model another backend has."""
        for listing in self._listings:
            names = listing.known_names
            if listing.fixed is None:
                listing.renew()
            if names is None and not listing.asked:
                return None
            if names is not None and name in names:
                return Target(listing.backend, name)
        return None

    async def _listed_target(self, name: str, fresh: bool) -> Target | list[str]:
        valid: dict[str, Backend] = {}
        unreadable: Backend | None = None
        for listing in self._listings:
            if listing.fixed is None:
                listing.renew(fresh)
        for listing in self._listings:
            names = await listing.names(fresh)
            if names is None:
                unreadable = unreadable or listing.backend
                continue
            if name in names:
                return Target(listing.backend, name)
            for each in names:
                valid.setdefault(each, listing.backend)
        if unreadable is not None:
            return Target(unreadable, name, known=False)
        if not valid:
            return Target(self._default, name, known=False)
        return Target(next(iter(valid.values())), next(iter(valid))) if len(valid) == 1 else list(valid)


async def _list(listing: Listing) -> list[ModelInfo] | None:
    return [ModelInfo(listing.fixed)] if listing.fixed else await listing.models()


def _not_found(name: str, valid: list[str]) -> GatewayError:
    shown = ", ".join(valid[:MOST_NAMES_SHOWN]) + (", …" if len(valid) > MOST_NAMES_SHOWN else "")
    asked = name if len(name) <= 200 else f"{name[:200]}…"
    return GatewayError(
        Kind.MODEL_NOT_FOUND,
        f"The model '{asked}' does not exist here. Valid names: {shown or 'none'}.",
        "model",
        code="model_not_found",
    )
