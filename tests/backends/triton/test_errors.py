"""What Triton's refusals become, by the words that real servers used."""

from __future__ import annotations

import pytest

from dragoman.backends.refusal import cut
from dragoman.backends.triton.errors import classify
from dragoman.translators.errors import Kind

TRACEBACK = """Traceback (most recent call last):
  File "/models/tensorrt_llm_bls/1/model.py", line 94, in execute
    for res in self.decoder.decode(req):
  File "/models/tensorrt_llm_bls/1/lib/decode.py", line 214, in decode
    raise Exception("the engine lost its mind")
Exception: the engine lost its mind
"""


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("UNKNOWN", "Request for unknown model: 'x' is not found", Kind.MODEL_NOT_FOUND),
        ("NOT_FOUND", "Request for unknown model: 'x' is not found", Kind.MODEL_NOT_FOUND),
        ("INVALID_ARGUMENT", "Request for unknown model: 'x' has no available versions", Kind.ASLEEP),
        ("UNAVAILABLE", "Exceeds maximum queue size", Kind.BUSY),
        ("UNAVAILABLE", "Server is stopping, scheduler for model has stopped accepting new requests", Kind.BUSY),
        ("UNAVAILABLE", "failed to connect to all addresses; last error: Connection refused", Kind.BACKEND_DOWN),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)", Kind.BACKEND_FAILED),
        ("RESOURCE_EXHAUSTED", "too many requests", Kind.BUSY),
        ("INVALID_ARGUMENT", "in ensemble 'e', the tokenizer is not found", Kind.BACKEND_FAILED),
        ("UNAUTHENTICATED", "", Kind.BACKEND_FAILED),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Kind.TIMEOUT),
        ("INVALID_ARGUMENT", "unexpected inference input 'max_tokens' for model 'llmapi'", Kind.BACKEND_FAILED),
        ("INTERNAL", "CUDA error: an illegal memory access", Kind.BACKEND_FAILED),
        ("INTERNAL", "", Kind.BACKEND_FAILED),
    ],
)
def test_codes_and_words_become_kinds(code: str, text: str, kind: Kind) -> None:
    error = classify(code, cut(text))
    assert error.kind is kind
    assert error.source == "backend"


@pytest.mark.parametrize(
    ("text", "tokens", "limit"),
    [
        ("Prompt length (9351) exceeds maximum input length (8192). Set log level to info", 9351, 8192),
        ("in ensemble 'ensemble', Prompt length (9351) exceeds maximum input length (8192).", 9351, 8192),
        (
            "Error generating request: The sum of prompt length (8000.0), query length (0) max_tokens (500) should not"
            " exceed max_seq_len (8192)",
            8000,
            8192,
        ),
    ],
)
def test_an_overflow_keeps_its_numbers(text: str, tokens: int, limit: int) -> None:
    error = classify("INTERNAL", cut(text))
    assert error.kind is Kind.OVERFLOW
    assert (error.tokens, error.limit) == (tokens, limit)


def test_at_most_the_last_line_of_a_traceback_is_sent() -> None:
    for text in (TRACEBACK, f"in ensemble 'x', {TRACEBACK}"):
        message = classify("INTERNAL", cut(text)).message
        assert "the engine lost its mind" in message
        assert "Traceback" not in message
        assert "/models" not in message
        assert "model.py" not in message


def test_a_connection_that_breaks_in_the_answer_is_no_server_that_is_down() -> None:
    assert classify("UNAVAILABLE", cut("Socket closed"), begun=True).kind is Kind.BACKEND_FAILED


@pytest.mark.parametrize(
    ("code", "text", "certain"),
    [
        ("INVALID_ARGUMENT", "Request for unknown model: 'x' has no available versions", True),
        ("UNKNOWN", "Request for unknown model: 'x' is not found", True),
        ("NOT_FOUND", "whatever", True),
        ("UNAVAILABLE", "Model 'x' is not at ready state", True),
        ("UNAVAILABLE", "Exceeds maximum queue size", True),
        ("RESOURCE_EXHAUSTED", "too many requests", True),
        ("DEADLINE_EXCEEDED", "", True),
        ("INTERNAL", "CUDA error: an illegal memory access", True),
        ("INTERNAL", "bad prompt: 'the model x is not ready'", False),
        ("UNKNOWN", "bad prompt: Request for unknown model: 'x' has no available versions", False),
        ("INVALID_ARGUMENT", "bad prompt: 'unknown model'", False),
        ("INTERNAL", "bad prompt: 'queue is full'", False),
        ("INTERNAL", "Prompt length (9351) exceeds maximum input length (8192).", False),
        ("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)", False),
    ],
)
def test_what_words_alone_say_is_not_certain(code: str, text: str, certain: bool) -> None:
    assert classify(code, cut(text)).certain is certain
