"""What servers say when they refuse, word for word, and what it means."""

import time
from typing import Any

import orjson
import pytest

from backends.chat_errors import classify, read, redact, refused_parameters
from backends.chat_settings import Settings
from translators.errors import GatewayError, Kind

PLAIN = Settings()


def said(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


def meaning(
    status: int, body: object, settings: Settings = PLAIN, headers: dict[str, str] | None = None
) -> GatewayError:
    return classify(status, body if isinstance(body, bytes) else orjson.dumps(body), settings, headers)


OVERFLOWS: dict[str, tuple[object, int | None, int | None]] = {
    "trtllm-serve prefill": (
        {
            "object": "error",
            "message": "The sum of prompt length (9351.0), query length (0) should not exceed max_num_tokens (8192)",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        9351,
        8192,
    ),
    "trtllm-serve sum": (
        {
            "object": "error",
            "message": "The sum of prompt length (7000.0) and query length (10) max_tokens (2000) should not exceed "
            "max_seq_len (8192)",
        },
        7010,
        8192,
    ),
    "trtllm-serve default": (
        {
            "object": "error",
            "message": "`default_max_tokens` (-152) must be greater than 0, `default_max_tokens` (-152) = max_seq_len "
            "(8192) - `splited_prompt_len` (8000) - `query_token_len` (344)",
        },
        8344,
        8192,
    ),
    "openai": (
        {
            "error": {
                "message": "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens "
                "(8500 in the messages, 500 in the completion).",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            }
        },
        8500,
        8192,
    ),
    "vllm": (
        {
            "error": {
                "message": "This model's maximum context length is 8192 tokens. However, your request has 9351 input "
                "tokens. Please reduce the length of the input messages.",
                "code": 400,
            }
        },
        9351,
        8192,
    ),
    "vllm older, flat": (
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4900 "
            "in the messages, 100 in the completion).",
            "code": 400,
        },
        4900,
        4096,
    ),
    "vllm newest": (
        said(
            "You passed 8193 input tokens and requested 0 output tokens. However, the model's context length is only "
            "8192 tokens, resulting in a maximum input length of 8192 tokens."
        ),
        8193,
        8192,
    ),
    "vllm engine": (
        said("The decoder prompt (length 9351) is longer than the maximum model length of 8192."),
        9351,
        8192,
    ),
    "sglang": (
        {
            "object": "error",
            "message": "The input (9351 tokens) is longer than the model's context length (8192 tokens).",
        },
        9351,
        8192,
    ),
    "sglang total": (
        said(
            "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of "
            "9000 tokens: 8500 tokens from the input messages and 500 tokens for the completion."
        ),
        8500,
        8192,
    ),
    "llama.cpp": (
        {
            "error": {
                "code": 400,
                "message": "request (9351 tokens) exceeds the available context size (8192 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9351,
                "n_ctx": 8192,
            }
        },
        9351,
        8192,
    ),
    "llama.cpp fields only": (
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9351,
                "n_ctx": 8192,
            }
        },
        9351,
        8192,
    ),
    "anthropic": (said("prompt is too long: 9351 tokens > 8192 maximum"), 9351, 8192),
    "anthropic with limit": (
        said("input length and `max_tokens` exceed context limit: 7000 + 2000 > 8192, decrease input length"),
        7000,
        8192,
    ),
    "tgi": (
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
            "Given: 5000 `inputs` tokens"
        },
        5000,
        4096,
    ),
    "without numbers": ({"error": {"message": "too long", "code": "context_length_exceeded"}}, None, None),
}


@pytest.mark.parametrize("wording", OVERFLOWS)
@pytest.mark.parametrize("status", [400, 500, 200])
def test_an_overflow_is_recognised_with_its_numbers(wording: str, status: int) -> None:
    body, tokens, limit = OVERFLOWS[wording]
    error = meaning(status, body)
    assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, tokens, limit)
    assert error.code == "context_length_exceeded"
    assert error.source == "backend"


def test_an_overflow_in_a_wording_of_the_operators_own_server() -> None:
    settings = Settings(overflow_patterns=(r"zu lang: (?P<tokens>\d+) von (?P<limit>\d+)",))
    error = meaning(422, {"detail": "zu lang: 10 von 5"}, settings)
    assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, 10, 5)
    assert meaning(422, {"detail": "zu lang: 10 von 5"}).kind is Kind.INVALID


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, said("Incorrect API key provided: sk-abcdefgh"), Kind.BACKEND_FAILED),
        (403, b"Forbidden", Kind.BACKEND_FAILED),
        (404, said("The model `x` does not exist."), Kind.MODEL_NOT_FOUND),
        (400, {"detail": "Unknown model: x"}, Kind.MODEL_NOT_FOUND),
        (404, said("Model 'x/y-7b' not found"), Kind.MODEL_NOT_FOUND),
        (400, {"error": {"message": "no", "code": "model_not_found"}}, Kind.MODEL_NOT_FOUND),
        (400, said("The model's tool parser is not available"), Kind.INVALID),
        (404, {"detail": "Not Found"}, Kind.BACKEND_FAILED),
        (404, b"404 page not found", Kind.BACKEND_FAILED),
        (408, b"", Kind.TIMEOUT),
        (504, b"<html>Gateway Time-out</html>", Kind.TIMEOUT),
        (413, b"", Kind.TOO_LARGE),
        (429, said("Too many requests"), Kind.BUSY),
        (503, b"upstream connect error", Kind.BUSY),
        (529, b"", Kind.BUSY),
        (503, {"error": "Engine is sleeping; call POST /wakeup before inference"}, Kind.ASLEEP),
        (500, said("The engine is sleeping. Call POST /wake_up first."), Kind.ASLEEP),
        (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, Kind.ASLEEP),
        (503, b"LLM is unavailable. Please check the status of the LLM.", Kind.ASLEEP),
        (400, {"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}, Kind.INVALID),
        (422, {"detail": "Unprocessable"}, Kind.INVALID),
        (400, {"object": "error", "message": "CUDA error: an illegal memory access", "code": 400}, Kind.BACKEND_FAILED),
        (400, {"error": "Traceback (most recent call last):\n  File \"/a/b.py\"\nKeyError: 'x'"}, Kind.BACKEND_FAILED),
        (500, b"", Kind.BACKEND_FAILED),
        (502, b"Bad Gateway", Kind.BACKEND_FAILED),
        (302, b"", Kind.BACKEND_FAILED),
        (200, {"error": {"message": "full", "code": 429}}, Kind.BUSY),
        (200, {"error": {"message": "full", "code": "429"}}, Kind.BUSY),
        (200, {"error": {"message": "full", "type": "rate_limit_error", "code": None}}, Kind.BUSY),
        (200, {"error": {"message": "full", "type": "overloaded_error"}}, Kind.BUSY),
        (200, {"error": {"message": "full", "code": "4290"}}, Kind.BACKEND_FAILED),
        (200, {"error": {"message": "bad tool", "type": "BadRequestError", "code": 400}}, Kind.INVALID),
        (200, {"error": "boom"}, Kind.BACKEND_FAILED),
        (200, {"object": "error", "message": "boom"}, Kind.BACKEND_FAILED),
        (400, b'data: {"error":"Invalid input"}\n\n', Kind.INVALID),
    ],
)
def test_what_a_refusal_means(status: int, body: object, kind: Kind) -> None:
    error = meaning(status, body)
    assert error.kind is kind
    assert error.message
    assert "\n" not in error.message


def test_waiting_times_come_from_the_header_or_a_small_default() -> None:
    assert meaning(429, b"", headers={"Retry-After": "12"}).retry_after == 12
    assert meaning(503, b"", headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}).retry_after == 1
    assert meaning(429, b"", headers={"Retry-After": "-5"}).retry_after == 1
    assert meaning(429, b"", headers={"Retry-After": "nan"}).retry_after == 1
    assert meaning(503, said("Loading model")).retry_after == 5


@pytest.mark.parametrize(
    "secret",
    [
        "http://10.0.0.7:8000/v1/x",
        "10.0.0.7:8000",
        "gpu-3.internal.example:8000",
        "localhost:9000",
        "/usr/lib/python3/site-packages/engine/run.py",
        "C:\\Users\\me\\x.py",
        "sk-abcdefghijkl",
        "Bearer abc.def",
    ],
)
def test_what_must_not_leave_the_house(secret: str) -> None:
    told = redact(f"cannot do {secret} now")
    assert secret not in told
    assert told.startswith("cannot do")
    assert secret not in meaning(400, said(f"cannot do {secret} now")).message


def test_of_a_stack_trace_the_last_line_is_passed_on() -> None:
    trace = 'Traceback (most recent call last):\n  File "/x/y.py", line 3, in f\n    g()\nValueError: bad temperature'
    assert redact(trace) == "ValueError: bad temperature"


def test_long_words_are_cut() -> None:
    assert len(redact("long words " * 200)) == 300


@pytest.mark.parametrize("text", ["a" * 60_000, "a." * 30_000, "/a" * 30_000, "a-" * 30_000, "model " * 10_000])
def test_a_hostile_text_costs_no_time(text: str) -> None:
    begun = time.process_time()
    meaning(400, said(text))
    refused_parameters(400, orjson.dumps(said(text)), {"top_k", "a"})
    assert time.process_time() - begun < 0.5


def test_parameter_names_and_schemas_survive_redaction() -> None:
    assert redact("tools[0].function.name must match ^[a-z]+$") == "tools[0].function.name must match ^[a-z]+$"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'"text"',
        b"\xff\xfe",
        b'{"error": null}',
        b'{"error": {}}',
        b'{"error": [1]}',
        b"data:",
    ],
)
@pytest.mark.parametrize("status", [200, 302, 400, 404, 500, 503])
def test_no_body_is_too_odd(status: int, body: bytes) -> None:
    assert meaning(status, body).message
    assert refused_parameters(status, body, {"top_k"}) == frozenset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "2 validation errors\ntop_k\n  Extra inputs are not permitted\nseed\n  Extra inputs are not permitted",
            {"top_k", "seed"},
        ),
        ("[{'type': 'extra_forbidden', 'loc': ('top_k',), 'msg': 'Extra inputs are not permitted'}]", {"top_k"}),
        ("Unsupported parameter: 'seed' is not supported with this model.", {"seed"}),
        ("seed is not supported yet", {"seed"}),
        ("stop must have at most 4 elements; the seed is fine", set()),
        ("Unsupported value: 'seed' does not support -1", set()),
        ("stream_options.continuous_usage_stats\n  Extra inputs are not permitted", {"continuous_usage_stats"}),
    ],
)
def test_which_parameters_a_refusal_names(text: str, expected: set[str]) -> None:
    sent = {"top_k", "seed", "stop", "stream_options", "continuous_usage_stats"}
    assert refused_parameters(400, orjson.dumps({"error": text}), sent) == expected
    assert refused_parameters(500, orjson.dumps({"error": text}), sent) == frozenset()


def test_the_words_are_found_wherever_the_server_puts_them() -> None:
    for body in ({"error": "x"}, {"error": {"message": "x"}}, {"detail": "x"}, {"message": "x"}, "x"):
        assert read(orjson.dumps(body)).text == "x"
