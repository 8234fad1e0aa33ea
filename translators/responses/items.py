"""Input items → one message of the representation each, in the order in which they came.

`translators.history` puts calls and results into turns, not this module. Every item type of the specification has its
action here: translated, read as tools or settings, left out with a note (unknown types, and what OpenAI's own tools
did, which no chat server can use, except for searches where the gateway runs them), or refused with its path. Calls in
the history have upstream names, and arguments in the form in which the model writes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

import orjson

from dragoman.translators.errors import invalid
from dragoman.translators.fields import Given, Tally, Unread
from dragoman.translators.ir import Image, Message, Note, Reasoning, Role, Text, ToolCall, ToolResult
from dragoman.translators.openai.catalogue import ToolKind
from dragoman.translators.openai.content import Media
from dragoman.translators.openai.reading import (
    expect_list,
    expect_object,
    expect_text,
    filled_text,
    given_object,
    name_of,
)
from dragoman.translators.openai.refusals import missing, unsupported, validated, wrong_type, wrong_value
from dragoman.translators.protocol import Context
from dragoman.translators.responses import proxies
from dragoman.translators.responses.content import joined_text, message_parts, output_parts
from dragoman.translators.responses.schema import CreateResponse, TextConfig, overridden
from dragoman.translators.responses.searches import earlier_query, earlier_result, is_stripped, read_carried
from dragoman.translators.responses.state import is_bare_reference, item_words
from dragoman.translators.responses.tools import ResponsesCatalogue, is_local
from dragoman.translators.seen import read_each
from dragoman.translators.web_search import NAME, SearchCount, call_of, result_of

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "developer"}
HOSTED_ITEMS = frozenset(
    {
        "code_interpreter_call",
        "computer_call",
        "computer_call_output",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "web_search_call",
    }
)
# Kinds that change nothing but the messages, unless they name a tool or hold what is sealed.
_PLAIN = frozenset(
    {
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "reasoning",
    }
)
_DIRECT = {"type": "direct"}  # a call that the model made itself, not a program that it wrote
# What the client or an earlier answer wrote about an item, and no model is told.
_INERT = frozenset(
    {
        "id",
        "status",
        "phase",
        "encrypted_function_args",
        "internal_chat_message_metadata_passthrough",
        "parsed_arguments",  # what OpenAI's SDK made of an answer, as LangChain sends it back
    }
)
UNREADABLE_MESSAGE = "[The content of this message is encrypted and cannot be read here.]"
UNREADABLE_SUMMARY = "[A summary of the conversation up to here is encrypted and cannot be read here.]"


class Items:
    """Reads the items of one request. `messages`, `notes` and `unread` grow; `reasoning` and `text` hold the settings
    of the last `configuration_update`. `key` is that of `translators.seen.read_each`."""

    def __init__(
        self, tools: ResponsesCatalogue, context: Context, notes: list[Note], unread: Unread, key: Hashable = None
    ) -> None:
        self.messages: list[Message] = []
        self.notes = notes
        self.reasoning: CreateResponse.Reasoning | None = None
        self.text: TextConfig | None = None
        self.format_path = "text.format"
        self._tools = tools
        self.unread = unread
        self._key = key
        self._place = 0  # of the item that is read, in the whole conversation
        self._opens = 0  # how often sealed text was looked at, which only its key can open
        self._left_out = Tally("item")
        self._context = context
        self._media = Media(context.policy, notes)
        self._shell_calls: dict[str, str] = {}  # item id → call id of local_shell_call, whose output names the item
        self._search_count = SearchCount()
        self._stripped: tuple[int, str] | None = None  # how many messages there were after such a search, and its call
        self._searches: deque[str] = deque()  # calls of tool_search that came without an id

    def read(self, value: object) -> None:
        """The whole of `input`."""
        if isinstance(value, str):
            self.messages.append(Message("user", (Text(value),)))
        elif isinstance(value, list):
            read_each(value, self, self._key)
            self.notes.extend(self._left_out.notes())
        else:
            raise wrong_type("input", "a string or an array of input items", value)

    def element(self, value: Any, index: int) -> None:
        """Its place in an error is that in the request's own items; those that it continues have none there."""
        self._place, own = index, index - self._context.earlier
        self._item(value, f"input[{own}]" if own >= 0 else "input")

    def state(self) -> object:
        return len(self.notes), self.unread.total, self._tools.size, self._opens

    def plain(self, value: Any) -> bool:
        return value.get("type", "message") in _PLAIN

    def _item(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise wrong_type(path, "an object", value)
        item = self.unread.given(value, path)
        kind = item.get("type")
        if kind is None or (kind == "" and "role" in item):  # VS Code leaves it empty for models that it does not know
            kind = _untyped(item, path)
        if not isinstance(kind, str):
            raise wrong_type(f"{path}.type", "a string", kind)
        read = _READERS.get(kind)
        if read is not None:
            read(self, item, path)
            if item.peek("caller") == _DIRECT:
                item.pass_over("caller")
            item.close(_INERT)
        elif kind == "web_search_call" and self._context.policy.web_search:
            self._web_search(item, path)
        elif kind in HOSTED_ITEMS:
            self._hosted(kind, path)
        elif self._context.policy.strict_history:
            raise wrong_value(f"{path}.type", kind)
        else:  # of the past, so a refusal would end the session for good
            self._left_out.count(kind[:64])

    def _hosted(self, kind: str, path: str) -> None:
        if self._context.policy.hosted_tools == "reject":
            raise unsupported(f"{path}.type", f"Items of type '{kind}' are not supported by this gateway.")
        self._left_out.count(kind)

    # -------------------------------------------------------------------------------------------------------- messages

    def _message(self, item: Given, path: str) -> None:
        role = _ROLES.get(expect_text(item, "role", path))
        if role is None:
            raise wrong_value(f"{path}.role", item["role"], "'assistant', 'system', 'developer' and 'user'")
        if "content" not in item:
            raise missing(f"{path}.content")
        content = item["content"]
        says = content is not None or role != "assistant"  # a turn may have done nothing but call
        parts = message_parts(item, content, f"{path}.content", self._media) if says else ()
        if role == "assistant":
            for index, part in enumerate(parts):
                if isinstance(part, Image):
                    raise wrong_value(f"{path}.content[{index}].type", "input_image", "'output_text' and 'refusal'")
        if parts:
            self.messages.append(Message(role, parts))

    def _agent_message(self, item: Given, path: str) -> None:
        """What one agent of a Codex session wrote to another. Only OpenAI can read encrypted content, unless we sealed
        it."""
        content, texts = item.get("content"), []
        if isinstance(content, str):
            texts.append(content)
        else:
            for index, part in enumerate(expect_list(item, "content", path)):
                texts.append(self._agent_text(item, part, f"{path}.content[{index}]"))
        author = item.get("author")
        item.pass_over("recipient")  # the agent whose conversation this is
        if isinstance(author, str) and author:
            texts.insert(0, f"[Message from {author}]")
        self.messages.append(Message("user", (Text("\n".join(texts)),)))

    def _agent_text(self, item: Given, value: Any, path: str) -> str:
        if not isinstance(value, dict):
            raise wrong_type(path, "an object", value)
        part = item.inner(value, path)
        text = self._read_agent_text(part, path)
        part.close()
        return text

    def _read_agent_text(self, part: Given, path: str) -> str:
        match expect_text(part, "type", path):
            case "encrypted_content":
                text = self._opened(expect_text(part, "encrypted_content", path))
                if text is None:
                    self.notes.append(Note("item", "agent_message"))
                    return UNREADABLE_MESSAGE
                return text
            case "input_text" | "output_text" | "text":
                return expect_text(part, "text", path)
            case other:
                raise wrong_value(f"{path}.type", other, "'input_text' and 'encrypted_content'")

    def _reasoning(self, item: Given, path: str) -> None:
        """The plain text if there is one, else what we sealed, else the summary. A foreign seal is not an error."""
        text, sealed = "", item.get("encrypted_content")
        item.pass_over("content", "summary", "role")  # one of the first two stands for the other; LiteLLM has a role
        if item.get("content") is not None:
            text = joined_text(item, item["content"], f"{path}.content")
        if sealed is not None and not isinstance(sealed, str):
            raise wrong_type(f"{path}.encrypted_content", "a string", sealed)
        if not text and sealed:
            text = self._opened(sealed) or ""
            if (carried := read_carried(text)) is not None:
                self._carried_search(carried)
                return
        if not text and item.get("summary") is not None:
            text = joined_text(item, item["summary"], f"{path}.summary", "\n\n")
        if text:
            self.messages.append(Message("assistant", (Reasoning(text),)))
        elif sealed:
            self.notes.append(Note("item", "reasoning"))

    def _compaction(self, item: Given, path: str) -> None:
        """One of another server is a loss that the model is told of: it stays in the session for good."""
        summary = self._opened(expect_text(item, "encrypted_content", path))
        if summary is None and self._context.policy.unreadable == "reject":
            message = "The encrypted content of this compaction item was not made by this gateway and cannot be read."
            raise invalid(message, f"{path}.encrypted_content", "invalid_encrypted_content")
        if summary is None:
            self.notes.append(Note("item", "compaction"))
        self.messages.append(Message("user", (Text(UNREADABLE_SUMMARY if summary is None else summary),)))

    def _opened(self, sealed: str) -> str | None:
        self._opens += 1
        return self._context.open(sealed) if self._context.open is not None else None

    # ---------------------------------------------------------------------------------------------- calls and results

    def _call(self, call_id: str, name: str, arguments: str) -> None:
        self.messages.append(Message("assistant", (ToolCall(call_id, name, arguments),)))

    def _result(self, call_id: str, text: str, *, is_error: bool = False) -> None:
        self.messages.append(Message("tool", (ToolResult(call_id, (Text(text),), is_error),)))

    def _function_call(self, item: Given, path: str) -> None:
        name = self._upstream(item, "function", path)
        self._call(_call_id(item, path), name, expect_text(item, "arguments", path))

    def _custom_call(self, item: Given, path: str) -> None:
        name = self._upstream(item, "custom", path)
        self._call(_call_id(item, path), name, _dumps({"input": expect_text(item, "input", path)}))

    def _upstream(self, item: Given, kind: ToolKind, path: str) -> str:
        namespace = item.get("namespace")
        if namespace is not None and not isinstance(namespace, str):
            raise wrong_type(f"{path}.namespace", "a string", namespace)
        return self._tools.name(kind, name_of(item, path), namespace or None)

    def _function_output(self, item: Given, path: str) -> None:
        """One without a call is what happened elsewhere: Codex's app begins turns with it, of scheduled tasks and of
        messages between threads."""
        if item.get("call_id") is not None:
            self._output(item, path)
            return
        names = [name for key in ("namespace", "name") if isinstance(name := item.get(key), str) and name]
        label = Text(f"[Output of {'.'.join(names) or 'a tool'}, which was not called in this conversation]")
        self.messages.append(Message("user", (label, *self._content(item, path))))

    def _output(self, item: Given, path: str) -> None:
        call_id = _call_id(item, path)
        item.pass_over("name", "namespace")  # of the tool, which the call has
        self.messages.append(Message("tool", (ToolResult(call_id, self._content(item, path)),)))

    def _content(self, item: Given, path: str) -> tuple[Text | Image, ...]:
        if "output" not in item:
            raise missing(f"{path}.output")
        return output_parts(item, item["output"], f"{path}.output", self._media)

    def _web_search(self, item: Given, path: str) -> None:
        query = earlier_query(item)
        if query is None:
            self._hosted("web_search_call", path)
            return
        call = call_of(self._search_count.next(), self._tools.name("web_search", NAME), query)
        self.messages += [Message("assistant", (call,)), result_of(call.id, earlier_result(item, path))]
        self._stripped = (len(self.messages), call.id) if is_stripped(item) else None

    def _carried_search(self, text: str) -> None:
        """What the model had read of the search before it, where the client has left that out."""
        if not self._context.policy.web_search:
            self._left_out.count("web_search_call")
        elif self._stripped is not None and self._stripped[0] == len(self.messages):
            self.messages[-1] = result_of(self._stripped[1], text)

    def _local_shell_call(self, item: Given, path: str) -> None:
        action = given_object(item, "action", path)
        action.pass_over("type")
        call_id = _call_id(item, path)
        if isinstance(item.get("id"), str):
            self._shell_calls[item["id"]] = call_id
        arguments = _chosen(action, proxies.LOCAL_SHELL_FIELDS)
        self._call(call_id, self._tools.name("local_shell", "local_shell"), arguments)

    def _local_shell_output(self, item: Given, path: str) -> None:
        """By the specification `id` is that of the call item; some clients send its `call_id` there or beside it."""
        item_id = item.get("call_id") if isinstance(item.get("call_id"), str) else expect_text(item, "id", path)
        assert isinstance(item_id, str)
        self._result(self._shell_calls.get(item_id, item_id), expect_text(item, "output", path))

    def _shell_call(self, item: Given, path: str) -> None:
        if is_local(item.peek("environment")):
            item.pass_over("environment")
        arguments = _chosen(given_object(item, "action", path), proxies.SHELL_FIELDS)
        self._call(_call_id(item, path), self._tools.name("shell", "shell"), arguments)

    def _shell_output(self, item: Given, path: str) -> None:
        call_id, output = _call_id(item, path), item.get("output")
        if isinstance(output, str):
            self._result(call_id, output)
            return
        shown = []
        for index, one in enumerate(expect_list(item, "output", path)):
            if not isinstance(one, dict):
                raise wrong_type(f"{path}.output[{index}]", "an object", one)
            given = item.inner(one, f"{path}.output")
            shown.append({key: given[key] for key in ("stdout", "stderr", "outcome") if key in given})
            given.close()
        self._result(call_id, _dumps(shown))

    def _apply_patch_call(self, item: Given, path: str) -> None:
        arguments = _chosen(given_object(item, "operation", path), proxies.APPLY_PATCH_FIELDS)
        self._call(_call_id(item, path), self._tools.name("apply_patch", "apply_patch"), arguments)

    def _apply_patch_output(self, item: Given, path: str) -> None:
        status = expect_text(item, "status", path)
        text = "" if item.get("output") is None else expect_text(item, "output", path)
        self._result(_call_id(item, path), text or status, is_error=status == "failed")

    # ----------------------------------------------------------------------------------------- tools and settings

    def _tool_search_call(self, item: Given, path: str) -> None:
        if item.get("execution") == "server":
            self._hosted("tool_search_call", path)
            return
        call_id = item.get("call_id")
        if call_id is None:
            call_id = f"tool_search_{self._place}"  # which nothing that is appended changes
            self._searches.append(call_id)
        elif not isinstance(call_id, str):
            raise wrong_type(f"{path}.call_id", "a string", call_id)
        arguments = _dumps(expect_object(item, "arguments", path))
        self._call(call_id, self._tools.name("tool_search", "tool_search"), arguments)

    def _tool_search_output(self, item: Given, path: str) -> None:
        names = self._tools.declare_all(expect_list(item, "tools", path), f"{path}.tools", found=True)
        if item.get("execution") == "server":
            self._hosted("tool_search_output", path)
            return
        call_id = item.get("call_id")
        if call_id is None:
            call_id = self._searches.popleft() if self._searches else "tool_search"
        elif not isinstance(call_id, str):
            raise wrong_type(f"{path}.call_id", "a string", call_id)
        self._result(call_id, f"Tools that can be called now: {', '.join(names)}" if names else "No tools were found.")

    def _additional_tools(self, item: Given, path: str) -> None:
        item.pass_over("role")
        self._tools.declare_all(expect_list(item, "tools", path), f"{path}.tools")

    def _configuration(self, item: Given, path: str) -> None:
        if item.get("reasoning") is not None:
            reasoning = validated(CreateResponse.Reasoning, item["reasoning"], f"{path}.reasoning")
            self.unread.of_model(reasoning, "input.reasoning")
            self.reasoning = overridden(self.reasoning or CreateResponse.Reasoning(), reasoning)
        if item.get("text") is not None:
            text = validated(TextConfig, item["text"], f"{path}.text")
            self.unread.of_model(text, "input.text")
            self.text = overridden(self.text or TextConfig(), text)
            if text.format is not None:
                self.format_path = f"{path}.text.format"
            if text.verbosity is not None:
                self.notes.append(Note("field", "text.verbosity"))

    # --------------------------------------------------------------------------------------------------------- refused

    def _reference(self, item: Given, path: str) -> None:
        name = expect_text(item, "id", path)
        raise invalid(item_words(name), f"{path}.id")

    def _compaction_trigger(self, item: Given, path: str) -> None:
        raise unsupported(f"{path}.type", "Compaction on request is not supported by this gateway.")


def _untyped(item: Given, path: str) -> str:
    """The two forms that may omit `type`: the easy message and the reference."""
    if "role" in item:
        return "message"
    if is_bare_reference(item):
        return "item_reference"
    raise missing(f"{path}.type")


def _call_id(item: Given, path: str) -> str:
    return filled_text(item, "call_id", path)


def _chosen(owner: Given, keys: tuple[str, ...]) -> str:
    chosen = {key: owner[key] for key in keys if owner.get(key) is not None}
    owner.close()
    return _dumps(chosen)


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


_READERS: dict[str, Callable[[Items, Given, str], None]] = {
    "additional_tools": Items._additional_tools,
    "agent_message": Items._agent_message,
    "apply_patch_call": Items._apply_patch_call,
    "apply_patch_call_output": Items._apply_patch_output,
    "compaction": Items._compaction,
    "compaction_trigger": Items._compaction_trigger,
    "configuration_update": Items._configuration,
    "custom_tool_call": Items._custom_call,
    "custom_tool_call_output": Items._output,
    "function_call": Items._function_call,
    "function_call_output": Items._function_output,
    "item_reference": Items._reference,
    "local_shell_call": Items._local_shell_call,
    "local_shell_call_output": Items._local_shell_output,
    "message": Items._message,
    "reasoning": Items._reasoning,
    "shell_call": Items._shell_call,
    "shell_call_output": Items._shell_output,
    "tool_search_call": Items._tool_search_call,
    "tool_search_output": Items._tool_search_output,
}
