"""The JSON files beside a model's tokenizer, read with the faults named.

They need no package: what the gateway wants of them is a few strings and numbers. Nothing is guessed where a file is
missing; what stands in one and is wrong stops the start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dragoman.translators.errors import GatewayError, Kind

Json = dict[str, Any]


def read_json(path: Path) -> Json:
    """A JSON object in a file; {} where there is none. Raises `GatewayError` INVALID for what is no JSON object."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise unusable(f"{path.name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise unusable(f"{path.name} is not a JSON object")
    return value


def special_tokens(config: Json) -> dict[str, str]:
    """`bos_token` and the others of a tokenizer_config.json, where each is a string or an object with `content`."""
    tokens: dict[str, str] = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def unusable(message: str) -> GatewayError:
    return GatewayError(Kind.INVALID, message, "tokenizer")
