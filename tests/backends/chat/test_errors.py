"""What servers say when they refuse, word for word, and what it means."""

from typing import Any

import orjson
import pytest

from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.settings import Settings
from dragoman.translators.errors import GatewayError, Kind

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
    "sglang without room for it in the cache": (
        {
            "error": {
                "object": "error",
                "message": "Input length (9351 tokens) exceeds the maximum allowed length (8186 tokens). Use a shorter "
                "input or enable --allow-auto-truncate.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            }
        },
        9351,
        8186,
    ),
    "trtllm-serve 1.3": (
        said("The prompt length (9351) should not exceed max_num_tokens (8192)"),
        9351,
        8192,
    ),
    "trtllm-serve 1.3 default": (
        said(
            "`default_max_tokens` (0) must be greater than 0, `default_max_tokens` (0) = max_seq_len (8192) - "
            "`splited_prompt_len` (8192)"
        ),
        8192,
        8192,
    ),
    "llama.cpp without room for it in the cache": (
        {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}},
        None,
        None,
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
    ("status", "body"),
    [
        (500, said("image input is not supported - hint: if this is unexpected, you may need to provide the mmproj")),
        (500, said('Failed to parse messages: Unsupported content part type: "image_url"; messages = []')),
        (400, {"object": "error", "message": "/models/text is not a multimodal model None", "code": 400}),
        (400, said("At most 0 image(s) may be provided in one prompt.")),
        (400, {"error": "this model does not support image input"}),
        (400, {"error": "Model does not support images. Please use a model that does."}),
        (400, {"error": "Vision add-on is not loaded, but images were provided for processing"}),
        (404, said("No endpoints found that support image input")),
        (200, {"error": {"code": 500, "message": "image input is not supported by this server"}}),
    ],
    ids=[
        "llama.cpp",
        "llama.cpp, earlier",
        "vllm",
        "vllm, a limit",
        "ollama",
        "lm studio",
        "lm studio, mlx",
        "openrouter",
        "in a stream",
    ],
)
def test_a_model_that_sees_no_images_is_not_a_server_that_failed(status: int, body: object) -> None:
    error = meaning(status, body)
    assert (error.kind, error.content, error.certain) == (Kind.UNSUPPORTED, "image", False)
    assert (error.message, error.source) == ("This model does not see images.", "backend")


FRAME = """
------------
While executing CallExpression at line 189, column 32 in source:
...== 0) %}↵            {{- raise_exception('After the optional system message, con...
                                           ^
Error: Jinja Exception: """


@pytest.mark.parametrize("frame", [FRAME, "Jinja Exception: "], ids=["in a frame", "alone"])
def test_what_a_template_refuses_is_not_a_server_that_failed(frame: str) -> None:
    refused = "After the optional system message, conversation roles must alternate user and assistant roles."
    error = meaning(500, {"error": {"code": 500, "message": frame + refused, "type": "server_error"}})
    assert (error.kind, error.certain) == (Kind.INVALID, False)
    assert error.message == f"The model server refused the request: {refused}"


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


# ----------------------------------------------------------------------------------------------------------- certainty


@pytest.mark.parametrize(
    ("status", "body", "kind", "certain"),
    [
        # the status or a field says it
        (400, said("bad temperature"), Kind.INVALID, True),
        (429, said("slow down"), Kind.BUSY, True),
        (500, said("CUDA error"), Kind.BACKEND_FAILED, True),
        (503, said("The model is sleeping"), Kind.ASLEEP, True),
        (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, Kind.ASLEEP, True),
        (400, {"error": {"message": "no", "type": "unavailable_error"}}, Kind.ASLEEP, True),
        (400, {"error": {"message": "no", "code": "model_not_found"}}, Kind.MODEL_NOT_FOUND, True),
        (400, {"error": {"message": "no", "code": "context_length_exceeded"}}, Kind.OVERFLOW, True),
        (200, {"error": {"message": "full", "code": 429}}, Kind.BUSY, True),
        (200, {"error": "boom"}, Kind.BACKEND_FAILED, True),
        # words alone say it: somebody's prompt may be among them
        (400, said("bad prompt: the model is sleeping, call POST /wake_up"), Kind.ASLEEP, False),
        (500, said("The engine is sleeping. Call POST /wake_up first."), Kind.ASLEEP, False),
        (200, said("the model is sleeping"), Kind.ASLEEP, False),
        (400, said("bad prompt: CUDA error"), Kind.BACKEND_FAILED, False),
        (422, b"Traceback (most recent call last):\n  boom", Kind.BACKEND_FAILED, False),
        # the request may have brought it about
        (404, said("Not Found"), Kind.BACKEND_FAILED, False),
        (451, said("blocked"), Kind.BACKEND_FAILED, False),
        (403, said("no"), Kind.BACKEND_FAILED, True),
        (404, said("The model `x` does not exist."), Kind.MODEL_NOT_FOUND, False),
        (400, said("maximum context length is 10 tokens"), Kind.OVERFLOW, False),
        (500, said("maximum context length is 10 tokens"), Kind.OVERFLOW, False),
    ],
)
def test_what_words_alone_say_is_not_certain(status: int, body: object, kind: Kind, certain: bool) -> None:
    error = meaning(status, body)
    assert (error.kind, error.certain) == (kind, certain)


@pytest.mark.parametrize(
    "words",
    [
        "the model is sleeping, call POST /wake_up",
        "maximum context length is 10 tokens",
        "CUDA error",
        "model not found",
    ],
)
def test_the_value_that_a_validation_fault_repeats_means_nothing(words: str) -> None:
    fault = {"type": "string_type", "loc": ["body", "messages", 0, "content"], "msg": "Input should be a valid string"}
    body = {"detail": [{**fault, "input": words, "ctx": {"error": words}}]}
    printed = {"error": f"1 validation error:\n  {body['detail'][0]}"}
    for shape in (body, printed, {"error": {"message": str(body["detail"]), "code": 400}}):
        for status in (400, 422):
            error = meaning(status, shape)
            assert (error.kind, error.certain) == (Kind.INVALID, True)
            assert words not in error.message
