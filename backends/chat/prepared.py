"""A request as a chat server will be sent it: the plan for what it cannot enforce, and the body, made once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from dragoman.backends.base import Prepared
from dragoman.backends.chat.encode import Json, encode, token_limit
from dragoman.backends.chat.settings import Settings, Wire
from dragoman.backends.markup import FAMILIES
from dragoman.backends.markup.grammar import optional_tags, structural_tag
from dragoman.backends.reader import Timeouts
from dragoman.translators.constraints import forced
from dragoman.translators.constraints.guided import is_forced, without_idle_format
from dragoman.translators.ir import Guided, Request

SLOW = 10  # tokens a second, of a large model on a busy server


@dataclass(slots=True, kw_only=True)
class PreparedChat(Prepared):
    """`asked` is the request that is sent (without a plan `request` itself), `body` what it is on the wire, without the
    fields that were `refused`, and `limited` the field of its token limit. `markup`: the family by which it is read."""

    asked: Request
    body: Json
    refused: frozenset[str]
    limited: str
    plan: forced.Plan | None
    markup: str | None = None

    @property
    def tagged(self) -> bool:
        """Whether decoding is held to the family's markup."""
        return isinstance(self.asked.format, Guided) and self.asked.format.kind == "tag"

    @property
    def by_prompt(self) -> bool:
        """Whether a forced call is asked for in words alone."""
        return isinstance(self.plan, forced.ForcedTool) and self.plan.by == "prompt"

    def limit(self, max_tokens: int) -> None:
        Prepared.limit(self, max_tokens)
        self.body[self.limited] = max_tokens
        if self.plan is None:
            self.asked = replace(self.request, format=self.asked.format) if self.tagged else self.request
        else:
            self.asked = replace(self.asked, max_tokens=max_tokens)
            self.plan = replace(self.plan, request=self.asked)

    def let_go(self) -> None:
        Prepared.let_go(self)
        self.asked, self.body, self.plan = self.request, {}, None

    def rewritten(
        self, settings: Settings, *, asked: Request | None = None, refused: Iterable[str] = ()
    ) -> PreparedChat:
        """For another attempt: with another request, or without more fields."""
        asked, refused = asked or self.asked, self.refused.union(refused)
        body, _ = encode(asked, settings, refused, whole=self.whole)
        return replace(self, asked=asked, body=body, refused=refused)


def prepared(
    request: Request,
    settings: Settings,
    refused: frozenset[str],
    markup: str | None = None,
    *,
    tags: bool = True,
    seconds: float = Timeouts().first,
) -> PreparedChat:
    """`markup` is the family by which the answer will be read; without `tags` no call is held to its grammar. An answer
    in one piece has to come within `seconds`. Raises `GatewayError` where the server cannot be asked this."""
    request, idle = without_idle_format(request)
    tag = _structural_tag(request, settings, markup) if tags else None
    plan = _plan(request, settings, tag)
    asked = plan.request if plan is not None else replace(request, format=tag) if tag else request
    whole = plan is None and markup is None and asks_whole(request, settings, seconds)
    body, notes = encode(asked, settings, refused, whole=whole)
    notes += idle if plan is None else (*idle, *plan.notes)
    limited = settings.parameter_names.get(settings.max_tokens_field, settings.max_tokens_field)
    return PreparedChat(
        request, notes, whole=whole, asked=asked, body=body, refused=refused, limited=limited, plan=plan, markup=markup
    )


def asks_whole(request: Request, settings: Wire, seconds: float) -> bool:
    """Whether nothing needs the stream. One call alone does, since the rest is not waited for; so do log probabilities,
    whose reading takes long, a piece in each turn, and an answer that may be so long that a slow server is not done
    with it within `seconds`, since only a stream shows that it is still at work.

    With tools the setting must say so: servers have parsers of their own for whole answers, which at a call that is cut
    short or malformed take all of the answer for text (vLLM, Hermes) or fail (LMDeploy, llama.cpp).
    """
    if not request.whole or request.logprobs is not None or request.search is not None:
        return False
    limit = token_limit(request, settings)
    if limit is None or limit > SLOW * seconds:
        return False
    match settings.whole_answers:
        case "never":
            return False
        case "text":
            return not request.tools
        case "always":
            return not request.tools or request.parallel_tool_calls
        case _:
            assert_never(settings.whole_answers)


def _plan(request: Request, settings: Settings, tag: Guided | None) -> forced.Plan | None:
    if tag is not None and is_forced(request):
        return forced.in_markup(request, tag, _silent_choice(settings))
    return forced.plan(
        request,
        force_tool=settings.force_tool,
        json_schema=settings.json_schema,
        guided=settings.guided != "none",
        shows_tools=settings.tools == "native",
    )


def _structural_tag(request: Request, settings: Settings, markup: str | None) -> Guided | None:
    """What holds the answer to the family's markup: a forced call, or strict tools that may be called."""
    if markup is None or settings.structural_tags == "none" or settings.tools != "native":
        return None
    family, several = FAMILIES[markup], request.parallel_tool_calls
    if is_forced(request):
        tools = forced.allowed_tools(request)
        rule = structural_tag(family, tools, several=several, prompt=settings.markup_prompt)
    elif request.tool_choice == "auto" and request.format is None and any(tool.strict for tool in request.tools):
        rule = optional_tags(family, request.tools, several=several)
    else:
        return None
    return None if rule is None else Guided("tag", rule)


def _silent_choice(settings: Settings) -> Literal["auto", "none"]:
    """What keeps a server's own tool parser out of an answer without hiding the tools from the model."""
    return "none" if settings.tool_choice_none == "send" else "auto"
