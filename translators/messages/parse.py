"""The body of `POST /v1/messages` → a `Turn`: what to ask the server, how to answer, and what was left out on the way.

Each field is translated, refused with its path, or noted. The only ones without a note are those that need none
(`cache_control`: servers cache prefixes on their own; `metadata`: it is used for routing).

`max_tokens: 0` asks to fill a prompt cache: the server makes one token, which nobody sees. Nothing is forced on that
token, since it could not keep to it. A last assistant message is the beginning of the answer (prefill); which servers
go on with it is a setting of theirs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from dragoman.translators import ir, soft_words
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.fields import Unread, few, noted, sampling, unusual
from dragoman.translators.guided import constrained
from dragoman.translators.history import repair
from dragoman.translators.ir import Note, Request, Thinking
from dragoman.translators.messages import hosted, schema
from dragoman.translators.messages.content import MessagesConversation, system_text
from dragoman.translators.messages.errors import NO_THREADS
from dragoman.translators.messages.reading import refused, unsupported
from dragoman.translators.messages.schema import CreateMessage
from dragoman.translators.messages.searches import searched
from dragoman.translators.messages.stream import MessagesStream, MessagesStreamOptions
from dragoman.translators.messages.tools import MessagesCatalogue, read_tools
from dragoman.translators.protocol import Context, Json, Turn
from dragoman.translators.seen import array_of, kept_of, reading
from dragoman.translators.soft_words import known
from dragoman.translators.thinking import switched

_THINKING_TYPES = ("adaptive", "enabled", "disabled", "between_tools")
_MOST_OF_USER = 4096  # characters of an id that are read as JSON; Claude Code's has some 200
_DISPLAYS = ("summarized", "omitted")
_ORDINARY: dict[str, tuple[object, ...]] = {"service_tier": ("auto", "standard_only"), "speed": ("standard",)}


def parse(body: Json, context: Context) -> Turn:
    """Raises `GatewayError` with the path of the first fault."""
    fields = schema.validate(body)
    if fields.max_tokens is None:
        raise refused("max_tokens", "Field required")
    request, catalogue, notes = _request(body, fields, context)
    if fields.max_tokens == 0:
        request = _warming(request)
    unavailable = catalogue.unavailable
    options = MessagesStreamOptions(
        model=fields.model,
        max_tokens=fields.max_tokens,
        stop_sequences=request.sampling.stop or (),
        silent=fields.max_tokens == 0,
        omit_thinking=fields.thinking is not None and soft_words.plainly(fields.thinking.display or "") == "omitted",
        blocks=() if unavailable is None else hosted.blocks(unavailable, context.id, request.messages),
    )
    stream = MessagesStream(context, options, catalogue.names)
    events = () if unavailable is None else hosted.EVENTS
    asked = _searched(request, catalogue)
    return Turn(request, fields.stream is True, stream, tuple(notes), stream.counted, events, asked)


def _searched(request: Request, catalogue: MessagesCatalogue) -> str | None:
    """The query of a request that is one search: it offers nothing else, and says what to search for."""
    alone = request.search is not None and len(catalogue.tools) == 1 and not catalogue.deferred
    return searched(request.messages) if alone and catalogue.choice != "none" else None


def count_body(tokens: int) -> Json:
    return {"input_tokens": tokens}


def parse_count(body: Json, context: Context) -> Request:
    """The body of `/v1/messages/count_tokens` as the request whose prompt is to be counted."""
    return _request(body, schema.validate(body), context)[0]


def _request(body: Json, fields: CreateMessage, context: Context) -> tuple[Request, MessagesCatalogue, list[Note]]:
    notes, unread = _ignored(fields), Unread(context.policy.max_items)
    unread.of_model(fields)
    _hosted(fields, context, notes)
    tools = array_of(body, "tools", fields.tools)
    catalogue = read_tools(tools, fields.tool_choice, context.policy, notes, unread)
    conversation = MessagesConversation(catalogue, context, notes, unread, reading(tools, ("messages", context.policy)))
    if fields.system is not None:
        conversation.system(system_text(fields.system, "system", unread))
    given = array_of(body, "messages", fields.messages)
    conversation.read(given or [])
    messages, repairs = repair(conversation.messages, strict=context.policy.strict_history, kept=kept_of(given))
    if not messages:
        raise refused("messages", "at least one message is required")
    notes.extend(repairs)
    thinking, kwargs = switched(fields, _thinking(fields, conversation.effort, notes), unread)
    request = Request(
        id=context.id,
        model=fields.model,
        messages=messages,
        tools=catalogue.tools,
        tool_choice=catalogue.choice,
        parallel_tool_calls=catalogue.parallel,
        max_tokens=fields.max_tokens,
        sampling=sampling(fields, fields.stop_sequences),
        format=constrained(fields, _format(fields), unread),
        thinking=thinking,
        template_kwargs=kwargs,
        affinity=_affinity(fields, context),
        search=catalogue.search,
        prefill=messages[-1].role == "assistant",
        whole=fields.stream is not True,
    )
    return request, catalogue, [*few([*notes, *unread.notes()])]


def _warming(request: Request) -> Request:
    """The same prompt for the shortest answer that servers give."""
    choice: ir.ToolChoice = "none" if request.tool_choice == "none" else "auto"
    return replace(request, max_tokens=1, tool_choice=choice, format=None, search=None)


# -------------------------------------------------------------------------------------------------- refused and ignored


def _ignored(fields: CreateMessage) -> list[Note]:
    """Fields that are accepted and change nothing, although the client may have meant them to."""
    if fields.thread is not None:
        message = "thread: Threads are not supported by this gateway: send the whole conversation."
        raise GatewayError(Kind.UNSUPPORTED, message, "thread", code=NO_THREADS)
    if isinstance(fields.container, dict) and fields.container.get("skills"):
        raise unsupported("container.skills", "Skills are not supported by this gateway.")
    names = unusual(fields, _ORDINARY)
    if fields.container is not None:
        names.append("container")
    names.extend(_context_edits(fields.context_management))
    if (
        fields.output_format is not None
        and fields.output_config is not None
        and fields.output_config.format is not None
    ):
        names.append("output_format")
    return [noted("field", name) for name in names]


def _context_edits(management: Any) -> list[str]:
    """`context_management`, unless it asks for nothing, as Claude Code's "keep all" does."""
    if management is None:
        return []
    edits = management["edits"] if isinstance(management, dict) and management.keys() == {"edits"} else None
    if isinstance(edits, list) and all(map(_keeps_all, edits)):
        return []
    return ["context_management"]


def _keeps_all(edit: object) -> bool:
    return isinstance(edit, dict) and edit.keys() <= {"type", "keep"} and edit.get("keep") == "all"


def _hosted(fields: CreateMessage, context: Context, notes: list[Note]) -> None:
    if not fields.mcp_servers:
        return
    if context.policy.hosted_tools == "reject":
        raise unsupported("mcp_servers", "MCP servers cannot be called through this gateway.")
    notes.append(Note("tool", "mcp_servers"))


# ----------------------------------------------------------------------------------------------------------- translated


def _format(fields: CreateMessage) -> ir.Format | None:
    """`output_config.format`, or the older `output_format`. Servers want a name for it, which this API lacks."""
    asked = fields.output_config.format if fields.output_config is not None else None
    asked = asked or fields.output_format
    return None if asked is None else ir.JsonSchema(asked.name or "output", asked.schema_, strict=True)


def _thinking(fields: CreateMessage, later: str | None, notes: list[Note]) -> Thinking:
    """`later` is the effort of the last system message that names one; it counts before the request's own. Servers take
    an effort, a switch or a budget. A budget alone also gets an effort, for those that take no budget; `adaptive`
    without an effort is "high", this API's default."""
    config, asked = fields.output_config, fields.thinking
    word = later or (config.effort if config is not None else None)
    effort = soft_words.effort(word, "output_config.effort", notes)
    if asked is None:
        return Thinking(effort)
    known(asked.display, _DISPLAYS, "summarized", "thinking.display", notes)
    kind = _thinking_type(asked.type, notes)
    if kind in ("adaptive", "between_tools") and asked.budget_tokens is not None:
        notes.append(Note("field", "thinking.budget_tokens"))
    match kind:
        case "disabled":
            return Thinking("none")
        case "enabled":
            if asked.budget_tokens is None:
                raise refused("thinking.enabled.budget_tokens", "Field required")
            return Thinking(effort or _effort_of(asked.budget_tokens), asked.budget_tokens)
        case "between_tools":
            notes.append(Note("field", "thinking.between_tools"))  # when to think is up to the model
            return Thinking(effort or "high")
        case _:
            return Thinking(effort or "high")


def _thinking_type(word: str, notes: list[Note]) -> str:
    """An unknown type, unless it is another word for "off", leaves it to the model as `adaptive` does."""
    otherwise = "disabled" if soft_words.plainly(word) in soft_words.OFF else "adaptive"
    return known(word, _THINKING_TYPES, otherwise, "thinking.type", notes) or "adaptive"


def _effort_of(budget: int) -> str:
    return "low" if budget <= 4096 else "medium" if budget <= 16_384 else "high"


def _affinity(fields: CreateMessage, context: Context) -> str | None:
    """The session, from Claude Code's header or from what clients write into `metadata.user_id`."""
    if session := context.headers.get("x-claude-code-session-id"):
        return session
    user = fields.metadata.user_id if fields.metadata is not None else None
    if not user:
        return None
    try:
        decoded = orjson.loads(user[:_MOST_OF_USER])
    except ValueError:
        return user.rpartition("_session_")[2] if "_session_" in user else None
    session = decoded.get("session_id") if isinstance(decoded, dict) else None
    return session if isinstance(session, str) and session else None
