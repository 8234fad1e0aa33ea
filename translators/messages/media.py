"""What is shown of content that is not the text of a message: images, documents, search results.

Documents are read where their text came with them, under their title. What this gateway cannot read is replaced by a
text (`translators.unreadable`); what is not a source at all is refused with its path.
"""

from __future__ import annotations

from dataclasses import replace

from dragoman.translators.fields import Given
from dragoman.translators.ir import Document, Image, Text
from dragoman.translators.messages.reading import (
    INERT,
    expect_text,
    given_element,
    given_object,
    optional_text,
    refused,
    wrong_tag,
)
from dragoman.translators.unreadable import Unreadable

Shown = list[Text | Image]


def image(block: Given, path: str, unreadable: Unreadable) -> Text | Image:
    source = given_object(block, "source", path)
    seen = _image(source, path, f"{path}.source", unreadable)
    source.close()
    return seen


def _image(source: Given, path: str, place: str, unreadable: Unreadable) -> Text | Image:
    match expect_text(source, "type", place):
        case "base64":
            media, data = expect_text(source, "media_type", place), expect_text(source, "data", place)
            return unreadable.image(media, data, path, f"{place}.data")
        case "url":
            return unreadable.image_at(expect_text(source, "url", place), path, f"{place}.url")
        case "file":
            expect_text(source, "file_id", place)
            return unreadable.left_out("image", "uploaded image", path)
        case _:
            source.pass_over(*source)
            return unreadable.left_out("image", "image of unknown source", path)


def document(block: Given, path: str, unreadable: Unreadable) -> Shown:
    source = given_object(block, "source", path)
    shown = _document(block, source, path, unreadable)
    source.close()
    return shown


def _document(block: Given, source: Given, path: str, unreadable: Unreadable) -> Shown:
    place = f"{path}.source"
    title, context = optional_text(block, "title", path), optional_text(block, "context", path) or None
    head = _lines(f"[Document: {title}]" if title else "[Document]", context)
    match expect_text(source, "type", place):
        case "text":
            source.pass_over("media_type")  # text/plain
            return [Text(_lines(head, expect_text(source, "data", place)))]
        case "content":
            return [Text(head), *inner(source, place, unreadable)]
        case "base64":
            media, data = expect_text(source, "media_type", place), expect_text(source, "data", place)
            read = unreadable.document_text(data, media, path, title)
            if isinstance(read, str):
                return [Text(_lines(head, read))]
            text = _lines(read.text, context)
            return [replace(read, text=text, context=context) if isinstance(read, Document) else Text(text)]
        case "url":
            expect_text(source, "url", place)
            what = "document named by URL"
        case "file":
            expect_text(source, "file_id", place)
            what = "uploaded document"
        case _:
            source.pass_over(*source)
            what = "document of unknown source"
    return [Text(_lines(unreadable.left_out("document", what, path, title).text, context))]


def inner(owner: Given, path: str, unreadable: Unreadable) -> Shown:
    """The `content` of a document or a search result, a string or blocks of text and images. `path` is the owner's."""
    content, path = owner.get("content"), f"{path}.content"
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, list):
        raise refused(path, "Input should be a valid string or list of content blocks")
    parts: Shown = []
    for index, block in enumerate(content):
        place = f"{path}.{index}"
        given = given_element(owner, block, place)
        match given.get("type"):
            case "text":
                parts.append(Text(expect_text(given, "text", place)))
            case "image":
                parts.append(image(given, place, unreadable))
            case other:
                raise wrong_tag(place, other, "'text', 'image'")
        given.close(INERT)
    return parts


def search_result(block: Given, path: str, unreadable: Unreadable) -> Shown:
    title, source = expect_text(block, "title", path), expect_text(block, "source", path)
    content = inner(block, path, unreadable)
    return [Text(f"[Search result: {title}]\n[Source: {source}]"), *content]


def _lines(*parts: str | None) -> str:
    return "\n".join(part for part in parts if part is not None)
