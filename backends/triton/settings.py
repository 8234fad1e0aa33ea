"""Which settings a Triton backend obeys: of those that chat servers have, the ones that shape the prompt.

Every other one is refused, so that none is void in silence. Images are never shown, since no profile takes any; the
template decides what stands beside a call without text and whether tools can be shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dragoman.backends.prompts.rendering import PROBE, Rendering, checked, wrong

# In the words of the documentation: what of the setting is obeyed.
OBEYED = {
    "developer_role": "yes",
    "system_messages": "yes; not given: `user` where the template refuses later ones",
    "turns": "yes; not given: `alternate` where the template refuses others",
    "reasoning_field": "yes; not given: as the template calls it",
    "strict_tools": "yes",
    "deferred_tools": "yes",
    "extra_body": "`chat_template_kwargs` alone",
    "markup": "yes; null: found from the template",
}


def prompt_settings(given: Mapping[str, Any]) -> Rendering:
    """Raises `GatewayError` INVALID, in one line, for a setting that is wrong or has no meaning here."""
    for name in given:
        if name not in OBEYED:
            raise wrong(name, f"has no meaning for a Triton backend; those that have are {', '.join(OBEYED)}")
    settings = checked(Rendering, {"images": False, **given})
    if settings.markup == PROBE:
        raise wrong("markup", "probe has no meaning for a Triton backend, whose template tells the family")
    if "reasoning_field" in given and settings.reasoning_field is None:
        raise wrong("reasoning_field", "a Triton backend sends reasoning back wherever the template has a place for it")
    for name in settings.extra_body:
        if name != "chat_template_kwargs":
            raise wrong(f"extra_body.{name}", "has no meaning for a Triton backend; chat_template_kwargs has")
    if not isinstance(settings.extra_body.get("chat_template_kwargs", {}), Mapping):
        raise wrong("extra_body.chat_template_kwargs", "must be names and values")
    return settings
