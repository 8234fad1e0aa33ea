"""What other systems wrote into a conversation: a compaction, results of MCP and server tools, blocks of a later API.

It comes back with every later turn, so refusing it would end the session for good. What holds words for the model is
shown as text: the summary of a compaction (what came before it stays, since nothing here has been compacted) and the
results of MCP tools. The rest is left out and noted: among it what Anthropic's servers did, which no other server can
continue, and types that nobody knows yet. In what a user or a tool says, a text takes the place of such a block, so
that the model can say that it did not see it. The operator can have all of it refused but the compaction.
"""

from __future__ import annotations

from dragoman.translators.fields import Given, noted
from dragoman.translators.ir import Note, Text
from dragoman.translators.messages.reading import unsupported
from dragoman.translators.protocol import Policy
from dragoman.translators.unreadable import in_place_of

_KNOWN = frozenset(
    {"text", "image", "document", "search_result", "thinking", "redacted_thinking", "tool_use", "tool_result"}
    | {"tool_reference", "tool_addition", "tool_removal", "browser_state"}
)
_MOST_KINDS = 32
_SERVER_BLOCKS = frozenset({"server_tool_use", "container_upload", "mcp_tool_use"})


class ForeignBlocks:
    """Reads the blocks of one conversation that are none of this gateway's."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._counts: dict[str, int] = {}
        self._mcp_names: dict[str, str] = {}  # of the MCP tools that were called, by the call's id

    def read(self, block: Given, path: str, *, said: bool = False) -> list[Text] | None:
        """What is shown of a foreign block, None for any other. `said`: by the user, or by a tool."""
        kind = block.get("type")
        if not isinstance(kind, str) or kind in _KNOWN:
            return None
        if kind == "compaction":
            return self._compaction(block)
        block.pass_over(*block)  # noted as a whole
        if self._policy.hosted_tools == "reject":
            raise unsupported(f"{path}.type", f"Blocks of type '{kind[:64]}' cannot be taken up by this gateway.")
        name = self._count(kind)
        if kind == "mcp_tool_result":
            return self._mcp_result(block)
        if kind == "mcp_tool_use" and isinstance(called := block.get("name"), str):
            self._mcp_names[str(block.get("id"))] = called
        if said and kind not in _SERVER_BLOCKS and not kind.endswith("_tool_result"):
            return [Text(in_place_of(f"content of type {name}", "this gateway cannot read it"))]
        return []

    @property
    def total(self) -> int:
        """How many blocks were left out."""
        return sum(self._counts.values())

    def notes(self) -> list[Note]:
        """What was left out, each kind once; kinds beyond the first dozens are `+` and how many blocks they were."""
        kept = list(self._counts.items())[:_MOST_KINDS]
        more = sum(self._counts.values()) - sum(count for _, count in kept)
        notes = [Note("item", name, count) for name, count in kept]
        return [*notes, Note("item", f"+{more}", more)] if more else notes

    def _count(self, kind: str) -> str:
        """The kind as it may stand in a note."""
        name = noted("item", kind).name
        self._counts[name] = self._counts.get(name, 0) + 1
        return name

    def _compaction(self, block: Given) -> list[Text]:
        if texts := _texts(block.get("content")):
            return texts
        self._count("compaction")
        return []

    def _mcp_result(self, block: Given) -> list[Text]:
        texts = _texts(block.get("content"))
        if not texts:
            return []
        name = self._mcp_names.get(str(block.get("tool_use_id")))
        what = "Error" if block.get("is_error") is True else "Result"
        return [Text(f"[{what} of the MCP tool {name}]" if name else f"[{what} of an MCP tool]"), *texts]


def _texts(content: object) -> list[Text]:
    """The texts of a string or of a list of blocks. Nothing is refused: whoever wrote this is not there to mend it."""
    if isinstance(content, str):
        return [Text(content)] if content else []
    blocks = content if isinstance(content, list) else []
    texts = [block.get("text") for block in blocks if isinstance(block, dict) and block.get("type") == "text"]
    return [Text(text) for text in texts if isinstance(text, str) and text]
