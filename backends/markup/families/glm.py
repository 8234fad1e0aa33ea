"""GLM 4.5 and later: `<tool_call>NAME`, for each parameter `<arg_key>KEY</arg_key>` and `<arg_value>VALUE</arg_value>`,
and `</tool_call>`; 4.5 and 4.6 write newlines between the tags, 4.7 none."""

import re

from dragoman.backends.markup.family import Family, Written, on_a_line
from dragoman.backends.markup.readers.either import Either
from dragoman.backends.markup.readers.json_calls import JsonCalls
from dragoman.backends.markup.readers.tagged_calls import TaggedCalls


def keyed(
    opener: str = "<tool_call>",
    closer: str = "</tool_call>",
    *,
    key: tuple[str, str] = ("<arg_key>", "</arg_key>"),
    value: tuple[str, str] = ("<arg_value>", "</arg_value>"),
    sections: tuple[tuple[str, str], ...] = (),
    skipped: tuple[str, ...] = (),
    body: bool = False,
    type_tag: tuple[str, str] | None = None,
) -> TaggedCalls:
    """Calls of a bare name and pairs of keys and values, each in its own tag."""
    return TaggedCalls(
        parameter_opens=(key[0],),
        parameter_tag=re.compile(rf"{re.escape(key[0])}(?P<key>[^<]*){re.escape(key[1])}"),
        parameter_tag_end=key[1],
        key_end=key[1],
        value_opens=(value[0],),
        value_ends=(value[1],),
        call_ends=(closer,),
        call_opens=(opener,) if sections else (),
        section_opens=tuple(begin for begin, _ in sections),
        section_ends=tuple(end for _, end in sections),
        follows=() if sections else (opener,),
        skipped=skipped,
        body=body,
        type_tag=type_tag,
    )


FAMILY = Family(
    "glm",
    "GLM 4.5 to 5.3, Ling 3, Laguna, Spark 2.5 and 3, HyperCLOVA X SEED Think",
    openers=on_a_line({"<tool_call>": Either(JsonCalls(("</tool_call>",)), keyed(body=True), begins=("{",))}),
    breaks=True,
    ends=(
        "<|user|>",
        "<|observation|>",
        "<|endoftext|>",
        "<|role_end|>",
        "</assistant>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    ),
    signs=(("<tool_call>", "<arg_key>"), ("<arg_key>",)),
    names=("glm-4", "glm-5", "ling-3"),
    written=Written("<tool_call>", "", "</tool_call>", separator="\n", style="glm_xml"),
    markup="`<tool_call>NAME<arg_key>…</arg_key><arg_value>…</arg_value></tool_call>`",
    field="reasoning_content",
    recovers="forgotten tags of either end; values by their types; JSON instead of parameters or of all",
)
