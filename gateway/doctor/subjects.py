"""Which models of a backend are judged, and under which names they are asked for.

A name that was asked for (`--model`) comes first, then the one that is configured for the backend, then all that the
models table sends there. Only where nothing is named, the server's own list decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dragoman.backends.base import ModelInfo
from dragoman.gateway.config import Config, ModelRule
from dragoman.gateway.doctor.finding import Finding, Key

PROBE = "models"


@dataclass(frozen=True, slots=True)
class Subject:
    """`model` is the name sent upstream; `name_key` where it is configured; `window` what the models table says, and
    `window_key` where it is to be corrected, relative to the configuration."""

    model: str
    name_key: Key
    window: int | None = None
    window_key: Key = ()


def subjects(
    config: Config, place: int, asked: str | None, listed: Sequence[ModelInfo]
) -> tuple[list[Subject], Finding]:
    """The models, and what the list of models says about them."""
    found = list(_configured(config, place, asked))
    if found:
        return found, _named(found, listed)
    own = ("backends", place)
    if not listed:
        advice = "name the model: --model NAME, or `model` of the backend"
        return [Subject("default", (*own, "model"), None, (*own, "window"))], Finding(
            "weak", PROBE, "no list, and none is configured", advice
        )
    first = Subject(listed[0].id, (*own, "model"), None, (*own, "window"))
    if len(listed) == 1:
        return [first], Finding("ok", PROBE, first.model)
    advice = "clients must name one of them; --model NAME judges another, and `models` gives them names of your own"
    return [first], Finding("weak", PROBE, f"{_names(listed)}; judged is {first.model}", advice)


def _configured(config: Config, place: int, asked: str | None) -> Iterator[Subject]:
    given = config.named_backends[place]
    own: Key = ("backends", place)
    window_key = (*own, "window")
    rules = list(_rules(config, place))
    match = _first_match(config, asked) if asked is not None else None
    if asked is not None and match is not None:
        for number, rule in rules:
            if rule is match:
                yield _of_rule(number, rule, rule.upstream or rule.name or asked, own)
        return
    if fixed := asked or given.model or config.model:
        key: Key = ("model",) if config.model and not (asked or given.model) else (*own, "model")
        yield Subject(fixed, key, None, window_key)
        return
    seen: set[str] = set()
    for number, rule in rules:
        upstream = rule.upstream or rule.name
        if upstream and upstream not in seen:
            seen.add(upstream)
            yield _of_rule(number, rule, upstream, own)


def _of_rule(number: int, rule: ModelRule, upstream: str, own: Key) -> Subject:
    key: Key = ("models", number, "upstream")
    window_key: Key = ("models", number, "window") if rule.window else (*own, "window")
    return Subject(upstream, key, rule.window, window_key)


def skipped(config: Config, place: int, asked: str | None) -> bool:
    """Whether the name that was asked for goes to another backend."""
    match = _first_match(config, asked) if asked is not None else None
    return match is not None and all(rule is not match for _, rule in _rules(config, place))


def _first_match(config: Config, asked: str) -> ModelRule | None:
    exact = next((rule for rule in config.models if asked in (rule.name, *rule.aliases)), None)
    if exact is not None:
        return exact
    prefixed = [(len(prefix), rule) for rule in config.models for prefix in rule.prefixes if asked.startswith(prefix)]
    return max(prefixed, key=lambda pair: pair[0])[1] if prefixed else None


def _rules(config: Config, place: int) -> Iterator[tuple[int, ModelRule]]:
    """Those that send calls to this backend, at first or where another one fails."""
    given = config.named_backends[place]
    group = given.pool or given.name
    default = config.groups[0].name
    for number, rule in enumerate(config.models):
        if (rule.backend or default) == group or any(each.backend == group for each in rule.fallback):
            yield number, rule


def _named(found: Sequence[Subject], listed: Sequence[ModelInfo]) -> Finding:
    names = {model.id for model in listed}
    absent = [each.model for each in found if each.model not in names]
    shown = ", ".join(each.model for each in found)
    if listed and absent:
        return Finding("weak", PROBE, f"{', '.join(absent)} is not in the server's list ({_names(listed)})")
    return Finding("ok", PROBE, shown + ("" if listed else " (the server lists none)"))


def _names(listed: Sequence[ModelInfo]) -> str:
    return ", ".join(model.id for model in listed[:5]) + (", …" if len(listed) > 5 else "")
