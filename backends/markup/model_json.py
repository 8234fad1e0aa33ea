"""JSON as models write it, into JSON, as its pieces come.

Valid JSON passes as it is, byte for byte. What models get wrong is put right where only one meaning is left:

* in strings: line ends and other control characters, backslashes that begin no escape, halves of surrogate pairs that
  stand alone, quotes that are not escaped (a quote ends a string only where what follows may follow a string), Python's
  quotes;
* outside: commas before a closing bracket, missing commas and colons, brackets that close in the wrong order, words of
  Python, text and keys without quotes, comments.

Whatever was read, what has left is the beginning of valid JSON, which `closing` can complete. A `<` outside of strings
ends the value as `broken`, and so does text after a value: the brackets before it were forgotten.
"""

from __future__ import annotations

import json
import re

from dragoman.backends.markup.closing import Expected
from dragoman.backends.markup.text import BLANK_LIMIT, HEADER_LIMIT

_HIGH, _LOW = r"\\u[dD][89abAB][0-9a-fA-F]{2}", r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # halves of surrogate pairs
# of a string: what is valid JSON as it stands
_PLAIN = {
    quote: re.compile(
        rf"""(?:[^{quote[0]}"\\\x00-\x1f]+|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{{4}}|{_HIGH}{_LOW})+"""
    )
    for quote in ('"', "'", '"""', "'''")
}
_MAY_BE_PAIR = re.compile(rf"{_HIGH}(?:\\(?:u(?:[dD](?:[c-fC-F][0-9a-fA-F]?)?)?)?)?\Z")
_BLANK = re.compile(r"\s+")
_ODD_BLANK = re.compile(r"[^ \t\r\n]")
_WORD = re.compile(r"""[^"'{}\[\],:<\n]+""")  # of a key
_TEXT = re.compile(r"""[^"'{}\[\],<\n]+""")  # of a value
_HEX = re.compile(r"[0-9a-fA-F]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = {"true": "true", "True": "true", "false": "false", "False": "false", "null": "null", "None": "null"}
_WORDS |= dict.fromkeys(("NaN", "nan", "undefined", "Infinity", "-Infinity"), "null")
_AFTER_COMMA = {"}": "\"'}", "]": "\"'{[]-0123456789tfnTFN"}
_ESCAPES = '"\\/bfnrt'
_COMMENTS = ("//", "#")


class ModelJson:
    """One object, array or string. `ends` are the tags that may follow a string where brackets were forgotten, all tags
    where none are named. `mended`: something was not valid JSON."""

    def __init__(self, ends: tuple[str, ...] = ()) -> None:
        self.complete = self.broken = self.mended = False
        self._ends = ends
        self._open: list[str] = []  # what closes the open brackets
        self._expected = Expected.VALUE
        self._pending = ""  # a comma that leaves with what follows it, and the blanks after it
        self._quote = ""  # of the open string
        self._string_is_key = False
        self._string_begun = False  # it has a character
        self._written: list[str] = []

    def read(self, text: str, at: int, *, final: bool) -> tuple[int, str]:
        """Reads `text` from `at` on. Gives where it stopped, which is before the end also where what follows must be
        seen first, and the JSON of what was read. `final`: nothing follows `text`."""
        if self._quote and (match := _PLAIN[self._quote].match(text, at)) and match.end() == len(text):
            self._string_begun = True  # the usual piece, within a string
            return match.end(), match[0]
        while at < len(text) and not self.complete and not self.broken:
            end = self._in_string(text, at, final) if self._quote else self._outside(text, at, final)
            if end is None:
                break
            at = end
        written = "".join(self._written)
        self._written.clear()
        return at, written

    def pending(self) -> str:
        """A comma after which nothing came, for a value that breaks off."""
        return self._taken()

    def _mend(self, written: str) -> None:
        self.mended = True
        self._written.append(written)

    # --------------------------------------------------------------------------------------------------------- strings

    def _in_string(self, text: str, at: int, final: bool) -> int | None:
        match = _PLAIN[self._quote].match(text, at)
        if match is not None:
            self._string_begun = True
            self._written.append(match[0])
            return match.end()
        first = text[at]
        if first == "\\":
            return self._escape(text, at, final)
        if first < " ":
            self._mend(json.dumps(first)[1:-1])
        elif first == self._quote[0]:
            return self._quote_in_string(text, at, final)
        else:  # the other kind of quotes
            self._written.append('\\"' if first == '"' else first)
        self._string_begun = True
        return at + 1

    def _escape(self, text: str, at: int, final: bool) -> int | None:
        if at + 1 == len(text):
            return at + 1 if final else None
        self._string_begun = True
        kind = text[at + 1]
        if kind in _ESCAPES:
            self._written.append(text[at : at + 2])
            return at + 2
        if kind == "'":
            self._mend("'")
            return at + 2
        size = 4 if kind == "u" else 2 if kind == "x" and self._quote[0] == "'" else 0
        if size:
            digits = _HEX.match(text, at + 2, at + 2 + size)
            assert digits is not None
            if len(digits[0]) == size == 4:
                return self._half_of_pair(text, at, digits.end(), final)
            if len(digits[0]) == size:
                self._written.append(f"\\u00{digits[0]}")
                return digits.end()
            if digits.end() == len(text) and not final:
                return None
        self._mend("\\\\")
        return at + 1

    def _half_of_pair(self, text: str, at: int, end: int, final: bool) -> int | None:
        """Of an escape that is not valid by itself, and that no other half has followed so far."""
        if not final and _MAY_BE_PAIR.match(text, at):
            return None
        self._mend("\ufffd")
        return end

    def _quote_in_string(self, text: str, at: int, final: bool) -> int | None:
        quote = self._quote
        if len(quote) == 3:
            if quote.startswith(text[at : at + 3]) and len(text) - at < 3 and not final:
                return None
            over: bool | None = text.startswith(quote, at)
        elif not self._open:
            over = True
        else:
            over = self._ends_string(text, at + 1, final)
        if over is None:
            return None
        if over:
            self._quote = ""
            self._written.append('"')
            self._expected = Expected.COLON if self._string_is_key else Expected.COMMA
            self.complete = not self._open
            return at + len(quote)
        if not self._string_begun and text.startswith(quote, at + 1):
            self.mended, self._quote = True, quote * 3
            return at + 2
        self._string_begun = True
        self._mend('\\"' if quote[0] == '"' else "'")
        return at + 1

    def _ends_string(self, text: str, at: int, final: bool) -> bool | None:
        """Whether what follows may follow a string; None where that is still to come."""
        begin = _past_blank(text, at, final)
        if begin is None or begin == len(text) or begin - at >= BLANK_LIMIT:
            return None if begin is None else True
        first = text[begin]
        if first == "<" or (first == "`" and "```" in self._ends and "\n" in text[at:begin]):
            return self._tag_follows(text, begin, final)
        if self._string_is_key:
            return first in ":,}"
        if first != ",":
            return first in self._open
        after = _past_blank(text, begin + 1, final)
        if after is None or after == len(text) or after - begin > BLANK_LIMIT:
            return None if after is None else True
        return text[after] in _AFTER_COMMA[self._open[-1]]

    def _tag_follows(self, text: str, at: int, final: bool) -> bool | None:
        rest = text[at : at + HEADER_LIMIT]
        if not self._ends or rest.startswith(self._ends):
            return True
        return None if not final and any(end.startswith(rest) for end in self._ends) else False

    # ------------------------------------------------------------------------------------------------ outside of them

    def _outside(self, text: str, at: int, final: bool) -> int | None:
        first = text[at]
        if (blank := _BLANK.match(text, at)) is not None:
            self._blank(blank[0])
            return blank.end()
        if first in "\"'":
            self._before_value(key_may_be=True)
            self._string_is_key = self._expected is Expected.KEY
            self._quote, self._string_begun = first, False
            self._written.append('"')
            self.mended |= first == "'"
        elif first in "{[":
            self._opens(first)
        elif first in "}]":
            self._closes(first)
        elif first == ",":
            self._comma()
        elif first == ":":
            self._colon()
        elif first == "<":
            self.broken = True
        else:
            return self._word(text, at, final)
        return at + (not self.broken)

    def _blank(self, blank: str) -> None:
        if blank.strip(" \t\r\n"):
            self.mended, blank = True, _ODD_BLANK.sub(" ", blank)
        if self._pending:
            self._pending += blank
        else:
            self._written.append(blank)

    def _before_value(self, *, key_may_be: bool = False) -> None:
        """Writes what must stand before a key or a value, and decides which of them comes."""
        if self._expected is Expected.COMMA:
            self._mend(", ")
            self._expected = Expected.KEY if self._open[-1] == "}" else Expected.VALUE
        elif self._expected is Expected.COLON:
            self._mend(": ")
            self._expected = Expected.VALUE
        if self._expected is Expected.KEY and not key_may_be:
            self._mend(f'{self._taken()}"": ')
            self._expected = Expected.VALUE
        self._written.append(self._taken())

    def _taken(self) -> str:
        pending, self._pending = self._pending, ""
        return pending

    def _opens(self, bracket: str) -> None:
        if self._expected is Expected.KEY and bracket == "{" and not self._pending:
            self.mended = True  # braces are doubled
            return
        self._before_value()
        self._open.append("}" if bracket == "{" else "]")
        self._expected = Expected.KEY if bracket == "{" else Expected.VALUE
        self._written.append(bracket)

    def _closes(self, bracket: str) -> None:
        if bracket not in self._open:
            self.mended = True
            return
        self._complete_member()
        if self._pending:
            self._mend(self._taken().lstrip(","))
        while (top := self._open.pop()) != bracket:
            self._mend(top)
        self._written.append(bracket)
        self._expected = Expected.COMMA
        self.complete = not self._open

    def _comma(self) -> None:
        self._complete_member()
        if self._expected is not Expected.COMMA:  # a second one
            self.mended = True
            return
        self._pending = ","
        self._expected = Expected.KEY if self._open[-1] == "}" else Expected.VALUE

    def _complete_member(self) -> None:
        """Writes the null of a key without a value."""
        if self._expected is Expected.COLON:
            self._mend(": null")
        elif self._expected is Expected.VALUE and self._open[-1] == "}":
            self._mend("null")
        else:
            return
        self._expected = Expected.COMMA

    def _colon(self) -> None:
        if self._expected is not Expected.COLON:
            self.mended = True
            return
        self._written.append(":")
        self._expected = Expected.VALUE

    def _word(self, text: str, at: int, final: bool) -> int | None:
        """A number, a word, or text without quotes."""
        is_key = self._expected is Expected.KEY
        match = (_WORD if is_key else _TEXT).match(text, at)
        assert match is not None
        if match.end() == len(text) and not final and len(match[0]) < HEADER_LIMIT:
            return None
        word = match[0].rstrip()
        if word.startswith(_COMMENTS):
            self.mended = True
            return match.end()
        if self._expected in (Expected.COMMA, Expected.COLON):
            self.broken = True
            return at
        known = "" if is_key else word if _NUMBER.fullmatch(word) else _WORDS.get(word, "")
        if known != word:
            self.mended = True
        self._written += (self._taken(), known or json.dumps(word, ensure_ascii=False))
        self._expected = Expected.COLON if is_key else Expected.COMMA
        return at + len(word)


def _past_blank(text: str, at: int, final: bool) -> int | None:
    """Where something other than white space stands after `at`, or the bound of white space; None where it is still to
    come."""
    match = _BLANK.match(text, at, at + BLANK_LIMIT)
    end = match.end() if match is not None else at
    return None if end == len(text) and not final and end - at < BLANK_LIMIT else end
