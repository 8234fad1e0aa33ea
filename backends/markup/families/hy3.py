"""Hunyuan 3 and 4: GLM's grammar in a section, in 3 with a separator after the name; every tag may have the suffix of
the published models. The tag of the section is at times forgotten."""

from dragoman.backends.markup.families.glm import keyed
from dragoman.backends.markup.family import Family, on_a_line
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


_SUFFIXES = (":opensource", ":6124c78e", "")

FAMILY = Family(
    "hy3",
    "Hunyuan 3 and 4",
    openers=on_a_line(
        {f"<{tag}{suffix}>": _suffixed(suffix) for tag in ("tool_calls", "tool_call") for suffix in _SUFFIXES}
    ),
    thinking={f"<think{suffix}>": f"</think{suffix}>" for suffix in _SUFFIXES},
    ends=("<\uff5chy_eos\uff5c>", "<|endoftext|>"),
    signs=(("<tool_sep",), ("<arg_key{}>",), ("<arg_key:",)),  # templates put in the suffix by format()
    names=("hunyuan-3", "hunyuan-4", "hy3", "hy4"),
    markup="`<tool_calls:opensource><tool_call:opensource>NAME<tool_sep:opensource><arg_key:opensource>…`",
    field="reasoning, reasoning_content",
    recovers="forgotten tags of either end; values by their types; tags without the suffix",
)
