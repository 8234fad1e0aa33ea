"""What a chat server's refusal means: its status, its fields and its words as a `GatewayError`.

Servers agree on nothing here: trtllm-serve answers 400 to everything that fails before the stream, LM Studio also where
a model has crashed. Recognised are an overflow with its numbers (`backends.chat.overflow`), an unknown model, a
sleeping or loading engine, a model that sees no images, a conversation that the template refuses, a refused key and a
full server. The wordings are from the servers' sources and from issue threads.

Words may quote a client's prompt, so they decide about the answer to that client alone. Where the status and the fields
do not say the same by themselves, the error is not `certain`, and nothing is learned from it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from dragoman.backends.chat.overflow import is_lower_bound, is_overflow, prompt_tokens, window
from dragoman.backends.chat.settings import Wording
from dragoman.backends.refusal import Refusal, Words, cut, found, read, redact
from dragoman.backends.usage import count
from dragoman.translators.errors import GatewayError, Kind

_ASLEEP = re.compile(
    r"(?:engine|model|server|worker) is (?:currently )?(?:sleeping|asleep|paused|loading|not ready)|call POST /wake"
    r"|loading model|LLM is unavailable|model is still loading|unavailable_error"
    # llama.cpp's router, TabbyAPI, LM Studio
    r"|\bmodel is not loaded|no models? (?:is |are )?(?:currently )?loaded|\bmodel (?:(?:is|was|is being) )?unloaded",
    re.IGNORECASE,
)
_NAME = r"['\"`]?[\w./:@\-]{1,200}['\"`]?"
_NO_MODEL = re.compile(
    rf"model_not_found|\bmodel {_NAME} (?:does not exist|(?:is |was )?not (?:found|available|served))"
    r"|\bmodel not found|(?:unknown|no such) model",
    re.IGNORECASE,
)
# vLLM; llama.cpp, with status 500; Ollama; LM Studio; mlx-lm, with status 404
_NO_VISION = re.compile(
    r"image input is not supported|\bis not a multimodal model|at most 0 image|\bsupport image input"
    r"|\bmodel does not support images|vision add-on is not loaded"
    r"|unsupported content part type: .{0,2}image_url|only 'text' content type is supported",
    re.IGNORECASE,
)
# vLLM, SGLang; Ollama
_MOST_IMAGES = re.compile(
    r"(?:at most|image count \d{1,6} exceeds limit) (\d{1,4}) (?:image\(s\) may be provided|per request)"
    r"|only supports one image",
    re.IGNORECASE,
)
# llama.cpp and Ollama, TabbyAPI, TGI, vLLM and SGLang with Pillow's words
_BROKEN_IMAGE = re.compile(
    r"failed to (?:load|read|decode|process) (?:base64 )?image|invalid image|cannot identify image file"
    r"|image file is truncated|broken data stream when reading image|while loading (?:multimodal|image) data",
    re.IGNORECASE,
)
# llama.cpp has status 500 for what a chat template refuses, such as two messages of one role, in a frame of its own
_TEMPLATE = re.compile(r"Jinja Exception: ")
# Mistral's tokenizer and templates, Gemma's, Qwen 3.5's; llama.cpp
_ORDER = re.compile(
    r"roles must alternate|unexpected role '\w{1,20}' after role|expected last role|prefill is incompatible"
    r"|system messages? (?:must|should|can only) (?:be|come|stand|appear) (?:at the (?:beginning|start)|first)",
    re.IGNORECASE,
)
# Mistral's templates; its tokenizer and its API
_CALL_IDS = re.compile(r"tool call ids? (?:should be alphanumeric|was .{1,200}? but must be)", re.IGNORECASE)
# SGLang with gpt-oss; Ollama, of a value and of a model that does not think
_EFFORT = re.compile(
    r"reasoning[_ ]effort|(?:reasoning|thinking|effort) (?:value|level)|does not support (?:thinking|reasoning)",
    re.IGNORECASE,
)
# vLLM with Mistral's tokenizer, llama.cpp, of a turn that holds nothing but thoughts
_NO_CONTENT = re.compile(
    r"invalid assistant message|must (?:have|contain) either '?content'? or '?tool_calls'?(?:, but not none|!)",
    re.IGNORECASE,
)
_GRAMMAR = re.compile(r"grammar|json ?schema|structural|structured|guided", re.IGNORECASE)
_TOOL_CHOICE = re.compile(r"tool[_ ]choice", re.IGNORECASE)
_FORMAT = re.compile(r"response_format|json_object", re.IGNORECASE)
# llama.cpp, LM Studio and Ollama, of the grammar that they make of the tools
_GRAMMAR_OF_TOOLS = re.compile(r"failed to parse grammar|error parsing grammar|schema conversion failed", re.IGNORECASE)
_FULL = re.compile(r"rate_?limit|overloaded|too_?many_?requests|throttling", re.IGNORECASE)  # types and codes
# Statuses that say nothing of the server's health: an unknown model, a prompt that a filter does not let through.
_MAYBE_THE_REQUEST = frozenset(range(400, 500)) - {401, 403}
# Nor does what the model wrote, where the server's parser stumbles over it: llama.cpp and LM Studio, Ollama, SGLang.
_MODEL_WROTE = re.compile(
    r"failed to parse (?:input|reasoning|fc|tool)|output that does not match the expected|parsing tool call"
    r"|invalid tool call arguments|accept_token failed",
    re.IGNORECASE,
)
_INTERNAL = re.compile(
    r"Traceback \(most recent|CUDA|internal (?:server )?error|executor|NCCL|out of memory"
    r"|\bmodel has crashed|failed to load model|channel error",  # LM Studio
    re.IGNORECASE,
)


def classify(status: int, body: object, settings: Wording, headers: Mapping[str, str] | None = None) -> GatewayError:
    """`body`: a `Refusal`, or what `read` takes; `status` is 200 for an error inside a stream. Never raises."""
    refusal = body if isinstance(body, Refusal) else read(body)
    if status == 200:
        status = refusal.status or (429 if _FULL.search(refusal.code) else 200)
    said = (refusal.words, refusal.code)
    kind = _kind(status, said, settings)
    error = _error(kind, status, said, settings, _retry_after(headers or {}))
    # 503 with a text about sleeping: the server cannot serve in any case, the text only says why
    by_fields = kind is _kind(status, said[1:], settings) or (kind is Kind.ASLEEP and status == 503)
    theirs = status in _MAYBE_THE_REQUEST or _MODEL_WROTE.search(refusal.words) is not None
    error.certain = by_fields and not (kind is Kind.BACKEND_FAILED and theirs)
    return error


def other_rendering(status: int, refusal: Refusal) -> Mapping[str, str | bool | None]:
    """The settings with which the same request may be taken, where its order of roles, a turn without content, the ids
    of its calls, its tools' schemas or its images are refused; else none."""
    if status not in (400, 404, 422, 500):
        return {}
    if _NO_VISION.search(refusal.words):
        return {"images": False}
    if _NO_CONTENT.search(refusal.words):
        return {"reasoning_field": None}
    if _CALL_IDS.search(refusal.words):
        return {"call_ids": "short"}
    if _ORDER.search(refusal.words):
        return {"turns": "alternate", "system_messages": "user", "last_assistant": "continued"}
    return {"tool_schemas": "plain"} if _GRAMMAR_OF_TOOLS.search(refusal.words) else {}


def images_taken(status: int, refusal: Refusal) -> int | None:
    """How many images the server says that it takes, 0 where it cannot read one of them; None for any other refusal."""
    if status not in (400, 422, 500):
        return None
    if (most := _MOST_IMAGES.search(refusal.words)) is not None:
        return int(most[1] or 1)
    return 0 if _BROKEN_IMAGE.search(refusal.words) else None


def refuses_effort(refusal: Refusal) -> bool:
    """Whether it is about how much the model is to think, by the field's name or in a server's words."""
    return refusal.mentions("reasoning_effort") or _EFFORT.search(refusal.words) is not None


def refuses_grammar(error: GatewayError) -> bool:
    """Whether it says, in any of the servers' words, that a grammar cannot be compiled or followed."""
    return error.kind is Kind.INVALID and _GRAMMAR.search(error.message) is not None


def refuses_tool_choice(error: GatewayError) -> bool:
    return error.kind is Kind.INVALID and _TOOL_CHOICE.search(error.message) is not None


def refuses_format(error: GatewayError) -> bool:
    return error.kind is Kind.INVALID and _FORMAT.search(error.message) is not None


def _kind(status: int, said: Collection[Words], settings: Wording) -> Kind:
    if _own_overflow(said, settings) is not None or is_overflow(said):
        return Kind.OVERFLOW
    if status in (200, 400, 500, 503) and found(_ASLEEP, said):
        return Kind.ASLEEP
    if status in (200, 400, 404, 422) and found(_NO_MODEL, said):
        return Kind.MODEL_NOT_FOUND
    if status in (200, 400, 404, 422, 500) and found(_NO_VISION, said):
        return Kind.UNSUPPORTED
    if status in (429, 503, 529):
        return Kind.BUSY
    if status in (408, 504):
        return Kind.TIMEOUT
    if status == 413:
        return Kind.TOO_LARGE
    if status in (400, 422) and not found(_INTERNAL, said):
        return Kind.INVALID
    if status == 500 and found(_TEMPLATE, said):
        return Kind.INVALID
    return Kind.BACKEND_FAILED


def _error(
    kind: Kind, status: int, said: tuple[Words, Words], settings: Wording, retry_after: float | None
) -> GatewayError:
    match kind:
        case Kind.OVERFLOW:
            return _overflow(said, settings)
        case Kind.ASLEEP:
            message, retry_after = "The model is asleep or still loading.", retry_after or 5.0
        case Kind.MODEL_NOT_FOUND:
            message, retry_after = "The model server does not know this model.", None
        case Kind.BUSY:
            message, retry_after = "The model server is busy.", retry_after or 1.0
        case Kind.TIMEOUT:
            message = "The model server did not answer in time."
        case Kind.TOO_LARGE:
            message, retry_after = "The request is too large for the model server.", None
        case Kind.UNSUPPORTED:
            message = "This model does not see images."
            return GatewayError(kind, message, code="invalid_value", source="backend", content="image")
        case Kind.INVALID:
            message, retry_after = f"The model server refused the request: {redact(_unframed(said[0]))}", None
        case _:
            message, retry_after = _failure(status, said[0]), None
    return GatewayError(kind, message, retry_after=retry_after, source="backend")


def _unframed(words: Words) -> Words:
    """Without the piece of a template that stands before its refusal."""
    hit = _TEMPLATE.search(words)
    return words if hit is None else cut(words[hit.end() :])


def _failure(status: int, words: Words) -> str:
    if status in (401, 403):
        return "The model server refused the gateway's credentials."
    if status == 404:
        return "The model server has no chat completions at the configured address."
    if status == 200 and words:
        return f"The model server failed during the answer: {redact(words)}"
    return f"The model server failed (status {status})."


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; the header's date form is rare enough to be ignored."""
    value = headers.get("Retry-After", headers.get("retry-after", ""))
    try:
        seconds = float(value)
    except ValueError:
        return None
    return min(seconds, 3600.0) if seconds >= 0 else None


# ----------------------------------------------------------------------------------------------------------- overflow


def _overflow(said: Collection[Words], settings: Wording) -> GatewayError:
    own = _own_overflow(said, settings)
    groups = own.groupdict() if own is not None else {}
    tokens = _whole(groups.get("tokens")) or prompt_tokens(said)
    limit = _whole(groups.get("limit")) or window(said)
    error = overflow(tokens, limit)
    error.at_least = is_lower_bound(said)
    return error


def nonsense() -> GatewayError:
    return GatewayError(
        Kind.BACKEND_FAILED, "The model server sent something that is not a chat completion.", source="backend"
    )


def overflow(tokens: int | None, limit: int | None) -> GatewayError:
    """Of a prompt of so many tokens, where they are known, and its answer."""
    size = f" ({tokens} tokens)" if tokens else ""
    holds = f" of {limit} tokens" if limit else ""
    message = f"The prompt{size} and the answer asked for do not fit the model's context window{holds}."
    return GatewayError(
        Kind.OVERFLOW, message, code="context_length_exceeded", source="backend", tokens=tokens, limit=limit
    )


def _own_overflow(said: Collection[Words], settings: Wording) -> re.Match[str] | None:
    """A match of one of the operator's own patterns."""
    hits = (re.search(pattern, text) for pattern in settings.overflow_patterns for text in said)
    return next((hit for hit in hits if hit is not None), None)


def _whole(text: str | None) -> int | None:
    """`9351.0`: trtllm-serve's lengths may be floats."""
    return count(text.partition(".")[0]) if text else None
