"""Faults of the configuration in words: the key, what stands there, what would be right, and the nearest known word.

pydantic finds them; here each of its kinds of error becomes a reason in the words of somebody who writes YAML. A value
is quoted only where it cannot be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dragoman.backends.chat.settings import PRESETS, Settings
from dragoman.gateway.config.fields import Unit
from dragoman.gateway.config.schema import Config, Inconsistent
from dragoman.gateway.config.sections import BackendConfig
from dragoman.gateway.nearest import nearest

if TYPE_CHECKING:
    from dragoman.gateway.config.yaml_file import Key

NEVER_HERE = {
    "api_keys": "keys are never written down here; use DRAGOMAN_API_KEYS or api_keys_file",
    "seal_keys": "keys are never written down here; use DRAGOMAN_SEAL_KEYS or seal_keys_file",
    "api_key": "a key is never written down here; use api_key_env or api_key_file",
}
# What other programs call it, where no spelling is near.
ELSEWHERE = {"listen": "host", "bind": "host", "address": "host", "base_url": "url", "backend": "backends"}
SECONDS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
BYTES = {"b": 1, "k": 2**10, "kb": 10**3, "kib": 2**10, "m": 2**20, "mb": 10**6, "mib": 2**20, "g": 2**30, "gb": 10**9,
         "gib": 2**30}  # fmt: skip
TOKENS = {"k": 2**10, "m": 2**20}
CHARACTERS = {"k": 10**3, "m": 10**6}
SCALES: Mapping[str, Mapping[str, float]] = {
    "seconds": SECONDS, "bytes": BYTES, "tokens": TOKENS, "characters": CHARACTERS, "pages": {},
}  # fmt: skip
AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*?)(?:onds?|utes?|ours?|ays?|ytes?)?\s*")
PRIVATE = re.compile(r"(?i)url|key|secret|token|passw|authorization|cookie|bearer|credential|env$")
LONGEST_QUOTE = 60
MISSING = "is missing"
DID_YOU_MEAN = re.compile(r"did you mean `(\w+)`")
WHOLE, NUMBER, TRUTH, TEXT = "a whole number", "a number", "true or false", "text"
WANTED = {
    "int_parsing": WHOLE, "int_type": WHOLE, "int_from_float": WHOLE, "int_parsing_size": WHOLE,
    "float_parsing": NUMBER, "float_type": NUMBER, "finite_number": NUMBER,
    "bool_parsing": TRUTH, "bool_type": TRUTH,
    "string_type": TEXT, "path_type": "the path of a file",
}  # fmt: skip
BOUNDS = {
    "greater_than": ("must be above", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be below", "lt"),
    "less_than_equal": ("must be at most", "le"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """`of_value`: whether the value is wrong, not the key. `near`: the nearest key, if it is the key that is wrong."""

    key: Key
    reason: str
    of_value: bool = False


def faults(error: ValidationError) -> Iterator[Fault]:
    """A key that is missing is not reported where another one of its section is said to be a slip of it."""
    found = list(_faults(error))
    meant = {(*each.key[:-1], near[1]) for each in found if (near := DID_YOU_MEAN.search(each.reason))}
    yield from (each for each in found if each.reason != MISSING or each.key not in meant)


def _faults(error: ValidationError) -> Iterator[Fault]:
    for each in error.errors():
        cause = (each.get("ctx") or {}).get("error")
        if isinstance(cause, Inconsistent):
            for key, reason in cause.faults:
                yield Fault(key, reason)
        else:
            key = tuple(step for step in each["loc"] if not str(step).startswith("function-"))
            yield _fault(key, each)


def setting_faults(given: Mapping[str, Any]) -> Iterator[Fault]:
    """Wrong presets and settings of chat servers, in values that may be wrong elsewhere too: all faults are said in one
    run. Those of other kinds of servers show when their backends are opened."""
    backends = given.get("backends")
    for place, backend in enumerate(backends if isinstance(backends, list) else ()):
        if isinstance(backend, dict) and str(backend.get("url")).lower().startswith("http"):
            yield from _of_chat_server(place, backend, given.get("preset"))


def _of_chat_server(place: int, backend: Mapping[str, Any], default: object) -> Iterator[Fault]:
    preset = backend.get("preset") or default or "generic"
    settings = backend.get("settings") or {}
    if not isinstance(preset, str) or not isinstance(settings, dict):
        return  # said by the schema
    if preset not in PRESETS:
        key: Key = ("backends", place, "preset") if backend.get("preset") else ("preset",)
        hint = nearest(preset, PRESETS) or f"; there are {', '.join(PRESETS)}"
        yield Fault(key, f"unknown preset {preset!r}{hint}", of_value=True)
        return
    try:
        Settings.model_validate({**PRESETS[preset], "preset": preset, **settings})
    except ValidationError as error:
        for each in error.errors():
            yield _fault(("backends", place, "settings", *each["loc"]), each)


def _fault(key: Key, error: ErrorDetails) -> Fault:
    match error["type"]:
        case "extra_forbidden":
            return Fault(key, unknown_key(key))
        case "missing":
            return Fault(key, MISSING)
        case "value_error":
            return Fault(key, error["msg"].removeprefix("Value error, "))
        case _:
            return Fault(key, _reason(key, error), of_value=True)


def unknown_key(key: Key) -> str:
    """Why a key is refused: the section's nearest key, or the section in which there is one of that name."""
    name = str(key[-1])
    if name in NEVER_HERE:
        return NEVER_HERE[name]
    known = section_keys(key[:-1])
    if len(key) > 1 and name in Config.model_fields:
        return "unknown key; it belongs at the top"
    if hint := nearest(name, known):
        return f"unknown key{hint}"
    if len(key) == 1:
        for section in Config.model_fields:
            if name in section_keys((section,)):
                return f"unknown key; it belongs in `{section}`"
    return f"unknown key; did you mean `{ELSEWHERE[name]}`?" if ELSEWHERE.get(name) in known else "unknown key"


def section_keys(key: Key) -> list[str]:
    model = _model(_annotation(key))
    return list(model.model_fields) if model is not None else []


def _reason(key: Key, error: ErrorDetails) -> str:
    value, kind, context = error["input"], error["type"], error.get("ctx") or {}
    shown = quoted(key, value)
    if value is None:
        return "is empty; give it a value, or leave the key out"
    if kind == "literal_error":
        known = [str(each) for each in get_args(_plain(_annotation(key)))]
        hint = nearest(str(value), known) or _switch(value)
        return f"{shown} is not one of {', '.join(known)}{hint}"
    if kind in BOUNDS:
        words, name = BOUNDS[kind]
        return f"{shown} {words} {_number(context[name])}{_unit_hint(key, value, context[name])}"
    if kind in WANTED:
        wanted = WANTED[kind]
        if wanted in (WHOLE, NUMBER) and (unit := unit_of(_annotation(key))):
            return f"{shown} is not a number of {unit}{_amount(value, unit)}"
        return f"{shown} is not {wanted}" + (f'; quote it: "{value}"' if wanted == TEXT and shown == str(value) else "")
    if kind in ("tuple_type", "list_type"):
        return f"{shown} is not a list; begin each entry with `- `, or write [a, b]"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        names = ", ".join(section_keys(key)[:3])
        return f"{shown} is not a section; write keys below it{f': {names} …' if names else ''}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}"


def quoted(key: Key, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "a section"
    if PRIVATE.search(str(key[-1])) or len(str(value)) > LONGEST_QUOTE:
        return "its value"
    return repr(value)


def _switch(value: Any) -> str:
    return "; YAML reads yes, no, on and off as true and false: quote it" if isinstance(value, bool) else ""


def _amount(value: Any, unit: str) -> str:
    """`; write 600` for `10m` where seconds are meant."""
    found = AMOUNT.fullmatch(str(value)) if not isinstance(value, bool) else None
    scale = SCALES[unit].get(found[2].lower()) if found else None
    if found is None or scale is None:
        return ""
    return f"; write {_number(float(found[1]) * scale)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6g}"


def _unit_hint(key: Key, value: Any, bound: float) -> str:
    unit = unit_of(_annotation(key))
    if unit == "seconds" and isinstance(value, int | float) and value > bound > value / 1000 > 0:
        return f" seconds; if milliseconds are meant, write {_number(value / 1000)}"
    return f" {unit}" if unit else ""


# ----------------------------------------------------------------------------------------- what the models say of a key


def _annotation(key: Key) -> Any:
    """The type of the value that a key leads to, or None where the models know none."""
    current: Any = Config
    for step in key:
        if isinstance(step, int):
            current = next(iter(get_args(_plain(current))), None)
        elif step == "settings" and _model(current) is BackendConfig:
            current = Settings
        elif (model := _model(current)) is not None and step in model.model_fields:
            field = model.model_fields[step]
            current = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        else:
            return None
    return current


def _plain(annotation: Any) -> Any:
    """Without `Annotated` and without `| None`."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return next((_plain(each) for each in get_args(annotation) if each is not type(None)), None)
    return annotation


def _model(annotation: Any) -> type[BaseModel] | None:
    plain = _plain(annotation)
    if get_origin(plain) is tuple:
        plain = _plain(get_args(plain)[0])
    return plain if isinstance(plain, type) and issubclass(plain, BaseModel) else None


def unit_of(annotation: Any) -> str | None:
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        found = next((each.name for each in metadata if isinstance(each, Unit)), None)
        return found or unit_of(inner)
    if get_origin(annotation) in (Union, UnionType):
        return next((found for each in get_args(annotation) if (found := unit_of(each))), None)
    return None
