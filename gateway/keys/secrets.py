"""Where secrets come from: environment variables and files that the configuration names, read once at the start.

A secret is never part of the configuration, so that printing the configuration cannot leak one. The logger receives
every secret that was read, and removes it from whatever is logged. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dragoman.gateway.config import PREFIX, BackendConfig, Config, ConfigError, SearchConfig, split_commas

API_KEYS = f"{PREFIX}API_KEYS"
SEAL_KEYS = f"{PREFIX}SEAL_KEYS"
BACKEND_API_KEY = f"{PREFIX}BACKEND_API_KEY"
SHORTEST_KEY = 2  # one character is a slip, and the log would lose that letter wherever it removes the key


@dataclass(frozen=True, slots=True)
class Grant:
    """What a client's key may do; None is no limit. `rpm` and `tpm` are requests and tokens a minute; a model that
    ends in `*` stands for every name with that prefix."""

    name: str | None = None
    models: tuple[str, ...] | None = None
    rpm: float | None = None
    tpm: float | None = None


@dataclass(frozen=True, slots=True)
class Secrets:
    """`client_keys` are those that clients may use; `backend_keys` are sent upstream, by the name of the backend; the
    first of `seal_keys` seals reasoning, and each of them opens it; `search_key` is sent to the search service."""

    client_keys: tuple[str, ...] = ()
    backend_keys: Mapping[str, str | None] | None = None
    seal_keys: tuple[str, ...] = ()
    grants: Mapping[str, Grant] = field(default_factory=dict)  # by client key, of those that are limited
    search_key: str | None = None

    def __repr__(self) -> str:
        return f"Secrets({len(self.client_keys)} client keys, …)"

    def backend_key(self, name: str) -> str | None:
        return (self.backend_keys or {}).get(name)

    def all(self) -> tuple[str, ...]:
        sent = (*(self.backend_keys or {}).values(), self.search_key)
        return self.client_keys + self.seal_keys + tuple(key for key in sent if key)


Reread = Callable[[], tuple[Config, Secrets]]  # reads the configuration again; raises `ConfigError`


def read(config: Config, environ: Mapping[str, str]) -> Secrets:
    client_keys = read_client_keys(config, environ)
    if client_keys and config.no_auth:
        raise ConfigError(f"configuration: no_auth: contradicts the keys in {API_KEYS} or api_keys_file")
    check_open(config, client_keys)
    backend_keys = {str(each.name): _backend_key(each, environ) for each in config.named_backends}
    seal_keys = split_commas(environ.get(SEAL_KEYS, ""))
    if config.seal_keys_file is not None:
        seal_keys += _lines(config.seal_keys_file, "seal_keys_file")
    grants = {key: grant for key, grant in client_keys.items() if grant != Grant()}
    return Secrets(
        tuple(client_keys), backend_keys, tuple(seal_keys), grants, _named_key(config.search, "search", environ)
    )


def check_open(config: Config, client_keys: Collection[str]) -> None:
    """Raises `ConfigError` if the gateway would be open to the network although `no_auth` is not set."""
    if not client_keys and not config.loopback and not config.no_auth:
        raise ConfigError(
            f"configuration: host: without client keys only a loopback address may be listened on, not {config.host}; "
            f"set {API_KEYS} or api_keys_file, or --no-auth where the network itself keeps others out"
        )


def read_client_keys(config: Config, environ: Mapping[str, str]) -> dict[str, Grant]:
    """The keys of the environment and of the file. In the file, what a key may do follows it on its line."""
    found: dict[str, Grant] = {}
    places: dict[str, str] = {}
    for place, key, words in _written_keys(config, environ):
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(f"{place}: a key must be printable ASCII without blanks")
        if len(key) < SHORTEST_KEY:
            raise ConfigError(f"{place}: a key needs at least {SHORTEST_KEY} characters")
        if key in places:
            raise ConfigError(f"{place}: the same key is in {places[key]} already")
        places[key], found[key] = place, _grant(words, place)
    return found


def _written_keys(config: Config, environ: Mapping[str, str]) -> Iterator[tuple[str, str, list[str]]]:
    """Each key with its place and the words after it."""
    for number, key in enumerate(split_commas(environ.get(API_KEYS, "")), 1):
        yield f"environment: {API_KEYS}: key {number}", key, []
    if config.api_keys_file is not None:
        for number, line in _numbered_lines(config.api_keys_file, "api_keys_file"):
            key, *words = line.split()
            yield f"api_keys_file: {config.api_keys_file}:{number}", key, words


def _grant(words: list[str], where: str) -> Grant:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in ("name", "models", "rpm", "tpm"):
            # not quoted: the word itself may be a secret
            raise ConfigError(f"{where}: behind a key only name=, models=, rpm= and tpm= may stand")
        if name in given:
            raise ConfigError(f"{where}: {name}= stands there twice")
        given[name] = value
    models = tuple(split_commas(given["models"])) if "models" in given else None
    rates = {name: _rate(given[name], f"{where}: {name}") for name in ("rpm", "tpm") if name in given}
    return Grant(given.get("name") or None, models, rates.get("rpm"), rates.get("tpm"))


def _rate(text: str, where: str) -> float:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{where}: must be a whole number above 0")
    return int(text)


def _backend_key(backend: BackendConfig, environ: Mapping[str, str]) -> str | None:
    default = environ.get(BACKEND_API_KEY, "").strip()
    return _named_key(backend, f"backends: {backend.name}", environ, default)


def _named_key(
    owner: BackendConfig | SearchConfig, where: str, environ: Mapping[str, str], default: str = ""
) -> str | None:
    """The key that a section names, by a variable or a file; `default` where it names none."""
    if owner.api_key_env:
        key = environ.get(owner.api_key_env, "").strip()
        if not key:
            raise ConfigError(f"{where}: api_key_env: the variable {owner.api_key_env} is not set")
    elif owner.api_key_file:
        lines = _lines(owner.api_key_file, f"{where}: api_key_file")
        if len(lines) != 1:
            raise ConfigError(f"{where}: api_key_file: {owner.api_key_file} must hold one key, has {len(lines)} lines")
        key = lines[0]
    else:
        key = default
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"{where}: the API key holds characters that no header can carry")
    return key or None


def _lines(path: Path, where: str) -> list[str]:
    return [line for _, line in _numbered_lines(path, where)]


def _numbered_lines(path: Path, where: str) -> list[tuple[int, str]]:
    """The lines of a key file with their numbers, without blank ones and comments."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{where}: {path} cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: {path} is not UTF-8 text") from None
    except ValueError as error:  # a path that can be none
        raise ConfigError(f"{where}: {path} cannot be read: {error}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    keys = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"{where}: {path} holds no key")
    return keys
