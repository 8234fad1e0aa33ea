"""OpenAI Responses as a client protocol: `POST /v1/responses`.

`parse` reads a request (with `schema`, `items`, `content`, `tools`, `tool_choice`), `stream` writes the answer,
`errors` words the failures of a stream. Other protocols import nothing from here.
"""

from __future__ import annotations

from dragoman.translators.ir import Request
from dragoman.translators.openai.errors import error
from dragoman.translators.openai.models import MODELS, refusal
from dragoman.translators.protocol import Context, Count, Json, Protocol, Socket, State, StoredAnswers
from dragoman.translators.responses import socket, state
from dragoman.translators.responses.parse import parse
from dragoman.translators.responses.schema import CreateResponse


def _parse_count(body: Json, context: Context) -> Request:
    return parse(body, context).request


def _count_body(tokens: int) -> Json:
    return {"object": "response.input_tokens", "input_tokens": tokens}


PROTOCOL = Protocol(
    name="responses",
    path="responses",
    parse=parse,
    error=error,
    models=MODELS,
    refusal=refusal,
    count=Count("responses/input_tokens", _parse_count, _count_body),
    state=State(
        previous=state.previous,
        continued=state.continued,
        references=state.references,
        resolved=state.resolved,
        own_items=state.own_items,
        items=state.items,
        stores=state.stores,
        unstored=state.unstored,
        not_found=state.not_found,
        unknown_item=state.unknown_item,
        resource=StoredAnswers(
            shown=state.shown,
            page=state.page,
            deleted=state.deleted,
            unknown=state.unknown,
            refused=state.refused,
            cancelled=state.cancelled,
        ),
    ),
    socket=Socket(socket.request, socket.lane, socket.error),
    schema=CreateResponse.model_json_schema,
)
