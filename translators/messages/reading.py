"""Reading by hand what is deep and often large in a body, and the words in which a wrong value is refused.

Refusals have this API's form, the path and pydantic's own sentence: `messages.0.content: Field required`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dragoman.translators.errors import GatewayError, Kind, invalid, quoted
from dragoman.translators.fields import Given
from dragoman.translators.protocol import Json

# Keys that change nothing: servers cache prefixes on their own, and send a call's input as it comes.
INERT = frozenset({"cache_control", "eager_input_streaming"})


def expect_text(owner: Mapping[str, Any], key: str, path: str) -> str:
    """`owner[key]` as a string; `path` is that of `owner`."""
    value = owner.get(key)
    if isinstance(value, str):
        return value
    raise _wrong(owner, key, path, "string")


def expect_object(owner: Mapping[str, Any], key: str, path: str) -> Json:
    value = owner.get(key)
    if isinstance(value, dict):
        return value
    raise _wrong(owner, key, path, "dictionary")


def given_object(owner: Given, key: str, path: str) -> Given:
    """An object inside another, to be closed when it is read."""
    return owner.inner(expect_object(owner, key, path), f"{path}.{key}")


def given_element(owner: Given, value: object, path: str) -> Given:
    """An object of a list inside another; `path` is its own."""
    return owner.inner(as_object(value, path), path)


def optional_text(owner: Mapping[str, Any], key: str, path: str) -> str | None:
    return None if owner.get(key) is None else expect_text(owner, key, path)


def as_object(value: object, path: str) -> Json:
    if isinstance(value, dict):
        return value
    raise refused(path, "Input should be a valid dictionary")


def refused(path: str, message: str) -> GatewayError:
    return invalid(f"{path}: {message}", path)


def unsupported(path: str, message: str) -> GatewayError:
    """The API allows it, but it is not possible here."""
    return GatewayError(Kind.UNSUPPORTED, f"{path}: {message}", path, code="unsupported_value")


def wrong_tag(path: str, tag: object, allowed: str) -> GatewayError:
    """`path` is that of an object whose `type` is not one of those `allowed` here."""
    return invalid(
        f"{path}.type: Input tag {quoted(tag)} does not match any of the expected tags: {allowed}", f"{path}.type"
    )


def _wrong(owner: Mapping[str, Any], key: str, path: str, expected: str) -> GatewayError:
    message = f"Input should be a valid {expected}" if key in owner else "Field required"
    return refused(f"{path}.{key}", message)
