"""The tools of a request and what they are called upstream, for both OpenAI protocols.

A chat server takes a flat list of functions, so every tool becomes one. What a name stands for is looked up in the
catalogue, which lives as long as the request; a name is never split. Names are given in the order in which a request
mentions them, so what is appended later never changes an earlier one:

* characters that servers refuse become `_`;
* a name longer than 64 characters, or one that is taken already, gets a hash of its full identity;
* a call in the history has the name of its tool even where that tool is no longer declared.

Tools that OpenAI would run itself (`mcp`, and `web_search` unless the gateway does …), and unknown types, are left out
and noted, or refused, as the operator decides.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Literal

from dragoman.translators.errors import invalid
from dragoman.translators.fields import Given, Unread, noted
from dragoman.translators.ir import Note, Tool
from dragoman.translators.openai.refusals import unsupported, wrong_type
from dragoman.translators.protocol import Policy
from dragoman.translators.seen import Seen, once
from dragoman.translators.tool_names import MAX_NAME, hashed_name, plain_name

INERT = frozenset({"cache_control", "prompt_cache_breakpoint"})  # servers cache prefixes on their own
ToolKind = Literal["function", "custom", "tool_search", "local_shell", "shell", "apply_patch", "web_search"]


@dataclass(frozen=True, slots=True)
class DeclaredTool:
    """A tool as the client declared it. `encrypted`: its schema marks a property as encrypted (Codex, multi-agent
    v2). `called_as_function`: the client reads a call of this free-form tool as that of a function, with the bare text
    as its arguments, and sends it back so."""

    kind: ToolKind
    name: str
    namespace: str | None = None
    encrypted: bool = False
    called_as_function: bool = False


class Catalogue:
    """`notes` grows with what is left out, `unread` with keys of declarations that nobody reads. A subclass reads the
    declarations of its protocol."""

    def __init__(self, policy: Policy, notes: list[Note], unread: Unread) -> None:
        self.left_out: set[str] = set()  # types
        self._policy = policy
        self._notes = notes
        self._unread = unread
        self._inert = INERT  # keys of the list that is being read
        self._tools: dict[str, Tool] = {}  # declared, by upstream name
        self._declared: dict[str, DeclaredTool] = {}  # by upstream name; also tools that only the history mentions
        self._names: dict[tuple[ToolKind, str | None, str], str] = {}  # upstream names, by kind, namespace and name
        self._bare: dict[tuple[str | None, str], str] = {}  # the same without the kind

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def size(self) -> tuple[int, ...]:
        """Changes with every tool and name that is added."""
        return len(self._tools), len(self._declared), len(self._names), len(self._bare), len(self.left_out)

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(self._tools.values())

    def offered(self, allowed: frozenset[str] | None) -> tuple[Tool, ...]:
        """What the model may call: all tools, or those with the `allowed` upstream names."""
        return tuple(tool for name, tool in self._tools.items() if allowed is None or name in allowed)

    def restore(self, name: str) -> DeclaredTool:
        """What an upstream name means to the client. A name that the model invented is a function of that name: the
        client will refuse it."""
        return self._declared.get(name) or DeclaredTool("function", name)

    # ------------------------------------------------------------------------------------------------------- declaring

    def declare_all(self, tools: object, path: str, *, found: bool = False) -> list[str]:
        """Takes in a list of tools; gives the upstream names of those that the model may now call. All of them are
        shown at once, so `defer_loading` is noted, except where a search has `found` them."""
        if not isinstance(tools, list):
            raise wrong_type(path, "an array", tools)
        self._inert = INERT | {"defer_loading"} if found else INERT
        names: list[str] = []
        for index, tool in enumerate(tools):
            place = f"{path}[{index}]"
            if not isinstance(tool, dict):
                raise wrong_type(place, "an object", tool)
            given = self._unread.given(tool, place)
            names.extend(self._declare(given, place))
            given.close(self._inert)
        return names

    def declare_first(self, tools: list[Any], path: str) -> None:
        """The tools of the body itself, before anything else is declared or named."""
        if type(tools) is not Seen:
            self.declare_all(tools, path)
            return

        def read(notes: list[Note], unread: Unread) -> Catalogue:
            declared = type(self)(self._policy, notes, unread)
            declared.declare_all(tools, path)
            return declared

        self._take(once(tools, (type(self), self._policy), read, self._notes, self._unread))

    def _take(self, declared: Catalogue) -> None:
        """What another catalogue holds, which stays as it is."""
        self.left_out = set(declared.left_out)
        self._tools = dict(declared._tools)
        self._declared = dict(declared._declared)
        self._names = dict(declared._names)
        self._bare = dict(declared._bare)

    def _declare(self, tool: Given, path: str) -> list[str]:
        raise AssertionError("every protocol reads its own declarations")

    def _add(
        self,
        declared: DeclaredTool,
        description: str,
        parameters: dict[str, Any],
        path: str,
        strict: bool | None = None,
    ) -> str:
        name = self._assign(declared, declaring=True)
        tool = Tool(name, description, parameters, strict)
        known = self._tools.setdefault(name, tool)
        if known is tool:
            self._declared[name] = declared
            if len(self._tools) > self._policy.max_tools:
                message = f"Too many tools: at most {self._policy.max_tools} are allowed."
                raise invalid(message, path, "array_above_max_length")
        elif known != tool:  # declared again in another way: the first stays, or the prefix of the prompt would change
            self._notes.append(noted("tool", declared.name))
        return name

    def leave_out(self, kind: str, path: str) -> None:
        if self._policy.hosted_tools == "reject":
            raise unsupported(path, f"Tools of type '{kind[:64]}' are not supported by this gateway.")
        self.left_out.add(kind)
        self._notes.append(noted("tool", kind))

    # ---------------------------------------------------------------------------------------------------------- naming

    def name(self, kind: ToolKind, name: str, namespace: str | None = None) -> str:
        """The upstream name for a call in the history, whether or not its tool is declared (yet, or any longer)."""
        return self._assign(DeclaredTool(kind, name, namespace), declaring=False)

    def _assign(self, declared: DeclaredTool, *, declaring: bool) -> str:
        key = (declared.kind, declared.namespace, declared.name)
        if (known := self._names.get(key)) is not None:
            return known
        # The history may name a tool under another kind than the one under which it is declared.
        bare = self._bare.get((declared.namespace, declared.name))
        if bare is None and not declaring and declared.namespace == declared.name:
            # OpenAI writes so of a deferred tool without a namespace that a search has found, and VS Code does too.
            bare = self._bare.get((None, declared.name))
        if bare is not None and not (declaring and bare in self._tools):
            self._names[key] = bare
            return bare
        upstream = self._free_name(declared)
        self._names[key] = upstream
        self._bare.setdefault((declared.namespace, declared.name), upstream)
        self._declared[upstream] = declared
        return upstream

    def _free_name(self, declared: DeclaredTool) -> str:
        return free_name(declared.name, (declared.kind, declared.name), self._declared)


def free_name(flat: str, identity: tuple[str, ...], taken: Container[str]) -> str:
    """`flat` without what servers refuse in a name; where it is too long or taken, with a hash of its identity."""
    plain = plain_name(flat)
    if len(plain) <= MAX_NAME and plain not in taken:
        return plain
    hashed = "\0".join(identity)
    while (candidate := hashed_name(plain, hashed)) in taken:
        hashed += "\0"
    return candidate
