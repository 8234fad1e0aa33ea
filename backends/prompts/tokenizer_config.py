"""What the JSON files beside a model's tokenizer say, as far as prompts need it.

It needs no package: the gateway wants a few strings and numbers. Nothing is guessed where an entry is missing. The
files are read by `backends.model_folder`.
"""

from __future__ import annotations

from typing import Any

from dragoman.translators.errors import GatewayError, Kind

Json = dict[str, Any]


def special_tokens(config: Json) -> dict[str, str]:
    """`bos_token` and the others of a tokenizer_config.json, where each is a string or an object with `content`."""
    tokens: dict[str, str] = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def chat_templates(config: Json) -> dict[str, str]:
    """The templates of a tokenizer_config.json by name; a single one is called `default`."""
    found = config.get("chat_template")
    if isinstance(found, str):
        return {"default": found}
    if isinstance(found, list):
        return {str(one.get("name")): str(one.get("template")) for one in found if isinstance(one, dict)}
    return {}


def eos_ids(config: Json) -> list[int]:
    """`eos_token_id` of a generation_config.json or config.json, a number or a list of them."""
    value = config.get("eos_token_id")
    return [id for id in (value if isinstance(value, list) else [value]) if isinstance(id, int)]


def unusable(message: str) -> GatewayError:
    return GatewayError(Kind.INVALID, message, "tokenizer")
