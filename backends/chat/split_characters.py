"""Characters that a server has split over two chunks: an emoji as one half of a surrogate pair in each.

Servers that cut text by UTF-16 units, or JSON by tokens, write `"\\ud83d"` and then `"\\ude00"`. A half at the end of a
text waits for the next text of its kind; a half that stays alone becomes U+FFFD, as in any other text, and so do halves
beyond `MAX_WAITING`.
"""

from __future__ import annotations

from typing import Any

from dragoman.translators.json_text import joined_halves

_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
MAX_WAITING = 1_024  # halves
Json = dict[str, Any]


class SplitCharacters:
    """`mend` is called for chunks with halves in them, and for every chunk while halves are `waiting`."""

    def __init__(self) -> None:
        self.waiting: dict[object, str] = {}  # halves, by the field, or the index of a call

    def mend(self, chunk: Any) -> Any:
        """The chunk without halves."""
        if not isinstance(chunk, dict) or not isinstance(choices := chunk.get("choices"), list):
            return _clean(chunk)
        return {**_clean({**chunk, "choices": None}), "choices": [self._choice(choice) for choice in choices]}

    def _choice(self, choice: Any) -> Any:
        if not isinstance(choice, dict):
            return _clean(choice)
        mended = dict(choice)
        for key in ("delta", "message"):
            if isinstance(said := choice.get(key), dict):
                mended[key] = self._said(said)
        return _clean(mended)

    def _said(self, said: Json) -> Json:
        texts: Json = {key: self._text(key, said[key]) for key in _TEXTS if isinstance(said.get(key), str)}
        calls = said.get("tool_calls")
        if isinstance(calls, list):
            texts["tool_calls"] = [self._call(call, position) for position, call in enumerate(calls)]
        return {**said, **texts}

    def _call(self, call: Any, position: int) -> Any:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(arguments := function.get("arguments"), str):
            return call
        index = call.get("index")
        text = self._text(index if isinstance(index, int) else position, arguments)
        return {**call, "function": {**function, "arguments": text}}

    def _text(self, kind: object, text: str) -> str:
        if not text:
            return text
        text = self.waiting.pop(kind, "") + text
        if "\ud800" <= text[-1] <= "\udbff" and len(self.waiting) < MAX_WAITING:
            self.waiting[kind], text = text[-1], text[:-1]
        return joined_halves(text)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return joined_halves(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(inner) for key, inner in value.items()}
    return [_clean(inner) for inner in value] if isinstance(value, list) else value
