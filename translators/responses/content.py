"""Content parts of input items → parts of the representation.

Text stays text, images stay images (whether the server can see them is the backend's business), a file is read only
where its text came with it. What needs a store of files, or a model that hears, is refused with its path.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import unquote_to_bytes

from translators.errors import invalid
from translators.ir import Image, Refusal, Text
from translators.protocol import Json
from translators.responses.schema import expect_text, missing, unsupported, wrong_type, wrong_value

_TEXTS = frozenset({"input_text", "output_text", "text"})
_DETAILS = ("low", "high", "auto", "original")
_TEXT_MEDIA = ("text/", "application/json")


def message_parts(content: Any, path: str) -> tuple[Text | Refusal | Image, ...]:
    """`content` of a message: a string or a list of parts; `path` is that of `content`."""
    if isinstance(content, str):
        return (Text(content),)
    if not isinstance(content, list):
        raise wrong_type(path, "a string or an array of content parts", content)
    return tuple([_part(part, f"{path}[{index}]") for index, part in enumerate(content)])


def output_parts(output: Any, path: str) -> tuple[Text | Image, ...]:
    """`output` of a tool: the same, but nothing in it is a refusal."""
    parts = message_parts(output, path) or (Text(""),)
    return tuple([Text(part.text) if isinstance(part, Refusal) else part for part in parts])


def joined_text(parts: Any, path: str, kinds: tuple[str, ...]) -> str:
    """The text of a list such as `summary` or a reasoning item's `content`, whose parts must be of the given types."""
    if not isinstance(parts, list):
        raise wrong_type(path, "an array", parts)
    texts: list[str] = []
    for index, part in enumerate(parts):
        place = f"{path}[{index}]"
        if not isinstance(part, dict):
            raise wrong_type(place, "an object", part)
        kind = expect_text(part, "type", place)
        if kind not in kinds:
            raise wrong_value(f"{place}.type", kind, ", ".join(f"'{one}'" for one in kinds))
        texts.append(expect_text(part, "text", place))
    return ("\n\n" if "summary_text" in kinds else "").join(texts)


def _part(part: Any, path: str) -> Text | Refusal | Image:
    if not isinstance(part, dict):
        raise wrong_type(path, "an object", part)
    kind = expect_text(part, "type", path)
    if kind in _TEXTS:
        return Text(expect_text(part, "text", path))
    match kind:
        case "refusal":
            return Refusal(expect_text(part, "refusal", path))
        case "input_image":
            return _image(part, path)
        case "input_file":
            return _file(part, path)
        case "input_audio" | "input_video":
            raise unsupported(f"{path}.type", f"Content of type '{kind}' is not supported by this gateway.")
        case _:
            allowed = "'input_text', 'input_image', 'input_file', 'output_text' and 'refusal'"
            raise wrong_value(f"{path}.type", kind, allowed)


def _image(part: Json, path: str) -> Image:
    url = part.get("image_url")
    if url is None:
        if part.get("file_id") is not None:
            raise _no_files(f"{path}.file_id")
        raise missing(f"{path}.image_url")
    if not isinstance(url, str):
        raise wrong_type(f"{path}.image_url", "a string", url)
    if not _is_image_url(url):
        message = "Invalid image: expected a base64-encoded data URL with an image media type, or an http(s) URL."
        raise invalid(message, f"{path}.image_url")
    detail = part.get("detail")
    if detail is not None and detail not in _DETAILS:
        raise wrong_value(f"{path}.detail", detail, "'low', 'high', 'auto' and 'original'")
    return Image(url, detail, f"{path}.image_url")


def _is_image_url(url: str) -> bool:
    head = url[:256].lower()
    if head.startswith("data:"):
        media, comma, payload = url.partition(",")
        return media[:11].lower() == "data:image/" and media.lower().endswith(";base64") and bool(comma and payload)
    return head.startswith(("http://", "https://")) and len(url) > len("https://")


def _file(part: Json, path: str) -> Text:
    for key in ("file_id", "file_url"):
        if part.get(key) is not None:
            raise _no_files(f"{path}.{key}")
    text = _inline_text(expect_text(part, "file_data", path), f"{path}.file_data")
    name = part.get("filename")
    if name is None:
        return Text(text)
    if not isinstance(name, str):
        raise wrong_type(f"{path}.filename", "a string", name)
    return Text(f"[File: {name}]\n{text}")


def _inline_text(url: str, path: str) -> str:
    """The text in a data URL (RFC 2397) of a text type; anything else would need a reader for that type."""
    media, comma, payload = url.partition(",")
    media = media.lower()
    if not comma or not media.startswith("data:"):
        raise invalid("Invalid file: expected a data URL.", path)
    if not media.removeprefix("data:").startswith(_TEXT_MEDIA):
        raise unsupported(path, "Only files with a text media type are supported by this gateway.")
    try:
        raw = base64.b64decode(payload, validate=True) if media.endswith(";base64") else unquote_to_bytes(payload)
        return raw.decode()
    except (binascii.Error, ValueError):
        raise invalid("Invalid file: its data is not the base64 of UTF-8 text.", path) from None


def _no_files(path: str) -> Exception:
    return unsupported(path, "Uploaded or remote files are not supported by this gateway: send the data itself.")
