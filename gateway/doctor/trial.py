"""A configuration with changes that are being tried, and the road to one of its backends.

A change that the configuration or the backend does not take raises when the trial is made or opened, so that it is
never proposed.
"""

from __future__ import annotations

from functools import cached_property

from pydantic import ValidationError

from dragoman.backends.chat.settings import Settings, resolve
from dragoman.gateway.config import BackendConfig, Config, ConfigError
from dragoman.gateway.config.yaml_edit import put
from dragoman.gateway.doctor.finding import Changes, Key
from dragoman.gateway.doctor.road import Road
from dragoman.gateway.factory import open_servers
from dragoman.gateway.keys.secrets import Secrets


class Trial:
    """`place` is the backend's in the configuration; `window` is one that the models table gives to the model."""

    def __init__(
        self, config: Config, place: int, secrets: Secrets, changes: Changes | None = None, window: int | None = None
    ) -> None:
        self.changes: Changes = dict(changes or {})
        self.config = changed(config, self.changes)
        self.place = place
        self.given: BackendConfig = self.config.named_backends[place]
        self.window = window
        self._original = config
        self._secrets = secrets
        self.road: Road | None = None

    def key(self, *steps: str) -> Key:
        """Of a key of this backend."""
        return ("backends", self.place, *steps)

    @property
    def api_key(self) -> str | None:
        return self._secrets.backend_key(str(self.given.name))

    @property
    def chat(self) -> bool:
        return self.given.url.lower().startswith("http")

    @cached_property
    def settings(self) -> Settings | None:
        """Those that are in force, of a chat server."""
        if not self.chat:
            return None
        given = dict(self.given.settings)
        if self.config.system_messages is not None:
            given.setdefault("system_messages", self.config.system_messages)
        return resolve(self.preset or "generic", given)

    @property
    def preset(self) -> str | None:
        return self.given.preset or self.config.preset

    @property
    def model(self) -> str | None:
        """The name that is sent, whatever is asked for."""
        return self.given.model or self.config.model

    async def open(self) -> Road:
        """Raises what keeps the backend from its start."""
        given = self.given.model_copy(update={"window": self.window or self.given.window})
        alone = self.config.model_copy(update={"backends": (given,), "models": ()})
        (backend,) = open_servers(alone, self._secrets)
        self.road = Road(backend, alone, given)
        await self.road.start()
        return self.road

    async def close(self) -> None:
        road, self.road = self.road, None
        if road is not None:
            await road.close()

    def changed(self, changes: Changes) -> Trial:
        """Raises `ConfigError` where the configuration does not take them."""
        return Trial(self._original, self.place, self._secrets, {**self.changes, **changes}, self.window)

    def with_window(self, window: int | None) -> Trial:
        return Trial(self._original, self.place, self._secrets, self.changes, window)


def changed(config: Config, changes: Changes) -> Config:
    content = config.model_dump(exclude_unset=True)
    content["backends"] = [each.model_dump(exclude_unset=True) for each in config.backends or config.named_backends]
    for key, value in changes.items():
        put(content, key, value)
    try:
        return Config(**content)
    except ValidationError as error:
        raise ConfigError(str(error)) from None
