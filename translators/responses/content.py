"""Content parts of input items → parts of the representation.

Text stays text; images and files are read by `translators.openai.content`. Audio and video are refused with their path.
"""

from __future__ import annotations

from typing import Any

from dragoman.translators.fields import Given
from dragoman.translators.ir import Image, Refusal, Text
from dragoman.translators.openai.catalogue import INERT
from dragoman.translators.openai.content import Media
from dragoman.translators.openai.reading import expect_text
from dragoman.translators.openai.refusals import unsupported, wrong_type, wrong_value

_INERT = INERT | {"logprobs", "parsed"}  # of an earlier answer; the second is what OpenAI's SDK made of it
_TEXTS = frozenset({"input_text", "output_text", "text"})
_THOUGHTS = frozenset({"reasoning_text", "summary_text", "output_text", "text"})


def message_parts(owner: Given, content: Any, path: str, media: Media) -> tuple[Text | Refusal | Image, ...]:
    """`content` of a message, a string or a list of parts. `path` is that of `content`; `owner` holds it."""
    if isinstance(content, str):
        return (Text(content),)
    if not isinstance(content, list):
        raise wrong_type(path, "a string or an array of content parts", content)
    return tuple([_part(owner, part, f"{path}[{index}]", media) for index, part in enumerate(content)])


def output_parts(owner: Given, output: Any, path: str, media: Media) -> tuple[Text | Image, ...]:
    """`output` of a tool: the same, except that a refusal in it is text, and null is that of one that returns none.
    What OpenAI's own tools have returned may be encrypted."""
    parts = (() if output is None else message_parts(owner, output, path, media)) or (Text(""),)
    return tuple([Text(part.text) if isinstance(part, Refusal) else part for part in parts])


def joined_text(owner: Given, parts: Any, path: str, separator: str = "") -> str:
    """The text of a reasoning item's `content` or `summary`, under any of the types that servers give to its parts
    (LiteLLM: `output_text`)."""
    if not isinstance(parts, list):
        raise wrong_type(path, "an array", parts)
    texts: list[str] = []
    for index, value in enumerate(parts):
        place = f"{path}[{index}]"
        if not isinstance(value, dict):
            raise wrong_type(place, "an object", value)
        part = owner.inner(value, place)
        kind = expect_text(part, "type", place)
        if kind not in _THOUGHTS:
            raise wrong_value(f"{place}.type", kind, "'reasoning_text' and 'summary_text'")
        texts.append(expect_text(part, "text", place))
        part.close(_INERT)
    return separator.join(texts)


def _part(owner: Given, value: Any, path: str, media: Media) -> Text | Refusal | Image:
    if not isinstance(value, dict):
        raise wrong_type(path, "an object", value)
    part = owner.inner(value, path)
    read = _read_part(part, path, media)
    part.close(_INERT | media.inert)
    return read


def _read_part(part: Given, path: str, media: Media) -> Text | Refusal | Image:
    kind = expect_text(part, "type", path)
    if kind in _TEXTS:
        return Text(expect_text(part, "text", path))
    match kind:
        case "refusal":
            return Refusal(expect_text(part, "refusal", path))
        case "input_image":
            return media.image(part, path)
        case "input_file":
            return media.file(part, path)
        case "encrypted_content":
            expect_text(part, "encrypted_content", path)
            return media.encrypted(f"{path}.type")
        case "input_audio" | "input_video":
            raise unsupported(f"{path}.type", f"Content of type '{kind}' is not supported by this gateway.")
        case _:
            allowed = "'input_text', 'input_image', 'input_file', 'output_text' and 'refusal'"
            raise wrong_value(f"{path}.type", kind, allowed)
