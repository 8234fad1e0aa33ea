"""The configuration as it takes effect: printed as a file that would give it again, with every secret masked."""

from __future__ import annotations

import os
import re
from typing import Any

import yaml

from dragoman.backends.registry import SCHEMES
from dragoman.gateway.config import BackendConfig, Config, Tls
from dragoman.gateway.factory import mask_url
from dragoman.gateway.keys.secrets import Secrets

# Whole words, so that `max_tokens` stays readable; and parts of longer words (apikey, passwd, credentials).
PRIVATE = frozenset({"token", "auth", "pwd", "jwt"})
PRIVATE_PARTS = ("key", "secret", "passw", "authorization", "credential", "cookie", "bearer")
TOKENIZER = re.compile(r"[?&]tokenizer=([^&]*)")


def effective(config: Config, secrets: Secrets | None) -> str:
    """Without `secrets`, those that were not read are not counted."""
    content = config.model_dump(mode="json")
    content["backends"] = [backend.model_dump(mode="json") for backend in config.named_backends]
    for backend in content["backends"]:
        backend["url"] = mask_url(backend["url"])
        backend["settings"] = mask_settings(backend["settings"])
    if content["store"]["url"]:
        content["store"]["url"] = mask_url(content["store"]["url"])
    content["search"]["parameters"] = mask_settings(content["search"]["parameters"])
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    if secrets is None:
        return text + "# keys, certificates and model folders were not read\n"
    text += (
        f"# client keys: {len(secrets.client_keys)}" + (" (****)" if secrets.client_keys else ", loopback only") + "\n"
    )
    for name, key in (secrets.backend_keys or {}).items():
        text += f"# key sent to {name}: {'****' if key else 'none'}\n"
    if config.search.runs:
        text += f"# key sent to the search service: {'****' if secrets.search_key else 'none'}\n"
    return text


def without_secrets(config: Config) -> Config:
    """The part of a configuration that can be tried on another machine than its own: without certificates, without the
    Triton servers whose model's folder is not here, and without that setting of chat servers."""
    backends = tuple(_without_files(each) for each in config.named_backends if not _needs_folder(each))
    return config.model_copy(update={"tls": Tls(), "backends": backends or (BackendConfig(url="local:"),)})


def _needs_folder(backend: BackendConfig) -> bool:
    named = TOKENIZER.search(backend.url)
    return bool(named and backend.url.partition(":")[0] in SCHEMES and not os.path.isdir(os.path.expanduser(named[1])))


def _without_files(backend: BackendConfig) -> BackendConfig:
    folder, settings = backend.settings.get("tokenizer"), dict(backend.settings)
    if isinstance(folder, str) and not os.path.isdir(folder):
        del settings["tokenizer"]
    return backend.model_copy(update={"tls": None, "settings": settings})


def mask_settings(value: Any, key: str = "") -> Any:
    """Masks credentials in settings, such as headers or body fields. Only their names show what they are."""
    if isinstance(value, dict):
        return {name: mask_settings(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [mask_settings(inner, key) for inner in value]
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower())
    secret = any(word in PRIVATE or any(part in word for part in PRIVATE_PARTS) for word in words)
    return "****" if secret and isinstance(value, str) else value
