"""Images and files in the content of a message, as both OpenAI protocols write them.

An image stays an image (whether the server can see it is the backend's business), a file is read only where its text
came with it. What needs a store of files is refused with its path.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

from translators.errors import GatewayError, invalid
from translators.ir import Image, Text
from translators.openai_fields import expect_text, text_or_null, unsupported, wrong_type, wrong_value
from translators.protocol import Json

_DETAILS = ("low", "high", "auto", "original")
_TEXT_MEDIA = ("text/", "application/json")


def image(url: object, detail: object, path: str, key: str = "image_url") -> Image:
    """`path` is that of the object that holds the URL under `key`, and `detail`."""
    place = f"{path}.{key}"
    if not isinstance(url, str):
        raise wrong_type(place, "a string", url)
    if not _is_image_url(url):
        message = "Invalid image: expected a base64-encoded data URL with an image media type, or an http(s) URL."
        raise invalid(message, place)
    if detail is not None and detail not in _DETAILS:
        raise wrong_value(f"{path}.detail", detail, "'low', 'high', 'auto' and 'original'")
    assert detail is None or isinstance(detail, str)
    return Image(url, detail, place)


def _is_image_url(url: str) -> bool:
    head = url[:256].lower()
    if head.startswith("data:"):
        media, comma, payload = url.partition(",")
        return media[:11].lower() == "data:image/" and media.lower().endswith(";base64") and bool(comma and payload)
    return head.startswith(("http://", "https://")) and len(url) > len("https://")


def file_text(file: Json, path: str) -> Text:
    """A file whose data came with it; `file` holds `file_data` and perhaps `filename`."""
    if file.get("file_id") is not None:
        raise no_files(f"{path}.file_id")
    text = _inline_text(expect_text(file, "file_data", path), f"{path}.file_data")
    name = text_or_null(file, "filename", path)
    return Text(text if name is None else f"[File: {name}]\n{text}")


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


def no_files(path: str) -> GatewayError:
    return unsupported(path, "Uploaded or remote files are not supported by this gateway: send the data itself.")
