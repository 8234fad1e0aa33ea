"""The objects of the Responses API: the response, its items and parts, usage, the payload of every event.

Sources: the API reference and the SDK's types of 2026-11 and the Open Responses specification of 2026-04-24. Where they
differ, the shape here is the one that satisfies all of them: `status` on every function call, numbers instead of null
for the sampling fields, `logprobs` never null, `phase` and `encrypted_content` left out rather than null,
`cache_write_tokens` always there. Order and pairing of events are the business of the module `responses`.
"""

from collections.abc import Mapping
from typing import Any

from tests.grammar.shapes import (
    Check,
    anything,
    array,
    boolean,
    count,
    either,
    integer,
    mapping,
    nullable,
    number,
    one_of,
    record,
    require,
    string,
    tagged,
    text,
)

ITEM_STATUS = one_of("in_progress", "completed", "incomplete")
CALLER = record({"type": text}, {"caller_id": text})
ASYNC_AND_CALLER: Mapping[str, Check] = {"async": boolean, "caller": CALLER, "namespace": text}

_TOP_LOGPROB = record({"token": string, "logprob": number, "bytes": array(integer)})
LOGPROB = record({"token": string, "logprob": number, "bytes": array(integer), "top_logprobs": array(_TOP_LOGPROB)})
LOGPROBS = array(LOGPROB)

URL_CITATION = record(
    {"type": one_of("url_citation"), "start_index": count, "end_index": count, "url": text, "title": text}
)
SOURCE = record({"type": one_of("url"), "url": text})
SEARCH_RESULT = record({"url": text, "title": text, "text": string}, {"page_age": text})
OUTPUT_TEXT = record(
    {"type": one_of("output_text"), "text": string, "annotations": array(URL_CITATION), "logprobs": LOGPROBS}
)
REFUSAL = record({"type": one_of("refusal"), "refusal": string})
REASONING_TEXT = record({"type": one_of("reasoning_text"), "text": string})
SUMMARY_TEXT = record({"type": one_of("summary_text"), "text": string})
PART = tagged({"output_text": OUTPUT_TEXT, "refusal": REFUSAL, "reasoning_text": REASONING_TEXT})
MESSAGE_PART = tagged({"output_text": OUTPUT_TEXT, "refusal": REFUSAL})

# The key that holds the text of a part, by the part's type.
PART_TEXT = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text", "summary_text": "text"}


def _item(kind: str, required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    return record({"type": one_of(kind), "id": text, **required}, optional)


_LOCAL_SHELL_ACTION = record(
    {"type": one_of("exec"), "command": array(string), "env": mapping},
    {"timeout_ms": integer, "user": string, "working_directory": string},
    open_ended=True,
)
_SHELL_ACTION = record(
    {"commands": array(string), "timeout_ms": nullable(integer), "max_output_length": nullable(integer)},
    open_ended=True,
)
_CHANGE = {"path": string, "diff": string}
_OPERATION = tagged(
    {
        "create_file": record({"type": one_of("create_file"), **_CHANGE}, open_ended=True),
        "update_file": record({"type": one_of("update_file"), **_CHANGE}, open_ended=True),
        "delete_file": record({"type": one_of("delete_file"), "path": string}, {"diff": string}, open_ended=True),
    }
)

ITEM = tagged(
    {
        "message": _item(
            "message",
            {"role": one_of("assistant"), "status": ITEM_STATUS, "content": array(MESSAGE_PART)},
            {"phase": one_of("commentary", "final_answer")},
        ),
        "function_call": _item(
            "function_call",
            {"call_id": text, "name": text, "arguments": string, "status": ITEM_STATUS},
            ASYNC_AND_CALLER,
        ),
        "custom_tool_call": _item(
            "custom_tool_call",
            # The SDK's type knows no status here; the service sends one, and AI SDK refuses an item without it.
            {"call_id": text, "name": text, "input": string, "status": ITEM_STATUS},
            ASYNC_AND_CALLER,
        ),
        "reasoning": _item(
            "reasoning",
            {"summary": array(SUMMARY_TEXT), "status": ITEM_STATUS},
            {"content": array(REASONING_TEXT), "encrypted_content": text},
        ),
        "tool_search_call": _item(
            "tool_search_call",
            {"call_id": text, "execution": one_of("client"), "arguments": mapping, "status": ITEM_STATUS},
            {"created_by": text},
        ),
        "local_shell_call": _item(
            "local_shell_call", {"call_id": text, "action": _LOCAL_SHELL_ACTION, "status": ITEM_STATUS}, {}
        ),
        "shell_call": _item(
            "shell_call",
            {"call_id": text, "action": _SHELL_ACTION, "status": ITEM_STATUS},
            {"environment": nullable(mapping), "caller": CALLER, "created_by": text},
        ),
        "apply_patch_call": _item(
            "apply_patch_call",
            {"call_id": text, "operation": _OPERATION, "status": one_of("in_progress", "completed")},
            {"caller": CALLER, "created_by": text},
        ),
        "web_search_call": _item(
            "web_search_call",
            {
                "status": one_of("in_progress", "searching", "completed", "incomplete", "failed"),
                "action": record({"type": one_of("search"), "query": string}, {"sources": array(SOURCE)}),
            },
            # OpenAI's has neither: what was found, for the next turn, or why nothing was
            {"results": array(SEARCH_RESULT), "error": record({"code": text})},
        ),
        "compaction": _item("compaction", {"encrypted_content": text}, {"created_by": text}),
    }
)

_USAGE_SHAPE = record(
    {
        "input_tokens": count,
        "input_tokens_details": record(
            {"cached_tokens": count, "cache_write_tokens": count}, {"cache_write_tokens_details": mapping}
        ),
        "output_tokens": count,
        "output_tokens_details": record({"reasoning_tokens": count}),
        "total_tokens": count,
    }
)


def usage(value: Any, where: str) -> None:
    """Token counts that can be true: the total is the sum, a part is never more than the whole."""
    _USAGE_SHAPE(value, where)
    sent, received = value["input_tokens"], value["output_tokens"]
    details = value["input_tokens_details"]
    require(
        value["total_tokens"] == sent + received, "usage", where, "total_tokens is not input_tokens + output_tokens"
    )
    require(details["cached_tokens"] <= sent, "usage", where, "more tokens cached than there were")
    require(details["cache_write_tokens"] <= sent, "usage", where, "more tokens written to the cache than there were")
    reasoning = value["output_tokens_details"]["reasoning_tokens"]
    require(reasoning <= received, "usage", where, "more reasoning tokens than output tokens")


def message_to_client(value: Any, where: str) -> None:
    """What an error says to a client: a sentence, not a stack trace of ours or of the model server."""
    text(value, where)
    leak = next(
        (mark for mark in ("Traceback (most recent call last)", 'File "/', '.py", line') if mark in value), None
    )
    require(leak is None, "leak", where, f"a stack trace is shown to the client ({leak})")


_FUNCTION_TOOL = record(
    {
        "type": one_of("function"),
        "name": text,
        "description": nullable(string),
        "parameters": nullable(mapping),
        "strict": nullable(boolean),
    },
    open_ended=True,
)
_ANY_TOOL = record({"type": text}, open_ended=True)
_JSON_SCHEMA_FORMAT = record(
    {
        "type": one_of("json_schema"),
        "name": text,
        "description": nullable(string),
        "schema": nullable(mapping),
        "strict": nullable(boolean),
    }
)
_TEXT_FORMAT = tagged(
    {
        "text": record({"type": one_of("text")}),
        "json_object": record({"type": one_of("json_object")}),
        "json_schema": _JSON_SCHEMA_FORMAT,
    }
)

# Echoed settings that only some versions know; null is fine for all of them.
_OPTIONAL_FIELDS = (
    "user",
    "prompt",
    "conversation",
    "prompt_cache_retention",
    "prompt_cache_options",
    "prompt_cache_diagnostics",
    "moderation",
    "image",
    "access_programs",
    "input_transformations",
    "tool_usage",
)

RESPONSE_SHAPE = record(
    {
        "id": text,
        "object": one_of("response"),
        "created_at": integer,
        "completed_at": nullable(integer),
        "status": one_of("completed", "failed", "in_progress", "cancelled", "queued", "incomplete"),
        "error": nullable(record({"code": text, "message": message_to_client})),
        "incomplete_details": nullable(record({"reason": one_of("max_output_tokens", "content_filter")})),
        "instructions": nullable(string),
        "metadata": mapping,
        "model": text,
        "output": array(ITEM),
        "parallel_tool_calls": boolean,
        "temperature": number,
        "top_p": number,
        "presence_penalty": number,
        "frequency_penalty": number,
        "tool_choice": either(record({"type": text}, open_ended=True), one_of("none", "auto", "required")),
        "tools": array(tagged({"function": _FUNCTION_TOOL}, otherwise=_ANY_TOOL)),
        "previous_response_id": nullable(text),
        "reasoning": nullable(record({"effort": nullable(string), "summary": nullable(string)}, open_ended=True)),
        "text": record({"format": _TEXT_FORMAT}, {"verbosity": one_of("low", "medium", "high")}),
        "truncation": one_of("auto", "disabled"),
        "top_logprobs": count,
        "max_output_tokens": nullable(integer),
        "max_tool_calls": nullable(integer),
        "store": boolean,
        "background": boolean,
        "service_tier": text,
        "safety_identifier": nullable(string),
        "prompt_cache_key": nullable(string),
        "usage": nullable(usage),
    },
    {name: anything for name in _OPTIONAL_FIELDS},
)

_AT_ITEM: Mapping[str, Check] = {"item_id": text, "output_index": count}
_AT_PART: Mapping[str, Check] = {**_AT_ITEM, "content_index": count}
_AT_SUMMARY: Mapping[str, Check] = {**_AT_ITEM, "summary_index": count}
# Random padding, sent only when the client asked for it.
_PADDING: Mapping[str, Check] = {"obfuscation": string}


def _event(fields: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    return record({"type": text, "sequence_number": count, **fields}, optional or {})


_LIFECYCLE = _event({"response": RESPONSE_SHAPE})
_ITEM_EVENT = _event({"output_index": count, "item": ITEM})
_PART_EVENT = _event({**_AT_PART, "part": PART})
_SUMMARY_PART_EVENT = _event({**_AT_SUMMARY, "part": SUMMARY_TEXT})
_REASONING_DELTA = _event({**_AT_PART, "delta": string}, _PADDING)
_REASONING_DONE = _event({**_AT_PART, "text": string})

# The fields at the top are those of the SDK's type, the object is what its clients raise by; `code` is null nowhere.
_ERROR_FIELDS: Mapping[str, Check] = {"code": text, "message": message_to_client, "param": nullable(text)}
_ERROR_EVENT = _event({**_ERROR_FIELDS, "error": record({"type": text, **_ERROR_FIELDS})})

# Every event that a text-first server may send, with its payload.
EVENTS: Mapping[str, Check] = {
    "response.created": _LIFECYCLE,
    "response.queued": _LIFECYCLE,
    "response.in_progress": _LIFECYCLE,
    "response.completed": _LIFECYCLE,
    "response.incomplete": _LIFECYCLE,
    "response.failed": _LIFECYCLE,
    "error": _ERROR_EVENT,
    "response.output_item.added": _ITEM_EVENT,
    "response.output_item.done": _ITEM_EVENT,
    "response.content_part.added": _PART_EVENT,
    "response.content_part.done": _PART_EVENT,
    "response.output_text.delta": _event({**_AT_PART, "delta": string, "logprobs": LOGPROBS}, _PADDING),
    "response.output_text.done": _event({**_AT_PART, "text": string, "logprobs": LOGPROBS}),
    "response.output_text.annotation.added": _event(
        {**_AT_PART, "annotation_index": count, "annotation": URL_CITATION}
    ),
    "response.web_search_call.in_progress": _event(_AT_ITEM),
    "response.web_search_call.searching": _event(_AT_ITEM),
    "response.web_search_call.completed": _event(_AT_ITEM),
    "response.refusal.delta": _event({**_AT_PART, "delta": string}, _PADDING),
    "response.refusal.done": _event({**_AT_PART, "refusal": string}),
    "response.reasoning_text.delta": _REASONING_DELTA,
    "response.reasoning_text.done": _REASONING_DONE,
    "response.reasoning.delta": _REASONING_DELTA,
    "response.reasoning.done": _REASONING_DONE,
    "response.reasoning_summary_part.added": _SUMMARY_PART_EVENT,
    "response.reasoning_summary_part.done": _SUMMARY_PART_EVENT,
    "response.reasoning_summary_text.delta": _event({**_AT_SUMMARY, "delta": string}, _PADDING),
    "response.reasoning_summary_text.done": _event({**_AT_SUMMARY, "text": string}),
    "response.function_call_arguments.delta": _event({**_AT_ITEM, "delta": string}, _PADDING),
    "response.function_call_arguments.done": _event({**_AT_ITEM, "name": text, "arguments": string}),
    "response.custom_tool_call_input.delta": _event({**_AT_ITEM, "delta": string}, _PADDING),
    "response.custom_tool_call_input.done": _event({**_AT_ITEM, "input": string}),
    "response.compaction.compacting": _event(_AT_ITEM),
}

ERROR_BODY = record(
    {
        "error": record(
            {"message": message_to_client, "type": text, "param": nullable(text), "code": nullable(text)},
        )
    }
)
