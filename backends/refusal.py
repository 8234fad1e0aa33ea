"""What a server says when it refuses: any body as a few bounded words and the fields beside them.

A server's text may be long, hostile, or a quotation of somebody's prompt. The rules:

* It is cut before anything looks at it. Patterns take `Words`, and only `cut` makes them, so that their cost is bounded
  whatever a server sends. They are linear all the same.
* Values that a validation error repeats (`input`, `input_value`) are left out: they are the client's own.
* What is passed on to a client is redacted: no stack trace, URL, host, path or key.

What a refusal means is decided in `backends.chat.errors`, for Triton in `backends.triton.errors`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NewType, TypeVar

import orjson

from dragoman.backends.sensitive import Sensitive
from dragoman.backends.usage import count

MAX_BODY = 256 * 1024  # bytes of a refusal that are read; what is longer is not parsed
MAX_WORDS = 4096  # characters that patterns are run over
MAX_ENTRIES = 32  # of a list of validation faults: the first and the last ones
MAX_DEPTH = 3  # nested objects that are searched for the text of an error
MAX_LEVELS = 32  # of a body that is passed on
MAX_STEPS = 8  # of the path to a fault
MAX_NAME = 100  # characters of a type, a code or a parameter
MAX_SHOWN = 300  # characters that are passed on to a client
MAX_LOGGED = 2000

Words = NewType("Words", str)
T = TypeVar("T")

_WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@~+=%"


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a list of validation faults, as FastAPI writes it: `("body", "top_k")`, `extra_forbidden`."""

    path: tuple[str, ...]
    type: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """`words` may quote a client. The rest is the server's own: type and code, the parameter that it names, the faults
    that it lists, and the HTTP status where one stands in the body (0 otherwise)."""

    words: Words
    code: Words
    param: str = ""
    faults: tuple[Fault, ...] = ()
    status: int = 0

    def mentions(self, field: str) -> bool:
        return field in self.words or field == self.param or any(field in fault.path for fault in self.faults)


def found(pattern: re.Pattern[str], said: Collection[Words]) -> re.Match[str] | None:
    """In the first of these words that have it."""
    return next((hit for text in said if (hit := pattern.search(text)) is not None), None)


def cut(text: str) -> Words:
    """The beginning and the end of a long text: numbers and names stand at the beginning, in a traceback or a long
    list of faults at the end. What the cut goes through (a number, a key, an address) is left out."""
    if len(text) <= MAX_WORDS:
        return Words(text)
    half = MAX_WORDS // 2 - 2
    return Words(f"{text[:half].rstrip(_WORD)} … {text[-half:].lstrip(_WORD)}")


# ------------------------------------------------------------------------------------------------------------- reading


def read(body: object) -> Refusal:
    """Any body of a refusal, as bytes or parsed; the `data:` of an event stream before it is skipped."""
    value = _parsed(body) if isinstance(body, bytes) else body
    error = value.get("error") if isinstance(value, Mapping) else value
    beside = value if isinstance(value, Mapping) and not isinstance(error, Mapping) else {}
    texts = [text for key in _TEXT_KEYS if (text := beside.get(key))]
    error = beside or error
    if not isinstance(error, Mapping):
        return Refusal(_words(error), Words(""), faults=_faults(error))
    names = [error[key] for key in ("type", "code", "error_type") if isinstance(error.get(key), str)]
    code = cut(" ".join(name[:MAX_NAME] for name in names))
    sizes = [f"{key}={size}" for key in ("n_prompt_tokens", "n_ctx") if (size := count(error.get(key))) is not None]
    param = error.get("param")
    return Refusal(
        words=cut(" ".join([_words(texts or error), *sizes]).strip()),
        code=code,
        param=param if isinstance(param, str) and len(param) <= MAX_NAME else "",
        faults=next((faults for key in _TEXT_KEYS if (faults := _faults(error.get(key)))), ()),
        status=next((status for key in ("code", "status", "status_code") if (status := _status(error.get(key)))), 0),
    )


def _parsed(body: bytes) -> object:
    stripped = body[:MAX_BODY].strip().removeprefix(b"data:").strip()
    try:
        return orjson.loads(stripped.partition(b"\n\n")[0])
    except orjson.JSONDecodeError:
        return stripped.decode("utf-8", "replace")


def _status(code: object) -> int:
    """A number, or its digits in a string (LiteLLM)."""
    status = count(code)
    return status if status is not None and 400 <= status <= 599 else 0


_TEXT_KEYS = ("message", "error_message", "detail", "details", "error", "errors", "msg")  # of an error object
_REPEATED = re.compile(r"(?:['\"]input['\"]: ?|\binput_value=)[^\n]*")


def _words(error: object) -> Words:
    return cut(_REPEATED.sub("", cut("; ".join(_sentences(error)))))


def _sentences(error: object, depth: int = 0) -> Iterator[str]:
    """The words of an error: a string, an object with a message, a list of either."""
    if isinstance(error, str):
        yield cut(error)
    elif depth < MAX_DEPTH and isinstance(error, list):
        for entry in _ends(error):
            yield from _sentences(entry, depth + 1)
    elif depth < MAX_DEPTH and isinstance(error, Mapping):
        inner = next((error[key] for key in _TEXT_KEYS if error.get(key)), None)
        if (path := ".".join(_path(error))) and isinstance(inner, str):
            yield f"{path}: {cut(inner)}"
        elif inner is not None:
            yield from _sentences(inner, depth + 1)
        else:
            yield " ".join(f"{key}={cut(value)}" for key, value in _ends(list(error.items())) if isinstance(value, str))


def _faults(value: object) -> tuple[Fault, ...]:
    faults = []
    for entry in _ends(value) if isinstance(value, list) else ():
        if isinstance(entry, Mapping) and (path := _path(entry)):
            type = entry.get("type")
            faults.append(Fault(path, type[:MAX_NAME] if isinstance(type, str) else ""))
    return tuple(faults)


def _path(fault: Mapping[str, object]) -> tuple[str, ...]:
    loc = fault.get("loc")
    steps = loc[:MAX_STEPS] if isinstance(loc, list) else []
    return tuple(str(step)[:MAX_NAME] for step in steps) if all(isinstance(step, str | int) for step in steps) else ()


def _ends(entries: list[T]) -> list[T]:
    half = MAX_ENTRIES // 2
    return entries if len(entries) <= MAX_ENTRIES else entries[:half] + entries[-half:]


# ------------------------------------------------------------------------------------------------------------- wording

_SECRETS = re.compile(r"\b(?:sk|key|hf|nvapi)[-_][\w\-]{8,}|Bearer\s{1,8}\S+", re.IGNORECASE)
_URL = re.compile(r"\b[a-z][a-z0-9+.\-]{0,15}://[^\s'\"<>)]+", re.IGNORECASE)
_HOST = re.compile(
    r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b|\b[\w\-]{1,63}(?:\.[\w\-]{1,63}){1,8}:\d{2,5}\b|\blocalhost(?::\d+)?\b"
)
_PATH = re.compile(r"(?<![\w<])(?:/[\w.@\-]+){2,}/?|\b[A-Za-z]:\\\S+|\b[\w\-]{1,100}\.py\b", re.IGNORECASE)
_TRACEBACK = re.compile(r'Traceback \(most recent|^[ \t]{0,8}File "', re.MULTILINE)


def redact(words: Words) -> str:
    """At most 300 characters of a server's words, without addresses and keys; of a stack trace the last line."""
    text = " ".join(_without_addresses(words).split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _without_addresses(words: Words) -> str:
    text = str(words)
    if _TRACEBACK.search(text):
        text = text.strip().rpartition("\n")[2]
    for pattern, instead in ((_SECRETS, "[key]"), (_URL, "[url]"), (_HOST, "[host]"), (_PATH, "[path]")):
        text = pattern.sub(instead, text)
    return text


def redacted_json(body: bytes) -> bytes | None:
    """A refusal's JSON object, byte for byte unless a text of it holds an address or a key; None where it is none."""
    if len(body) >= MAX_BODY:
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    try:
        clean = _clean(value)
    except RecursionError:
        return None
    return body if clean == value else orjson.dumps(clean)


def _clean(value: object, depth: int = 0) -> object:
    if depth > MAX_LEVELS:
        raise RecursionError
    if isinstance(value, str):
        return _without_addresses(cut(value))
    if isinstance(value, list):
        return [_clean(each, depth + 1) for each in value]
    return {_clean(key): _clean(each, depth + 1) for key, each in value.items()} if isinstance(value, dict) else value


def for_log(said: bytes | str) -> Sensitive:
    """What an operator may ask to read: everything but keys, on one line."""
    begin = said[:MAX_WORDS]
    text = begin.decode("utf-8", "replace") if isinstance(begin, bytes) else begin
    return Sensitive(_SECRETS.sub("[key]", " ".join(text.split()))[:MAX_LOGGED])
