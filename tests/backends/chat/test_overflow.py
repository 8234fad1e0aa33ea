"""What servers say of a prompt that does not fit, word for word, and what only sounds like it."""

import time

import pytest

from dragoman.backends.chat.overflow import is_lower_bound, is_overflow, prompt_tokens, window
from dragoman.backends.refusal import MAX_WORDS, cut
from dragoman.translators.errors import Kind
from tests.backends.chat.test_errors import meaning, said

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
    "trtllm-serve 1.0": (
        said("`prompt_token_ids` length (9351) is greater than `max_seq_len` (8192)"),
        9351,
        8192,
    ),
    "trtllm-serve 1.0, without a limit": (
        said("`max_tokens` must be set when `default_max_tokens` is illegal"),
        None,
        None,
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
    "tgi, the prompt alone": (
        {
            "error": "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000",
            "error_type": "validation",
        },
        5000,
        4096,
    ),
    "vllm, counted to its end": (
        said(
            "This model's maximum context length is 8192 tokens. However, you requested 500 output tokens and your "
            "prompt contains 9351 input tokens, for a total of 9851 tokens. Please reduce the length of the input "
            "prompt or the number of requested output tokens."
        ),
        9351,
        8192,
    ),
    "vllm, not even counted": (
        said(
            "This model's maximum context length is 8192 tokens. However, you requested 500 output tokens and your "
            "prompt contains 900000 characters (more than 307680 characters, which is the upper bound for 7692 input "
            "tokens). Please reduce the length of the input prompt or the number of requested output tokens."
        ),
        None,
        8192,
    ),
    "vllm, by its entry point": (
        said("Input length (9351) exceeds model's maximum context length (8192)."),
        9351,
        8192,
    ),
    "vllm, responses": (
        said("The engine prompt length 9351 exceeds the max_model_len 8192. Please reduce prompt."),
        9351,
        8192,
    ),
    "lmdeploy": (
        {
            "message": "Input length (9351) must be smaller than the model context length (8192).",
            "type": "invalid_request_error",
            "code": 400,
            "param": None,
            "object": "error",
        },
        9351,
        8192,
    ),
    "lmdeploy, of its engine": (said("The request exceeds the model context length."), None, None),
    "sglang, with images": (
        said(
            "Multimodal prompt is too long after expanding multimodal tokens. "
            "After expanding len(req.origin_input_ids_unpadded)=37 => 9351 >= 8186."
        ),
        9351,
        8186,
    ),
    "sglang, more than the cache holds": (
        said("Request prompt exceeds the KV memory budget: input_len=9351."),
        9351,
        None,
    ),
    "ollama": (
        said(
            "the prompt is longer than the context length currently available to the model; shorten the prompt, "
            "adjust the context length in settings, or use a model with a longer context length"
        ),
        None,
        None,
    ),
    "ollama, mlx": (
        said("input length (9351 tokens) exceeds the model's maximum context length (8192 tokens)"),
        9351,
        8192,
    ),
    "lm studio": (
        {
            "error": "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: "
            "9351>= n_ctx: 8192). Try to load the model with a larger context length, or provide a shorter input."
        },
        9351,
        8192,
    ),
    "lm studio, earlier": (
        {
            "error": "Trying to keep the first 9351 tokens when context the overflows. However, the model is loaded "
            "with context length of only 8192 tokens, which is not enough."
        },
        9351,
        8192,
    ),
    "lm studio, by its engine": ({"error": "Cannot truncate prompt with n_keep (9351) >= n_ctx (8192)"}, 9351, 8192),
    "tabbyapi": (
        {
            "error": {
                "message": "Prompt length 9351 exceeds the available context size of 8192 tokens",
                "type": "invalid_request_error",
                "code": "context_length_exceeded",
            }
        },
        9351,
        8192,
    ),
    "tabbyapi, earlier": ({"detail": "Prompt length 9351 is greater than max_seq_len 8192"}, 9351, 8192),
    "max": (said("Input string is larger than tokenizer's max length (9351 > 8192)."), 9351, 8192),
    "ray serve": (
        said(
            "ray.llm._internal.serve.PromptTooLongError: Input too long. Received 9351 tokens, but the maximum input "
            "length is 8192 tokens. (Request ID: 1)"
        ),
        9351,
        8192,
    ),
    "llama-cpp-python": (said("Requested tokens (9351) exceed context window of 8192"), 9351, 8192),
    "mlc": (
        said("Request prompt has 9351 tokens in total, larger than the model input length limit 8192."),
        9351,
        8192,
    ),
    "openvino": (said("Number of prompt tokens: 9351 exceeds model max length: 8192"), 9351, 8192),
    "mistral.rs": (
        said("Prompt sequence length is greater than 8192, perhaps consider using `truncate_sequence`?"),
        None,
        8192,
    ),
    "gemini": (
        said("The input token count (9351) exceeds the maximum number of tokens allowed (8192)."),
        9351,
        8192,
    ),
    "vertex": (said("The input token count exceeds the maximum number of tokens allowed 8192."), None, 8192),
    "openai, newer": (said("Your input exceeds the context window of this model."), None, None),
    "together": (
        said("Input token count + `max_tokens` parameter must be less than the context length of the model"),
        None,
        None,
    ),
    "mistral": (
        said("Prompt contains 9351 tokens and 0 draft tokens, too large for model with 8192 maximum context length"),
        9351,
        8192,
    ),
    "a server of its own words": (
        said("length of prompt_tokens (9351) must be less than max_seq_len (8192)."),
        9351,
        8192,
    ),
    "a window that is full": (
        said("unable to process request: the context window is full. Please reduce the input size"),
        None,
        None,
    ),
    "a name as error, the words beside it": (
        {"statusCode": 400, "error": "Bad Request", "message": "The input exceeds the context window of this model."},
        None,
        None,
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


OTHERS = [
    "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64.",
    "'tools[0].function.description' exceeds the maximum length of 1024",
    "Input validation error: `max_new_tokens` must be <= 512. Given: 600",
    "stop must have at most 4 entries",
    "Too many tokens, please wait before trying again.",
    "Rate limit reached: Limit 6000, Requested 9000 tokens per minute",
    "top_k must be less than vocab_size. The context length is 8192.",
    "timed out waiting for the KV cache transfer, 30 s exceeded",
    "image count 5 exceeds limit 4 per request.",
]


@pytest.mark.parametrize("words", OTHERS)
def test_other_limits_are_none_of_the_window(words: str) -> None:
    assert not is_overflow([cut(words)])


def test_a_size_that_is_a_lower_bound_is_known_as_one() -> None:
    assert is_lower_bound([cut("your prompt contains at least 4193 input tokens")])
    assert not is_lower_bound([cut("your prompt contains 4193 input tokens")])


@pytest.mark.parametrize(
    "part", ["exceeds ", "context ", "exceeds the maximum allowed ", "prompt length ", "9", "n_keep"]
)
def test_the_work_is_linear_in_the_words(part: str) -> None:
    words = [cut(part * (MAX_WORDS // len(part)))]
    begin = time.perf_counter()
    for find in (is_overflow, is_lower_bound, prompt_tokens, window):
        find(words)
    assert time.perf_counter() - begin < 0.25
