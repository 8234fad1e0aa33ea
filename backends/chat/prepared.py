"""A request as a chat server will be sent it: the plan for what it cannot enforce, and the body, made once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dragoman.backends.base import Prepared
from dragoman.backends.chat.encode import Json, encode
from dragoman.backends.chat.settings import Settings
from dragoman.translators.constraints import forced
from dragoman.translators.constraints.guided import without_idle_format
from dragoman.translators.ir import Request


@dataclass(slots=True, kw_only=True)
class PreparedChat(Prepared):
    """`asked` is the request that is sent (without a plan `request` itself), `body` what it is on the wire, without the
    fields that were `refused`, and `limited` the field of its token limit."""

    asked: Request
    body: Json
    refused: frozenset[str]
    limited: str
    plan: forced.Plan | None

    def limit(self, max_tokens: int) -> None:
        Prepared.limit(self, max_tokens)
        self.body[self.limited] = max_tokens
        if self.plan is None:
            self.asked = self.request
        else:
            self.asked = replace(self.asked, max_tokens=max_tokens)
            self.plan = replace(self.plan, request=self.asked)

    def rewritten(
        self, settings: Settings, *, asked: Request | None = None, refused: Iterable[str] = ()
    ) -> PreparedChat:
        """For another attempt: with another request, or without more fields."""
        asked, refused = asked or self.asked, self.refused.union(refused)
        return replace(self, asked=asked, body=encode(asked, settings, refused)[0], refused=refused)


def prepared(request: Request, settings: Settings, refused: frozenset[str]) -> PreparedChat:
    """Raises `GatewayError` where the server cannot be asked this."""
    request, idle = without_idle_format(request)
    plan = forced.plan(
        request,
        force_tool=settings.force_tool,
        json_schema=settings.json_schema,
        guided=settings.guided != "none",
        shows_tools=settings.tools == "native",
    )
    asked = request if plan is None else plan.request
    body, notes = encode(asked, settings, refused)
    notes += idle if plan is None else (*idle, *plan.notes)
    limited = settings.parameter_names.get(settings.max_tokens_field, settings.max_tokens_field)
    return PreparedChat(request, notes, asked=asked, body=body, refused=refused, limited=limited, plan=plan)
