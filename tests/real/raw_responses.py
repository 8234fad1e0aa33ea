"""Raw events of the Responses protocol, for measuring a client without the gateway between."""

from __future__ import annotations

import json

from tests.scripted import Json


def event(name: str, **fields: object) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n"


CREATED = event("response.created", response={"id": "resp_1"})
COMPLETED = event("response.completed", response={"id": "resp_1"})
ERROR = {"code": "server_error", "message": "broke"}
FAILED = event("response.failed", response={"id": "resp_1", "status": "failed", "error": ERROR})
REASON = {"reason": "max_output_tokens"}
INCOMPLETE = event(
    "response.incomplete", response={"id": "resp_1", "status": "incomplete", "incomplete_details": REASON}
)


def streamed(item: Json, *, done: bool) -> str:
    """The item added and, for raw input, its text as a delta; its end only when `done`."""
    opened = event("response.output_item.added", output_index=0, item={**item, "status": "in_progress"})
    if item["type"] == "custom_tool_call":
        opened += event(
            "response.custom_tool_call_input.delta", item_id=item["id"], output_index=0, delta=item["input"]
        )
    return CREATED + opened + (event("response.output_item.done", output_index=0, item=item) if done else "")


def bye() -> str:
    """A whole answer that ends the turn."""
    said = [{"type": "output_text", "text": "bye", "annotations": []}]
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": said}
    return streamed(message, done=True) + COMPLETED
