"""Documents and images that cannot be read or shown: a text in their place, or a refusal, as the operator decides.

Where the gateway reads PDFs (`Policy.documents`), one becomes a `Document`, and what is said here of documents that
cannot be read is done once its reading has failed, by `gateway.calls.documents` with `unread` and `in_place_of`.

What was once in a conversation comes back with every later turn, so a refusal would end the session for good. Hence a
text takes the place of what cannot be read, and a note `item:…` names it to client and operator. The text holds the
name that the client gave and the kind of content, and nothing that changes from turn to turn (a URL may be signed anew
each time), so that the prompt of a turn stays a prefix of the next one's.

What a request must have (a source, a string where one is needed) is checked by the parsers and refused as usual; what
such a string holds is content, and is judged here. The limits of a deployment (a model without vision, the hosts that
images may come from) are checked after the parsers, with `asked_about`: an image that the answer is about is refused
with the reason; one in the history is replaced by a text.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Literal

from dragoman.translators.errors import Content, GatewayError, Kind
from dragoman.translators.ir import Document, Image, Message, Note, Part, Text, ToolResult
from dragoman.translators.protocol import Policy

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
NO_VISION = "this model does not see images"
_MAGIC = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF87a", "gif"), (b"GIF89a", "gif"))
_HEAD = 64  # characters of base64 that show what an image is; a multiple of four
_BLANKS = " \n\r\t"
_OTHER_NAMES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
UNREADABLE = "this gateway cannot read it"
PDF_DOCUMENT = "PDF document"
_PDF = "application/pdf"
_PDF_HEAD = b"%PDF-"
_PEEK = 4096  # characters that are enough to recognize binary data without decoding all of it; a multiple of four
_TEXTUAL = ("text/", "application/json")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r")) + b"\x7f"
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}")
_HINTS = {"document": "send their text", "image": "send PNG, JPEG, GIF or WebP data"}
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What one request holds that cannot be read; `notes` grows with it. `document` is the protocol's word for one."""

    policy: Policy
    notes: list[Note]
    document: str

    def document_text(self, data: str, media: str, path: str, name: str | None = None) -> str | Text:
        """The text of a document that came as base64, or what stands for it, as a `Text`."""
        media = plain_type(media)
        raw = _decoded(data[:_PEEK])
        if len(data) > _PEEK and (raw is None or not _is_binary(raw, media)):
            raw = _decoded(data)
        return self._text(raw, media, path, name, data)

    def data_url_text(self, url: str, path: str, name: str | None = None) -> str | Text:
        """The same for a data URL (RFC 2397) or for bare base64, which some clients send."""
        head, comma, payload = url.partition(",")
        if not comma or head[:5].lower() != "data:":
            return self.document_text(url, "", path, name)
        if head.lower().endswith(";base64"):
            return self.document_text(payload, head[5:], path, name)
        return self._text(_unquoted(payload), plain_type(head[5:]), path, name)

    def _text(self, raw: bytes | None, media: str, path: str, name: str | None, data: str | None = None) -> str | Text:
        """`data` is all of it in base64 where `raw` is perhaps its beginning alone."""
        if raw is not None and (raw or media != _PDF) and (text := _as_text(raw, media)) is not None:
            return text
        media = _PDF if raw is not None and _is_pdf(raw) else media
        if media == _PDF and raw and self.policy.documents:
            data = base64.b64encode(raw).decode() if data is None else data
            return Document(in_place_of(PDF_DOCUMENT, UNREADABLE, name), data, name, None, self.document, path)
        return self.left_out("document", _document_of(media), path, name)

    def image(self, media: str, data: str, path: str, place: str, detail: str | None = None) -> Image | Text:
        """An image that came as base64, with the usual name of its type. `path` is that of the whole part, `place` that
        of the data. A document in an image's place, as LiteLLM and with it aider send PDFs, is read as a document."""
        known = _OTHER_NAMES.get(media := plain_type(media), media)
        data = _in_one_line(data)
        if known not in IMAGE_TYPES and (kind := image_kind(_decoded(data[:_HEAD]) or b"")):
            known = f"image/{kind}"
        if data and (known == _PDF or known.startswith(_TEXTUAL)):
            read = self.document_text(data, known, place)
            return read if isinstance(read, Text) else Text(read)
        if known not in IMAGE_TYPES:
            return self.left_out("image", f"image of {_of_type(media)}", path)
        if not data:
            return self.left_out("image", "image without data", path)
        return Image(f"data:{known};base64,{data}", detail, place)

    def image_at(self, url: str, path: str, place: str, detail: str | None = None) -> Image | Text:
        """An image as a data URL or an http(s) URL."""
        scheme = url[:8].lower()
        if scheme.startswith("data:"):
            head, _, payload = url.partition(",")
            if payload and not head.lower().endswith(";base64"):
                payload = base64.b64encode(_unquoted(payload)).decode()
            return self.image(head[5:], payload, path, place, detail)
        if scheme.startswith(("http://", "https://")) and len(url) > len("https://"):
            return Image(url, detail, place)
        return self.left_out("image", "image with an unusable URL" if url else "image without data", path)

    def image_in_file(self, data: str, path: str, place: str) -> Image | Text | None:
        """The image that a file is, as LlamaIndex for JavaScript sends images; None for any other file. `data` is a
        data URL or bare base64."""
        head, comma, payload = data.partition(",")
        if not comma:
            payload = data
        elif not head.lower().endswith(";base64"):
            return None
        kind = image_kind(_decoded(payload[:_HEAD]) or b"")
        return self.image(f"image/{kind}", payload, path, place) if kind else None

    def left_out(self, content: Literal["document", "image"], what: str, path: str, name: str | None = None) -> Text:
        """`what` describes it in a few words that include `content`, such as "PDF document"."""
        if self.policy.unreadable == "reject":
            raise unread(content, what, path)
        self.notes.append(Note("item", self.document if content == "document" else content))
        return Text(in_place_of(what, UNREADABLE, name))


def in_place_of(what: str, reason: str, name: str | None = None) -> str:
    """`[PDF document "report.pdf" left out: this gateway cannot read it]`"""
    shown = named(what, name)
    return f"[{shown[0].upper()}{shown[1:]} left out: {reason}]"


def named(what: str, name: str | None) -> str:
    """`PDF document "report.pdf"`"""
    called = " ".join((name or "").split())[:_MAX_NAME]
    return f'{what} "{called}"' if called else what


UNSEEN_IMAGE = in_place_of("image", NO_VISION)
NOT_TAKEN_IMAGE = in_place_of("image", "the model server does not take it")


def unread(content: Literal["document", "image"], what: str, path: str) -> GatewayError:
    many = what.replace(content, f"{content}s", 1)
    return refusal(content, f"{many[0].upper()}{many[1:]} cannot be read by this gateway; {_HINTS[content]}.", path)


def refusal(content: Content, message: str, path: str, code: str = "unsupported_value") -> GatewayError:
    return GatewayError(Kind.UNSUPPORTED, message, path or None, code=code, content=content)


def unseen(image: Image) -> GatewayError:
    return refusal("image", "This model does not see images.", image.path, "invalid_value")


def asked_about(messages: Sequence[Message]) -> tuple[Image, ...]:
    """The images that the answer is about: those in the user's last message, unless the model or a tool came later."""
    for message in reversed(messages):
        if message.role == "user":
            return tuple(part for part in message.parts if isinstance(part, Image) and not part.past)
        if message.role not in ("system", "developer"):
            break
    return ()


def with_latest_images(messages: Sequence[Message], most: int) -> tuple[Message, ...] | None:
    """With a text in place of all images but the last `most`, and at least those that the answer is about. None where
    there are no others, and where these alone are more than `most`, unless that is 0."""
    needed = len(asked_about(messages))
    if 0 < most < needed:
        return None
    keeps = chain(repeat(True, max(most, needed)), repeat(False))  # from the last image backwards
    left_out = 0

    def kept(image: Image) -> Image | Text:
        nonlocal left_out
        if next(keeps):
            return image
        left_out += 1
        return Text(NOT_TAKEN_IMAGE)

    def shown(part: Part) -> Part:
        if isinstance(part, ToolResult):
            content = tuple(kept(item) if isinstance(item, Image) else item for item in reversed(part.content))
            return replace(part, content=content[::-1])
        return kept(part) if isinstance(part, Image) else part

    out = [replace(message, parts=tuple(map(shown, reversed(message.parts)))[::-1]) for message in reversed(messages)]
    return tuple(reversed(out)) if left_out else None


def plain_type(media: str) -> str:
    """A media type without its parameters."""
    return media[:256].partition(";")[0].strip().lower()


def _of_type(media: str) -> str:
    return f"type {media}" if _MEDIA_TYPE.fullmatch(media) else "unknown type"


def _document_of(media: str) -> str:
    return PDF_DOCUMENT if media == _PDF else f"document of {_of_type(media)}"


def _as_text(raw: bytes, media: str) -> str | None:
    """What decodes as UTF-8 without control characters is text, whatever its media type."""
    if _is_binary(raw, media):
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _is_binary(raw: bytes, media: str) -> bool:
    """Data of a textual type may hold control characters."""
    return _is_pdf(raw) or (not media.startswith(_TEXTUAL) and len(raw.translate(None, _CONTROLS)) != len(raw))


def _is_pdf(raw: bytes) -> bool:
    return raw[:_PEEK].lstrip().startswith(_PDF_HEAD)


def _decoded(data: str) -> bytes | None:
    """Base64, also broken into lines as in mail."""
    for spelled in (data, _without_blanks(data)):
        with contextlib.suppress(ValueError):
            return base64.b64decode(spelled, validate=True)
    return None


def _in_one_line(data: str) -> str:
    """Base64 as SGLang takes it: without the line ends of `base64 FILE`, and not quoted as in a URL."""
    if "%" in data:
        for sign, quoted in (("+", "%2B"), ("/", "%2F"), ("=", "%3D")):
            data = data.replace(quoted, sign).replace(quoted.lower(), sign)
    return _without_blanks(data)


def _without_blanks(data: str) -> str:
    if not any(blank in data for blank in _BLANKS):
        return data
    return data.encode("utf-8", "surrogatepass").translate(None, _BLANKS.encode()).decode("utf-8", "surrogatepass")


def image_kind(raw: bytes | bytearray) -> str | None:
    """`png` for the first bytes of one; None for what no server is known to take."""
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "webp"
    return next((kind for magic, kind in _MAGIC if raw.startswith(magic)), None)


def _unquoted(payload: str) -> bytes:
    """With its `%41` read, if all of them can be; in C, since `urllib` takes a microsecond for each."""
    raw = payload.encode("utf-8", "surrogatepass")
    if b"%\n" in raw or b"%\r" in raw:  # would be soft line ends
        return raw
    found = binascii.a2b_qp(raw.replace(b"=", b"=3D").replace(b"%", b"="))
    return found if len(found) == len(raw) - 2 * raw.count(b"%") else raw
