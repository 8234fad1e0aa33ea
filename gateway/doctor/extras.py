"""Extras that the configuration needs and this installation lacks. What is not configured is not missed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

from dragoman.gateway.calls.documents import can_read
from dragoman.gateway.config import Config
from dragoman.gateway.doctor.finding import Finding

PROBE = "extras"


def missing(config: Config) -> Iterator[Finding]:
    for needed_by, extra, present in _needed(config):
        if not present:
            yield Finding(
                "weak", PROBE, f"{needed_by}, but its packages are missing", f"pip install 'dragoman[{extra}]'"
            )


def _needed(config: Config) -> Iterator[tuple[str, str, bool]]:
    if "documents" in config.model_fields_set and config.documents.pages > 0:
        yield "`documents` is configured", "documents", can_read(config.documents)
    if (config.store.url or "").startswith("postgresql"):
        yield "`store` is PostgreSQL", "postgres", _installed("asyncpg")
    if any(each.settings.get("tokenizer") for each in config.backends):
        yield "a backend has `tokenizer`", "tokenizer", _installed("tokenizers", "jinja2")
    if any(each.url.lower().startswith("triton") for each in config.backends):
        yield "a backend is Triton's", "triton,tokenizer", _installed("tritonclient", "tokenizers", "jinja2")
    if any(os.environ.get(f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT") for kind in ("", "TRACES_")):
        yield "OTEL_EXPORTER_OTLP_ENDPOINT is set", "otel", _installed("opentelemetry.sdk")


def _installed(*modules: str) -> bool:
    try:
        return all(importlib.util.find_spec(each) is not None for each in modules)
    except ModuleNotFoundError:
        return False
