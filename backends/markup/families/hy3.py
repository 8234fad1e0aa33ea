"""Hunyuan 3: GLM's grammar with a separator after the name, in a section; every tag may have the suffix of the
published models."""

from dragoman.backends.markup.families.glm import keyed
from dragoman.backends.markup.family import THINK, Family, on_a_line
from dragoman.backends.markup.readers.tagged_calls import TaggedCalls


def _suffixed(suffix: str) -> TaggedCalls:
    def tags(name: str) -> tuple[str, str]:
        return f"<{name}{suffix}>", f"</{name}{suffix}>"

    opener, closer = tags("tool_call")
    return keyed(
        opener,
        closer,
        key=tags("arg_key"),
        value=tags("arg_value"),
        sections=(tags("tool_calls"),),
        skipped=(f"<tool_sep{suffix}>",),
    )


FAMILY = Family(
    "hy3",
    "Hunyuan 3",
    openers=on_a_line({f"<tool_calls{suffix}>": _suffixed(suffix) for suffix in (":opensource", "")}),
    thinking={"<think:opensource>": "</think:opensource>", **THINK},
    ends=("<\uff5chy_eos\uff5c>", "<|endoftext|>"),
    signs=(("<tool_sep",),),
    names=("hunyuan-3", "hy3"),
    markup="`<tool_calls:opensource><tool_call:opensource>NAME<tool_sep:opensource><arg_key:opensource>…`",
    field="reasoning, reasoning_content",
    recovers="forgotten closing tags; values by their types; tags without the suffix",
)
