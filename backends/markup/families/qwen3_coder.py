"""Qwen3-Coder (and Nemotron 3): `<tool_call><function=NAME><parameter=KEY>` VALUE `</parameter></function>
</tool_call>`, each tag on its own line. The outer opening tag is at times forgotten."""

import re

from dragoman.backends.markup.family import Family, Written, on_a_line
from dragoman.backends.markup.readers.either import Either
from dragoman.backends.markup.readers.json_calls import JsonCalls
from dragoman.backends.markup.readers.tagged_calls import TaggedCalls


def functions(section: str, *, by_line: bool = True, skipped: tuple[str, ...] = ()) -> TaggedCalls:
    """Calls of `<function=NAME>` and `<parameter=KEY>` within `<section>`. `by_line`: each tag on its own line."""
    return TaggedCalls(
        call_tag=re.compile(r"""\s*["']?([\w.:/-]+)["']?\s*>"""),
        parameter_opens=("<parameter=",),
        parameter_tag=re.compile(r"""<parameter=["']?(?P<key>[^>\n"']+)["']?>"""),
        value_ends=("</parameter>",),
        call_ends=("</function>",),
        section_opens=(f"<{section}>",),
        call_opens=("<function=",),
        section_ends=(f"</{section}>",),
        follows=(f"<{section}>",),
        skipped=skipped,
        trims=True,
        both_or_none=not by_line,
        by_line=by_line,
    )


_FORM = functions("tool_call", skipped=("</function_invocation>",))  # which Qwen 3.6 writes at times (Qwen3.8#178)
_SECTION = Either(JsonCalls(("</tool_call>",)), _FORM, begins=("{", "["))

FAMILY = Family(
    "qwen3_coder",
    "Qwen3-Coder, Qwen 3.5, Nemotron 3, StepFun 3.5 and 3.7, MiMo v2",
    openers=on_a_line({"<tool_call>": _SECTION, "<function=": _FORM}),
    breaks=True,
    signs=(("<tool_call>", "<function=", "<parameter="), ("<function=", "<parameter=")),
    names=("qwen3-coder", "qwen3.5", "nemotron-3", "mimo-v2"),
    written=Written("<tool_call>\n<function=", ">\n", "\n</function>\n</tool_call>", separator="\n", style="qwen_xml"),
    markup="`<tool_call><function=NAME><parameter=KEY>…</parameter></function></tool_call>`",
    field="reasoning_content",
    recovers="forgotten tags of either end; values by their types; JSON instead of tags",
)
