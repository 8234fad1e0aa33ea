"""The switches by which templates are told to think or not, and how much.

A switch is a variable that the template reads from outside, so it is known by name and never guessed from the text:
`thinking` is also what some templates call the thoughts of earlier turns. Unknown switches stay with the operator's
`chat_template_kwargs`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dragoman.backends.efforts import nearest_effort
from dragoman.translators.ir import Thinking
from dragoman.translators.soft_words import EFFORTS

# Set to true, they make a template show thoughts: Qwen 3 and GLM, DeepSeek V3.1 and later, Apriel 1.5.
THINKING_ON = ("enable_thinking", "thinking", "add_thoughts")

# Those that a request's effort is translated to.
SWITCHES = frozenset(
    {"enable_thinking", "thinking", "thinking_mode", "thinking_budget", "skip_thinking", "reasoning_effort"}
)
TEMPLATE_EFFORTS = ("low", "medium", "high")  # what gpt-oss's template knows, the first that printed the word


def switches(thinking: Thinking, variables: Collection[str]) -> dict[str, Any]:
    """Values for the template's `variables`; none where the request leaves thinking to the server."""
    known = thinking.effort in EFFORTS
    if not known and thinking.budget is None:
        return {}
    thinks = thinking.effort != "none"
    values: dict[str, Any] = {
        "enable_thinking": thinks,
        "thinking": thinks,
        "thinking_mode": "enabled" if thinks else "disabled",  # MiniMax M3, which thinks when it likes otherwise
        "skip_thinking": not thinks,  # Command 4
    }
    if not thinks:
        values["thinking_budget"] = 0  # Seed-OSS
    elif thinking.budget is not None:
        values["thinking_budget"] = thinking.budget
    if known:
        values["reasoning_effort"] = nearest_effort(str(thinking.effort), TEMPLATE_EFFORTS)
    return {name: value for name, value in values.items() if name in variables}
