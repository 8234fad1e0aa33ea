"""OpenAI Responses as a client protocol: `POST /v1/responses`.

`parse` reads a request (with `schema`, `items`, `content`, `tools`, `tool_choice`), `stream` writes the answer,
`errors` words what went wrong in it. Other protocols import nothing from here.
"""

from __future__ import annotations

from translators.openai_errors import error
from translators.protocol import Protocol
from translators.responses.parse import parse

PROTOCOL = Protocol(name="responses", path="responses", parse=parse, error=error)
