"""A request as a Triton server will be sent it: the plan for what it cannot enforce, and the prompt's token ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dragoman.backends.base import Prepared
from dragoman.backends.triton.profiles import Profile
from dragoman.translators.constraints import forced
from dragoman.translators.ir import Request

if TYPE_CHECKING:
    from dragoman.backends.prompts.prompt import Rendered


@dataclass(slots=True, kw_only=True)
class PreparedPrompt(Prepared):
    """`asked` is the request that is sent first (without a plan `request` itself), `prompt` what the model reads of it,
    and `profile` the server's as far as it was known."""

    asked: Request
    plan: forced.Plan | None
    prompt: Rendered
    profile: Profile | None

    def let_go(self) -> None:
        Prepared.let_go(self)
        self.asked, self.plan = self.request, None

    def limit(self, max_tokens: int) -> None:
        Prepared.limit(self, max_tokens)
        if self.plan is None:
            self.asked = self.request
        else:
            self.asked = replace(self.asked, max_tokens=max_tokens)
            self.plan = replace(self.plan, request=self.asked)
