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
        (404, {"error": "Only 'text' content type is supported."}),
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
        "mlx-lm",
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
        (200, {"error": "Model is overloaded", "error_type": "overloaded"}, Kind.BUSY),  # TGI
        (200, {"error": True, "status": 503, "message": "no node"}, Kind.BUSY),
        (200, {"message": "Service is not ready", "type": "Service Unavailable", "code": 503}, Kind.BUSY),
        (400, {"error": "The model has crashed without additional information. (Exit code: 6)"}, Kind.BACKEND_FAILED),
        (400, {"error": 'Failed to load model "m". Error: Operation canceled.'}, Kind.BACKEND_FAILED),
        (400, {"error": "Channel Error"}, Kind.BACKEND_FAILED),
        (400, {"error": "Model unloaded."}, Kind.ASLEEP),
        (400, {"detail": "No models are currently loaded."}, Kind.ASLEEP),
        (400, said("model is not loaded"), Kind.ASLEEP),
        # lengths of other things than the prompt
        (400, said("Invalid 'tools[0].function.name': string too long. Expected maximum length 64."), Kind.INVALID),
        (400, said("'tools[0].function.description' exceeds the maximum length of 1024"), Kind.INVALID),
        (422, {"error": "Input validation error: `max_new_tokens` must be <= 512. Given: 600"}, Kind.INVALID),
        (400, said("stop must have at most 4 entries"), Kind.INVALID),
        (429, said("Too many tokens, please wait before trying again."), Kind.BUSY),
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
        # or the model, by what it wrote
        (500, said("Failed to parse input at pos 184: <tool_call>"), Kind.BACKEND_FAILED, False),
        (
            500,
            said("The model produced output that does not match the expected peg-native format"),
            Kind.BACKEND_FAILED,
            False,
        ),
        (
            500,
            {"error": "error parsing tool call: raw='{', err=unexpected end of JSON input"},
            Kind.BACKEND_FAILED,
            False,
        ),
        (200, {"error": {"message": "Grammar accept_token failed: x", "code": 500}}, Kind.BACKEND_FAILED, False),
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
