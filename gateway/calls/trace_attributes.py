"""A model call as attributes of a span, after OpenTelemetry's conventions for generative AI.

Names and figures only: no span holds text of a prompt or of an answer. None values are left out.
"""

from __future__ import annotations

from typing import Any

from dragoman.gateway.calls.call import Call
from dragoman.translators.ir import Request


def arrival_attributes(call: Call) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": _operation(call),
        "gen_ai.provider.name": "dragoman",
        "http.request.method": "POST",
        "http.route": f"/v1/{call.path}",
        "dragoman.request_id": call.request_id,
        "dragoman.client_kind": call.kind,
    }


def request_attributes(request: Request, call: Call) -> dict[str, Any]:
    return _known(
        {
            "gen_ai.request.model": request.model[:100],
            "gen_ai.request.stream": call.streaming,
            "gen_ai.request.max_tokens": request.max_tokens,
            "gen_ai.request.temperature": request.sampling.temperature,
            "gen_ai.request.top_p": request.sampling.top_p,
            "dragoman.backend": call.backend.name if call.backend is not None else None,
        }
    )


def answer_attributes(call: Call) -> dict[str, Any]:
    answer = call.answer
    finished = answer.finished if answer is not None else None
    answered, begun = answer is not None and answer.touched, call.begun_at
    usage = finished.usage if finished is not None else None
    return _known(
        {
            "http.response.status_code": call.status or 499,
            "gen_ai.response.id": call.id,
            "gen_ai.response.model": call.model[:100] if call.model is not None and answered else None,
            "gen_ai.response.finish_reasons": [finished.reason.value] if finished is not None else None,
            "gen_ai.response.time_to_first_chunk": begun - call.accepted if begun is not None else None,
            "gen_ai.usage.input_tokens": usage.input if usage else None,
            "gen_ai.usage.output_tokens": usage.output if usage else None,
            "gen_ai.usage.cache_read.input_tokens": usage.cached if usage else None,
            "gen_ai.usage.cache_creation.input_tokens": usage.written if usage else None,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning if usage else None,
            "dragoman.outcome": call.outcome,
            "dragoman.web_searches": call.searches.total() or None,
            "error.type": call.error.kind.name.lower() if call.error is not None else None,
        }
    )


def span_name(call: Call) -> str | None:
    """A model is named once a server has answered for it: until then its name is only what the client sent."""
    if call.model is None or call.answer is None or not call.answer.touched:
        return None
    return f"{_operation(call)} {call.model[:100]}"


def span_failure(call: Call) -> str | None:
    """A refusal (4xx) is not a failure of the gateway's span."""
    return call.error.kind.name.lower() if call.error is not None and call.error.kind.status >= 500 else None


def _operation(call: Call) -> str:
    return {"embeddings": "embeddings", "completions": "text_completion", "rerank": "rerank"}.get(call.route, "chat")


def _known(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
