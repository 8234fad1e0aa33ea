"""The grammar of the Responses API: what a whole streamed or plain answer must be.

    created [queued] in_progress (added (part delta* done)* done)* (completed | incomplete | error failed) [DONE]

One item and one part are open at a time, indexes and sequence numbers count from 0 without gaps, ids never change, the
deltas add up to the done texts, the done parts to the done items and the done items to the final `output`; exactly one
terminal event says what happened. `in_progress` may come again anywhere, as a sign of life. An `error` event stands
directly before `response.failed` and nowhere else, and both say the same: some clients go by the one, some by the
other. Of hosted tools the grammar knows `web_search_call`, which goes from in_progress over searching to completed, or
fails; audio is outside it.

Rules by name: framing, json, done, event-name, unknown-event, error-event, sequence, order, echo, index, identity,
unique, open, part, concat, status, verdict, output, parallel, usage, leak, http-status, error-type; and of shapes:
missing, unknown-key, type.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.grammar import framing
from tests.grammar.responses_objects import ERROR_BODY, EVENTS, PART_TEXT, RESPONSE_SHAPE
from tests.grammar.shapes import Violation, require

Json = dict[str, Any]
Style = Literal["openai", "open_responses"]

_TERMINAL = ("response.completed", "response.incomplete", "response.failed")
# What may differ between the snapshots of one response; everything else is an echo and stays.
_MAY_CHANGE = frozenset({"status", "output", "usage", "error", "incomplete_details", "completed_at", "service_tier"})
# The parts that an item is made of: list in the item → kinds of part in it.
_PART_LISTS: dict[str, dict[str, tuple[str, ...]]] = {
    "message": {"content": ("output_text", "refusal")},
    "reasoning": {"content": ("reasoning_text",), "summary": ("summary_text",)},
}
# Items whose payload is one string: the key that holds it, and the prefix of its events.
_PAYLOADS = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}
_TEXT_EVENTS = {
    "response.output_text": "output_text",
    "response.refusal": "refusal",
    "response.reasoning_text": "reasoning_text",
    "response.reasoning": "reasoning_text",
    "response.reasoning_summary_text": "summary_text",
}
_REASONING_PREFIX: dict[Style, str] = {"openai": "response.reasoning_text", "open_responses": "response.reasoning"}
# What an item may learn between its announcement and its end.
_FILLED_LATER = frozenset(
    {"status", "content", "summary", "arguments", "input", "encrypted_content", "phase", "action", "operation"}
    | {"results", "error"}
)


@dataclass(slots=True)
class _OpenPart:
    kind: str
    index: int
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)
    annotations: list[Json] = field(default_factory=list)
    text: str | None = None


@dataclass(slots=True)
class _OpenItem:
    added: Json
    lists: dict[str, list[Json]]
    part: _OpenPart | None = None
    pieces: list[str] = field(default_factory=list)
    payload: str | None = None
    steps: list[str] = field(default_factory=list)  # of a search

    @property
    def kind(self) -> str:
        return str(self.added["type"])


# Clients execute the raw input of these the moment they are done, so half of it must never be.
_OPEN_WHEN_CUT = frozenset(
    {"custom_tool_call", "tool_search_call", "local_shell_call", "shell_call", "apply_patch_call"}
)


def _can_run(arguments: str) -> bool:
    """Whether clients would run a function with these arguments."""
    try:
        return not arguments.strip() or isinstance(json.loads(arguments), dict)
    except ValueError:
        return False


class _Walk:
    """Follows the events of one response; `where` names the event in hand."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.where = "start"
        self.first: Json | None = None
        self.running = False
        self.final: Json | None = None
        self.items: list[Json] = []
        self.item: _OpenItem | None = None
        self.error: Json | None = None

    def feed(self, position: int, event: Json) -> None:
        kind = event.get("type")
        self.where = f"event {position} ({kind})"
        require(self.final is None, "order", self.where, "an event after the terminal event")
        require(isinstance(kind, str) and kind in EVENTS, "unknown-event", self.where, "no such event")
        name = str(kind)
        EVENTS[name](event, self.where)
        require(event["sequence_number"] == position, "sequence", self.where, f"{event['sequence_number']} is not next")
        failing = name == "response.failed"
        require((self.error is not None) == failing, "error-event", self.where, "error and response.failed go together")
        if name == "error":
            require(self.running, "order", self.where, "an error before response.in_progress")
            self._error(event)
            return
        if "response" in event:
            self._lifecycle(name, event["response"])
            return
        require(self.running, "order", self.where, "an output event before response.in_progress")
        if name == "response.output_item.added":
            self._item_added(event)
        else:
            self._inside_item(name, event)

    def _error(self, event: Json) -> None:
        for key in ("code", "message", "param"):
            require(
                event[key] == event["error"][key], "error-event", f"{self.where}.error.{key}", "differs from the top"
            )
        self.error = event

    def _lifecycle(self, name: str, response: Json) -> None:
        if self.first is None:
            require(name == "response.created", "order", self.where, "the first event is response.created")
            require(response["status"] in ("in_progress", "queued"), "status", self.where, "nothing has happened yet")
            require(response["output"] == [], "output", self.where, "output before anything was streamed")
            self.first = response
        else:
            require(name != "response.created", "order", self.where, "response.created stands first and once")
        self._echo(self.first, response)
        if name == "response.queued":
            require(not self.running, "order", self.where, "queued after in_progress")
            require(response["status"] == "queued", "status", self.where, "a queued response says so")
        elif name == "response.in_progress":
            self.running = True
            require(response["status"] == "in_progress", "status", self.where, "a running response says so")
        elif name in _TERMINAL:
            self._end(name, response)
            return
        _check_verdict(response, self.where)
        require(response["output"] in ([], self.items), "output", self.where, "output differs from the done items")

    def _echo(self, first: Json, response: Json) -> None:
        for key in sorted(first.keys() | response.keys()):
            # an answer that was to be stored may turn out not to be
            lost = key == "store" and (first.get(key), response.get(key)) == (True, False)
            same = key in _MAY_CHANGE or lost or first.get(key) == response.get(key)
            require(same, "echo", f"{self.where}.response.{key}", "changed since response.created")

    def _end(self, name: str, response: Json) -> None:
        require(self.running, "order", self.where, "the end before response.in_progress")
        if self.item is not None:
            self._abandoned(self.item, response)
        require(name == f"response.{response['status']}", "status", self.where, f"status is {response['status']}")
        require(len(response["output"]) == len(self.items), "output", self.where, "not as many items as were streamed")
        for index, (final, streamed) in enumerate(zip(response["output"], self.items, strict=True)):
            require(final == streamed, "output", f"{self.where}.response.output[{index}]", "differs from the done item")
        _check_verdict(response, self.where)
        if self.error is not None:
            said = {"code": self.error["code"], "message": self.error["message"]}
            require(response["error"] == said, "error-event", f"{self.where}.response.error", "differs from the event")
        self.final = response

    def _abandoned(self, item: _OpenItem, response: Json) -> None:
        """A cut call whose input clients execute as soon as it is done has no done event; the last word on it is the
        final object's. The same holds for the text of a failed answer that clients parse as soon as it is done,
        and for half a function call in one."""
        parsed = item.kind == "message" and response["text"]["format"]["type"] != "text"
        runs = item.kind in _OPEN_WHEN_CUT or (item.kind == "function_call" and _can_run("".join(item.pieces)))
        may = runs and response["status"] in ("failed", "incomplete")
        may = may or ((parsed or item.kind == "function_call") and response["status"] == "failed")
        require(may and len(response["output"]) == len(self.items) + 1, "open", self.where, "an item is still open")
        final = response["output"][-1]
        require(final["id"] == item.added["id"], "identity", self.where, "another item than the open one")
        require(final.get("status") in ("incomplete", "in_progress"), "status", self.where, "a cut item looks done")
        if item.kind == "function_call":
            require(final["arguments"] == "".join(item.pieces), "concat", self.where, "the deltas do not add up")
        if item.kind == "custom_tool_call":
            require(final["input"] == "".join(item.pieces), "concat", self.where, "the deltas do not add up")
        if parsed and item.part is not None:
            said = "".join(item.part.pieces)
            require(final["content"][0]["text"] == said, "concat", self.where, "the deltas do not add up")
        self.items.append(final)

    def _item_added(self, event: Json) -> None:
        item = event["item"]
        require(self.item is None, "open", self.where, "the item before is still open")
        require(event["output_index"] == len(self.items), "index", self.where, f"output_index {event['output_index']}")
        require(item.get("status", "in_progress") == "in_progress", "status", self.where, "a new item is in progress")
        known = {done["id"] for done in self.items} | {self.first["id"] if self.first else ""}
        require(item["id"] not in known, "unique", self.where, f"id {item['id']} is taken")
        for key in ("content", "summary", "arguments", "input"):
            require(not item.get(key), "open", f"{self.where}.item.{key}", "a new item is empty")
        lists: dict[str, list[Json]] = {key: [] for key in _PART_LISTS.get(item["type"], {})}
        self.item = _OpenItem(item, lists)

    def _inside_item(self, name: str, event: Json) -> None:
        item = self.item
        if item is None:
            raise Violation("open", self.where, "no item is open")
        require(event["output_index"] == len(self.items), "index", self.where, f"output_index {event['output_index']}")
        named = event["item"]["id"] if "item" in event else event["item_id"]
        require(named == item.added["id"], "identity", self.where, f"{named} is not the open item")
        prefix, _, step = name.rpartition(".")
        if name == "response.output_item.done":
            self._item_done(item, event["item"])
        elif prefix in ("response.content_part", "response.reasoning_summary_part"):
            self._part_event(item, step, event)
        elif prefix == "response.output_text.annotation":
            self._annotation(item, event)
        elif prefix == "response.web_search_call":
            require(item.kind == "web_search_call", "part", self.where, f"inside a {item.kind}")
            item.steps.append(step)
        elif prefix in _TEXT_EVENTS:
            self._text_event(item, prefix, step, event)
        elif name == "response.compaction.compacting":
            require(item.kind == "compaction", "part", self.where, f"inside a {item.kind}")
        else:
            self._payload_event(item, prefix, step, event)

    def _part_event(self, item: _OpenItem, step: str, event: Json) -> None:
        key = "summary" if "summary_index" in event else "content"
        index, part = event[f"{key}_index"], event["part"]
        require(
            part["type"] in _PART_LISTS.get(item.kind, {}).get(key, ()), "part", self.where, "wrong part for the item"
        )
        require(index == len(item.lists[key]), "index", self.where, f"{key}_index {index}")
        if step == "added":
            require(item.part is None, "open", self.where, "the part before is still open")
            require(part[PART_TEXT[part["type"]]] == "", "open", self.where, "a new part is empty")
            item.part = _OpenPart(part["type"], index)
            return
        opened = item.part
        if opened is None or opened.kind != part["type"]:
            raise Violation("open", self.where, "no such part is open")
        require(opened.text is not None, "part", self.where, "the part ends before its text is done")
        require(
            part[PART_TEXT[opened.kind]] == opened.text, "concat", self.where, "the part differs from its done text"
        )
        require(part.get("logprobs", []) == opened.logprobs, "concat", self.where, "logprobs differ from the deltas'")
        require(
            part.get("annotations", []) == opened.annotations,
            "concat",
            self.where,
            "annotations differ from the events'",
        )
        item.lists[key].append(part)
        item.part = None

    def _annotation(self, item: _OpenItem, event: Json) -> None:
        opened = item.part
        if opened is None or opened.kind != "output_text" or opened.text is not None:
            raise Violation("open", self.where, "no text is open")
        require(event["annotation_index"] == len(opened.annotations), "index", self.where, "not the next annotation")
        note, text = event["annotation"], "".join(opened.pieces)
        named = text[note["start_index"] : note["end_index"]]
        require(named == note["url"], "concat", self.where, f"the text has {named[:80]!r} there")
        opened.annotations.append(note)

    def _text_event(self, item: _OpenItem, prefix: str, step: str, event: Json) -> None:
        kind, opened = _TEXT_EVENTS[prefix], item.part
        if kind == "reasoning_text":
            require(prefix == _REASONING_PREFIX[self.style], "unknown-event", self.where, f"not in style {self.style}")
        if opened is None or opened.kind != kind:
            raise Violation("open", self.where, f"no {kind} part is open")
        index = event["summary_index" if kind == "summary_text" else "content_index"]
        require(index == opened.index, "index", self.where, f"part {opened.index} is open, not {index}")
        require(opened.text is None, "order", self.where, "the text of this part is done already")
        if step == "delta":
            opened.pieces.append(event["delta"])
            opened.logprobs += event.get("logprobs", [])
            return
        opened.text = event[PART_TEXT[kind]]
        require(
            "".join(opened.pieces) == opened.text, "concat", self.where, "the deltas do not add up to the done text"
        )
        same = event.get("logprobs", []) == opened.logprobs
        require(same, "concat", self.where, "the logprobs of the deltas do not add up")

    def _payload_event(self, item: _OpenItem, prefix: str, step: str, event: Json) -> None:
        key, expected = _PAYLOADS.get(item.kind, ("", ""))
        require(prefix == expected, "part", self.where, f"inside a {item.kind}")
        require(item.payload is None, "order", self.where, f"the {key} are done already")
        if step == "delta":
            item.pieces.append(event["delta"])
            return
        item.payload = event[key]
        require("".join(item.pieces) == item.payload, "concat", self.where, f"the deltas do not add up to the {key}")
        if "name" in event:
            require(event["name"] == item.added["name"], "identity", self.where, "the name changed")

    def _item_done(self, item: _OpenItem, done: Json) -> None:
        require(item.part is None, "open", self.where, "a part is still open")
        require(done.get("status") != "in_progress", "status", self.where, "a done item is completed or incomplete")
        for key in sorted((item.added.keys() | done.keys()) - _FILLED_LATER):
            same = item.added.get(key) == done.get(key)
            require(same, "identity", f"{self.where}.item.{key}", "changed since the item was added")
        for key, parts in item.lists.items():
            streamed = parts or (_also_as_content(item, done) if key == "content" else [])
            require(done.get(key, []) == streamed, "concat", f"{self.where}.item.{key}", "differs from the done parts")
        if item.kind == "web_search_call":
            whole = ["in_progress", "searching", "completed"]
            wanted = whole if done["status"] == "completed" else whole[:2]
            require(item.steps == wanted, "part", self.where, f"a {done['status']} search went through {item.steps}")
            require(("results" in done) == (done["status"] == "completed"), "part", self.where, "results of no search")
        cut = item.kind == "function_call" and done["status"] == "incomplete"
        require(not (cut and _can_run(done["arguments"])), "status", self.where, "a cut call looks done")
        if item.kind in _PAYLOADS:
            key = _PAYLOADS[item.kind][0]
            require(item.payload is not None, "part", self.where, f"the {key} were never done")
            require(done[key] == item.payload, "concat", f"{self.where}.item.{key}", "differs from the done event")
        if "phase" in item.added:
            require(done.get("phase") == item.added["phase"], "identity", self.where, "the phase changed")
        self.items.append(done)
        self.item = None


def _also_as_content(item: _OpenItem, done: Json) -> list[Json]:
    """Reasoning that was streamed as a summary may also be the item's content, which some clients send back."""
    if item.kind != "reasoning" or not done.get("content"):
        return []
    return [{"type": "reasoning_text", "text": "".join(part["text"] for part in item.lists["summary"])}]


def _check_verdict(response: Json, where: str) -> None:
    """The status and what must, or must not, stand beside it."""
    status, error, details = response["status"], response["error"], response["incomplete_details"]
    finished, created = response["completed_at"], response["created_at"]
    require((error is not None) == (status == "failed"), "verdict", f"{where}.error", f"does not fit {status}")
    require((details is not None) == (status == "incomplete"), "verdict", f"{where}.incomplete_details", f"{status}")
    require((finished is not None) == (status == "completed"), "verdict", f"{where}.completed_at", f"{status}")
    if finished is not None:
        require(finished >= created, "verdict", f"{where}.completed_at", "completed before it was created")
    if status in ("in_progress", "queued"):
        require(response["usage"] is None, "verdict", f"{where}.usage", "usage is known at the end only")
        return
    allowed = ("completed",) if status == "completed" else ("completed", "incomplete")
    for index, item in enumerate(response["output"]):
        # the type of a patch call has no word for incomplete
        cut_patch = item["type"] == "apply_patch_call" and status != "completed" and item["status"] == "in_progress"
        failed = item["type"] == "web_search_call" and item["status"] == "failed"
        fits = item.get("status", "completed") in allowed or cut_patch or failed
        require(fits, "status", f"{where}.output[{index}]", f"a {item.get('status')} item in a {status} response")
    _check_identities(response, where)


def _check_identities(response: Json, where: str) -> None:
    ids = [response["id"], *(item["id"] for item in response["output"])]
    require(len(set(ids)) == len(ids), "unique", where, f"an id stands twice in {ids}")
    calls = [item["call_id"] for item in response["output"] if "call_id" in item]
    require(len(set(calls)) == len(calls), "unique", where, f"a call_id stands twice in {calls}")
    if response["parallel_tool_calls"] is False:
        require(len(calls) <= 1, "parallel", where, f"{len(calls)} calls where parallel_tool_calls is false")


def check_response(obj: Json) -> None:
    """A whole answer that was not streamed, or one read from the store (which may still be running)."""
    RESPONSE_SHAPE(obj, "response")
    _check_verdict(obj, "response")


def check_events(events: list[Json], *, style: Style = "openai") -> Json:
    """The events of a whole stream, without framing (a WebSocket's messages, a stored log); the final response."""
    walk = _Walk(style)
    for position, event in enumerate(events):
        walk.feed(position, event)
    if walk.final is None:
        raise Violation("order", f"after event {len(events) - 1}", "no terminal event")
    return walk.final


def check_stream(body: bytes, *, style: Style = "openai") -> Json:
    """The body of a whole stream; the final response."""
    frames = framing.split(body)
    last = frames[-1] if frames else framing.Frame(None, "")
    require(last == framing.Frame(None, "[DONE]"), "done", "last frame", "the stream does not end in `data: [DONE]`")
    events = []
    for position, frame in enumerate(frames[:-1]):
        where = f"event {position} ({frame.event})"
        require(frame.data != "[DONE]", "done", where, "`[DONE]` before the end")
        event = framing.parse_object(frame.data, where)
        require(frame.event == event.get("type"), "event-name", where, f"the data says {event.get('type')!r}")
        events.append(event)
    return check_events(events, style=style)


def check_error(status: int, body: Json) -> None:
    """An error answer: the body, the status, and that the two blame the same side."""
    ERROR_BODY(body, "body")
    require(400 <= status <= 599, "http-status", "status", f"{status} is not an error")
    # Codex repeats a 413 or 422 five times; 400 stops it at once.
    require(status not in (413, 422), "http-status", "status", f"{status} is retried by clients: say 400")
    kind, code = body["error"]["type"], body["error"]["code"]
    servers = kind in ("server_error", "service_unavailable", "model_error", "overloaded_error")
    require(servers == (status >= 500), "error-type", "body.error.type", f"{kind} with status {status}")
    if status == 401:
        fits = kind == "authentication_error" or code == "invalid_api_key"
        require(fits, "error-type", "body.error.type", f"{kind}/{code} with status 401")
    if status == 429:
        fits = kind in ("rate_limit_error", "insufficient_quota", "requests", "tokens", "too_many_requests")
        require(fits, "error-type", "body.error.type", f"{kind} with status 429")
