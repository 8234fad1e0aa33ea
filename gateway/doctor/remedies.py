"""The settings that may help with a finding, the likeliest first. Each is tried before it is proposed.

What a server's words name comes first; a refusal that names nothing has everything tried that servers are known to
refuse. What helps is decided by the next try (`treatment`), not here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from dragoman.backends.chat.settings import Settings
from dragoman.gateway.config import ConfigError
from dragoman.gateway.doctor import text_probes, tool_probes
from dragoman.gateway.doctor.asking import Asker
from dragoman.gateway.doctor.finding import Changes, Finding
from dragoman.gateway.doctor.trial import Trial
from dragoman.translators.errors import GatewayError

COUNTERS = ("vllm", "trtllm-serve", "llama.cpp")
FORCING = ("schema", "required", "prompt")


async def remedies(trial: Trial, asker: Asker, finding: Finding) -> AsyncIterator[Changes]:
    if finding.probe == tool_probes.TOOL_CALL:
        async for changes in _tool_call(trial, asker):
            yield changes
        return
    if finding.probe == text_probes.REASONING:
        yield _settings(trial, markup="plain")
        return
    if trial.settings is not None and (found := OF_CHAT.get(finding.probe)) is not None:
        for changes in found(trial, trial.settings, asker, finding):
            yield changes
    elif finding.probe == text_probes.SYSTEM:
        yield _settings(trial, system_messages="user")


def _settings(trial: Trial, **settings: Any) -> Changes:
    return {trial.key("settings", name): value for name, value in settings.items()}


# ----------------------------------------------------------------------------------------------------------- parameters


def _text(trial: Trial, settings: Settings, asker: Asker, finding: Finding) -> Iterator[Changes]:
    """For a first question that was refused."""
    if not asker.blamed:
        return
    named = [name for name in _LEFT_OUT if name in finding.result]
    for name in dict.fromkeys([*named, *_LEFT_OUT]):
        yield _LEFT_OUT[name](trial, settings)
    together: dict[Any, Any] = {}
    for leave_out in _LEFT_OUT.values():
        together |= leave_out(trial, settings)
    yield together


def _without(trial: Trial, settings: Settings, *names: str) -> Changes:
    left = settings.parameters - set(names)
    return _settings(trial, parameters=sorted(left)) if left != settings.parameters else {}


def _other_limit(trial: Trial, settings: Settings) -> Changes:
    other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
    return _settings(trial, max_tokens_field=other[settings.max_tokens_field])


_LEFT_OUT: dict[str, Callable[[Trial, Settings], Changes]] = {
    "max_tokens": _other_limit,
    "max_completion_tokens": _other_limit,
    "stream_options": lambda trial, settings: _settings(trial, usage="always"),
    "temperature": lambda trial, settings: _without(trial, settings, "temperature"),
}


def _parameters(trial: Trial, settings: Settings, asker: Asker, finding: Finding) -> Iterator[Changes]:
    """For what was refused by name: all of it is left out at once. Usage may come unasked, or not at all."""
    refused = asker.refused
    sent = {settings.parameter_names.get(name, name): name for name in settings.parameters}
    changes = dict(_without(trial, settings, *(sent[name] for name in refused if name in sent)))
    if refused & {"reasoning_effort", "chat_template_kwargs"}:
        changes |= _settings(trial, thinking="none")
    if "chat_template_kwargs" in refused:
        changes |= _settings(trial, chat_template_kwargs=False)
    if "continuous_usage_stats" in refused:
        changes |= _settings(trial, continuous_usage=False)
    if "stream_options" in refused:
        measured = asker.plain is not None and asker.plain.usage is not None
        changes |= _settings(trial, usage="always" if measured else "none")
    if not refused:
        changes |= _settings(trial, thinking="none")
    yield changes
    yield {**changes, **_without(trial, settings, *settings.parameters - {"temperature", "stop"})}


# ----------------------------------------------------------------------------------------------------------------- rest


def _usage(trial: Trial, settings: Settings, asker: Asker, finding: Finding) -> Iterator[Changes]:
    for value in ("include_usage", "always"):
        if value != settings.usage:
            yield _settings(trial, usage=value)


def _counting(trial: Trial, settings: Settings, asker: Asker, finding: Finding) -> Iterator[Changes]:
    if asker.plain is not None and asker.plain.usage is not None:
        for value in COUNTERS:
            if value != settings.tokenize:
                yield _settings(trial, tokenize=value)


def _system(trial: Trial, settings: Settings, asker: Asker, finding: Finding) -> Iterator[Changes]:
    for value in ("user", "hoist"):
        yield _settings(trial, system_messages=value)


def _turns(trial: Trial, settings: Settings, asker: Asker, finding: Finding) -> Iterator[Changes]:
    yield _settings(trial, turns="alternate")


def _forced(trial: Trial, settings: Settings, asker: Asker, finding: Finding) -> Iterator[Changes]:
    for value in FORCING:
        if value != settings.force_tool:
            yield _settings(trial, force_tool=value)


def _schema(trial: Trial, settings: Settings, asker: Asker, finding: Finding) -> Iterator[Changes]:
    if settings.schema_shape == "openai":
        yield _settings(trial, schema_shape="flat")
    yield _settings(trial, json_schema="prompt")


OF_CHAT: dict[str, Callable[[Trial, Settings, Asker, Finding], Iterator[Changes]]] = {
    text_probes.TEXT: _text,
    text_probes.USAGE: _usage,
    text_probes.COUNTING: _counting,
    text_probes.SYSTEM: _system,
    text_probes.SCHEMA: _schema,
    tool_probes.TURNS: _turns,
    tool_probes.FORCED: _forced,
    tool_probes.PARAMETERS: _parameters,
}


async def _tool_call(trial: Trial, asker: Asker) -> AsyncIterator[Changes]:
    """The family that reads two calls out of the text: of the answer as the server gives it, then of one whose calls
    the server does not try to read itself. `tool_choice: none` makes servers that print the tools into the prompt all
    the same (vLLM) leave what the model writes as it is."""
    bodies: list[Changes] = [{}]
    if trial.settings is not None:
        bodies.append(_settings(trial, extra_body={**trial.settings.extra_body, "tool_choice": "none"}))
    for body in bodies:
        bare = trial.changed({**body, **_settings(trial, markup=None)})
        try:
            found = await tool_probes.proof(asker.on(await bare.open()))
        except (ConfigError, GatewayError):
            continue
        finally:
            await bare.close()
        if found is not None and found.family is not None:
            yield {**body, **_settings(trial, markup=found.family)}
