"""What a chat server's refusal means: its status and words to a `GatewayError`, its facts kept, its internals not.

Servers agree on nothing here: the error is a string, an object, a list of validation faults or plain text, overflows
come in a dozen wordings and trtllm-serve answers 400 to everything that fails before the stream. Recognised are an
overflow with its numbers, an unknown model, a sleeping or loading engine, a refused key, a full server, and a
parameter refused by its name. What is passed on of a server's own text is redacted: no stack trace, URL, host, path
or key. The wordings are from the servers' sources and from issue threads.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import orjson

from backends.chat_settings import Settings
from backends.quoted import Quoted
from translators.errors import GatewayError, Kind

MAX_TEXT = 300  # characters of a server's own words that are passed on

_NUMBER = r"(-?\d+)(?:\.\d+)?"
_OVERFLOW = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum context length|context length is only"
    r"|longer than the (?:model'?s context length|maximum model length)|exceeds? the (?:available|model'?s) context"
    r"|exceeds? the (?:maximum )?context (?:size|window|length)|prompt is too long"
    r"|should not exceed max_(?:num_tokens|seq_len|input_len)|default_max_tokens`? \(-?\d+\) must be greater than 0"
    r"|prompt length \(\d+(?:\.0)?\) exceeds|exceeds? maximum (?:input|sequence) length"
    r"|(?:must be|exceeds?|larger than|greater than|longer than)\b.{0,40}\bsession_len"
    r"|`inputs` tokens \+ `max_new_tokens` must be|input length and `max_tokens` exceed context limit",
    re.IGNORECASE,
)
# The size of the prompt alone; where a wording has several numbers, which of them it is.
_TOKENS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"prompt length \({_NUMBER}\)",  # trtllm-serve; the query length beside it is added
        r"\((\d+) in the (?:messages|prompt)",  # OpenAI, older vLLM
        r"(\d+) tokens? from the input",  # SGLang
        r"(?:messages resulted in|request has|passed|given:?) (\d+) (?:input |`inputs` )?tokens",  # vLLM, TGI
        r"contains at least (\d+) input tokens",  # vLLM counts only as far as it must
        r"input \((\d+) tokens\)",  # SGLang
        r"request \((\d+) tokens\)",  # llama.cpp
        r"prompt \(length (\d+)\)",  # vLLM's engine
        r"prompt is too long: (\d+) tokens",
        r"context limit: (\d+) \+ \d+ > \d+",
        r"(?:n_prompt_tokens|input_tokens|input_length|input length)\W{1,4}(\d+)",
    )
]
_QUERY = re.compile(rf"query length \({_NUMBER}\)", re.IGNORECASE)
_TRT_SUM = re.compile(r"splited_prompt_len` \((\d+)\).*?query_token_len` \((\d+)\)", re.DOTALL)
_LIMIT = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"max_seq_len`? \((\d+)\)",
        r"max_(?:num_tokens|input_len) \((\d+)\)",
        r"maximum context length (?:is|of) (\d+)",
        r"context length is only (\d+)",
        r"context length \((\d+) tokens\)",
        r"context size \((\d+)",
        r"maximum model length (?:of |\()(\d+)",
        r"max_new_tokens` must be <= (\d+)",
        r"tokens > (\d+) maximum",
        r"context limit: \d+ \+ \d+ > (\d+)",
        r"(?:n_ctx|max_model_len|session_len)\W{1,4}(\d+)",
    )
]
_ASLEEP = re.compile(
    r"(?:engine|model|server|worker) is (?:currently )?(?:sleeping|asleep|paused|loading|not ready)|call POST /wake"
    r"|loading model|LLM is unavailable|model is still loading|unavailable_error",
    re.IGNORECASE,
)
_NAME = r"['\"`]?[\w./:@\-]{1,200}['\"`]?"
_NO_MODEL = re.compile(
    rf"model_not_found|\bmodel {_NAME} (?:does not exist|(?:is |was )?not (?:found|available|served))"
    r"|\bmodel not found|(?:unknown|no such) model",
    re.IGNORECASE,
)
_FULL = re.compile(r"rate_?limit|overloaded|too_?many_?requests|throttling", re.IGNORECASE)  # types and codes
_INTERNAL = re.compile(
    r"Traceback \(most recent|CUDA|internal (?:server )?error|executor|NCCL|out of memory", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Told:
    """What a server said: its text, and where it has them a code and a parameter."""

    text: str
    code: str = ""
    param: str = ""
    status: int = 0  # an HTTP status that stands in the body


def read(body: bytes | object) -> Told:
    """Any body of a refusal; a stream's `data:` prefix (Triton) does not matter."""
    value: object = body
    if isinstance(body, bytes):
        stripped = body.strip().removeprefix(b"data:").strip()
        try:
            value = orjson.loads(stripped.split(b"\n\n")[0])
        except orjson.JSONDecodeError:
            return Told(stripped[:20_000].decode("utf-8", "replace"))
    if not isinstance(value, Mapping):
        return Told(str(value))
    error = value.get("error", value)
    if isinstance(error, Mapping):
        text = (
            error.get("message")
            or error.get("detail")
            or error.get("error")
            or orjson.dumps(error, default=str).decode()
        )
        words = " ".join(str(error[key]) for key in ("type", "code") if isinstance(error.get(key), str))
        numbers = " ".join(f"{key}={error[key]}" for key in ("n_prompt_tokens", "n_ctx") if key in error)
        param = error.get("param")
        return Told(
            f"{_plain(text)} {numbers}".strip(), words, param if isinstance(param, str) else "", _status(error, words)
        )
    return Told(_plain(error))


def _status(error: Mapping[str, object], words: str) -> int:
    """The status in a body: a number, digits in a string (LiteLLM), or what a type says."""
    code = error.get("code")
    if isinstance(code, int | str) and re.fullmatch(r"[45]\d\d", str(code)):
        return int(code)
    return 429 if _FULL.search(words) else 0


def _plain(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def classify(
    status: int, body: bytes | object, settings: Settings, headers: Mapping[str, str] | None = None
) -> GatewayError:
    """`status` is 200 for an error inside a stream. Never raises."""
    told = read(body)
    if (overflow := _overflow(told, settings)) is not None:
        return overflow
    retry_after = _retry_after(headers or {})
    status = told.status or status if status == 200 else status
    everything = f"{told.text} {told.code}"
    if status in (401, 403):
        return _failed("The model server refused the gateway's credentials.")
    if _ASLEEP.search(everything) and status in (200, 400, 500, 503):
        return _error(Kind.ASLEEP, "The model is asleep or still loading.", retry_after or 5.0)
    if status in (200, 400, 404, 422) and _NO_MODEL.search(everything):
        return _error(Kind.MODEL_NOT_FOUND, "The model server does not know this model.")
    if status in (429, 503, 529):
        return _error(Kind.BUSY, "The model server is busy.", retry_after or 1.0)
    if status in (408, 504):
        return _error(Kind.TIMEOUT, "The model server did not answer in time.", retry_after)
    if status == 413:
        return _error(Kind.TOO_LARGE, "The request is too large for the model server.")
    if status in (400, 422) and not _INTERNAL.search(everything):
        return _error(Kind.INVALID, f"The model server refused the request: {redact(told.text)}")
    if status == 404:
        return _failed("The model server has no chat completions at the configured address.")
    if status == 200 and told.text:
        return _failed(f"The model server failed during the answer: {redact(told.text)}")
    return _failed(f"The model server failed (status {status}).")


def _error(kind: Kind, message: str, retry_after: float | None = None) -> GatewayError:
    return GatewayError(kind, message, retry_after=retry_after, source="backend")


def _failed(message: str) -> GatewayError:
    return _error(Kind.BACKEND_FAILED, message)


# ----------------------------------------------------------------------------------------------------------- overflow


def _overflow(told: Told, settings: Settings) -> GatewayError | None:
    text = f"{told.text} {told.code}"
    own = next((m for pattern in settings.overflow_patterns if (m := re.search(pattern, text)) is not None), None)
    if own is None and not _OVERFLOW.search(text):
        return None
    groups = own.groupdict() if own is not None else {}
    tokens = _whole(groups.get("tokens")) or _prompt_tokens(text)
    limit = _whole(groups.get("limit")) or _first(_LIMIT, text)
    size = f" ({tokens} tokens)" if tokens else ""
    window = f" of {limit} tokens" if limit else ""
    message = f"The prompt{size} and the answer asked for do not fit the model's context window{window}."
    return GatewayError(
        Kind.OVERFLOW, message, code="context_length_exceeded", source="backend", tokens=tokens, limit=limit
    )


def _prompt_tokens(text: str) -> int | None:
    if (parts := _TRT_SUM.search(text)) is not None:
        return int(parts[1]) + int(parts[2])
    tokens = _first(_TOKENS, text)
    query = _QUERY.search(text)
    return tokens + int(query[1]) if tokens is not None and query is not None else tokens


def _first(patterns: Collection[re.Pattern[str]], text: str) -> int | None:
    return next((int(match[1]) for pattern in patterns if (match := pattern.search(text)) is not None), None)


def _whole(text: str | None) -> int | None:
    return int(float(text)) if text and re.fullmatch(r"\d+(\.\d*)?", text) else None


# ------------------------------------------------------------------------------------------------ a refused parameter

_FORBIDDEN = re.compile(r"extra_forbidden|Extra inputs are not permitted", re.IGNORECASE)
_UNKNOWN = r"(?:un(?:known|recogni[sz]ed|supported|expected)|unpermitted|invalid) (?:request )?"
_NOT_TAKEN = (
    r"(?:is|are) (?:not (?:yet )?(?:supported|permitted|allowed|recogni[sz]ed|accepted)|unsupported|forbidden|unknown)"
)


def refused_parameters(status: int, body: bytes, sent: Collection[str]) -> frozenset[str]:
    """Which of the fields that were `sent` the server refuses by name; a refusal of the value does not count."""
    if status not in (400, 422):
        return frozenset()
    told = read(body)
    found = {name for name in sent if name == told.param and re.search("unknown|unsupported_param|unrecogn", told.code)}
    forbidden = _FORBIDDEN.search(told.text) is not None
    for name in sent:
        if forbidden and re.search(
            rf"(?:^|[\n'\".]){re.escape(name)}(?:['\"]|\s*\n|$|\s+Extra)", told.text, re.IGNORECASE
        ):
            found.add(name)
        quoted = rf"['\"`]?{re.escape(name)}\b['\"`]?"
        before = (
            rf"{_UNKNOWN}(?:parameter|argument|field|keyword|key|option)s?(?: supplied| argument)?\W{{1,4}}{quoted}"
        )
        if re.search(rf"{before}|(?:^|[\s'\"`]){quoted} (?:parameter )?{_NOT_TAKEN}", told.text, re.IGNORECASE):
            found.add(name)
    return frozenset(found)


# ------------------------------------------------------------------------------------------------------------ wording


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; the header's date form is rare enough to be ignored."""
    value = headers.get("Retry-After", headers.get("retry-after", ""))
    try:
        seconds = float(value)
    except ValueError:
        return None
    return min(seconds, 3600.0) if seconds >= 0 else None


_SECRETS = re.compile(r"\b(?:sk|key|hf|nvapi)[-_][\w\-]{8,}|Bearer\s+\S+", re.IGNORECASE)
_URL = re.compile(r"\b[a-z][a-z0-9+.\-]{0,15}://[^\s'\"<>)]+", re.IGNORECASE)
_HOST = re.compile(
    r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b|\b[\w\-]{1,63}(?:\.[\w\-]{1,63}){1,8}:\d{2,5}\b|\blocalhost(?::\d+)?\b"
)
_PATH = re.compile(r"(?<![\w<])(?:/[\w.@\-]+){2,}/?|\b[A-Za-z]:\\\S+|\b[\w\-]{1,100}\.py\b", re.IGNORECASE)


def redact(text: str) -> str:
    """At most 300 characters of a server's words, without addresses and keys; of a stack trace the last line."""
    if "Traceback (most recent" in text or re.search(r'^\s*File "', text, re.MULTILINE):
        lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
        text = lines[-1] if lines else ""
    text = text[: 8 * MAX_TEXT]
    for pattern, instead in ((_SECRETS, "[key]"), (_URL, "[url]"), (_HOST, "[host]"), (_PATH, "[path]")):
        text = pattern.sub(instead, text)
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def for_log(body: bytes) -> Quoted:
    """What an operator may ask to read: everything but keys, on one line."""
    return Quoted(_SECRETS.sub("[key]", " ".join(body[:4096].decode("utf-8", "replace").split()))[:2000])
