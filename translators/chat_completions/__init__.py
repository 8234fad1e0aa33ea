"""OpenAI Chat Completions as a client protocol: `POST /v1/chat/completions`.

`parse` reads a request (with `schema`, `content`, `tools`), `stream` writes the answer, `errors` words the failures.
Neither other protocols nor the backends, which speak the same protocol to servers, import anything from here.
"""

from __future__ import annotations

from dragoman.translators.chat_completions.errors import error
from dragoman.translators.chat_completions.parse import parse
from dragoman.translators.chat_completions.schema import CreateChatCompletion
from dragoman.translators.openai.models import MODELS, refusal
from dragoman.translators.protocol import Protocol

PROTOCOL = Protocol(
    name="chat_completions",
    path="chat/completions",
    parse=parse,
    error=error,
    models=MODELS,
    refusal=refusal,
    schema=CreateChatCompletion.model_json_schema,
)
