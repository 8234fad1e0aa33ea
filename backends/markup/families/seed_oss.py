"""Seed-OSS: Qwen3-Coder's grammar in `<seed:tool_call>`, values without newlines; thoughts in `<seed:think>`."""

from dragoman.backends.markup.families.qwen3_coder import functions
from dragoman.backends.markup.family import Family, Written, on_a_line

FAMILY = Family(
    "seed_oss",
    "Seed-OSS",
    openers=on_a_line({"<seed:tool_call>": functions("seed:tool_call", by_line=False)}),
    breaks=True,
    thinking={"<seed:think>": "</seed:think>"},
    ends=("<seed:eos>",),
    signs=(("<seed:tool_call>",),),
    names=("seed-oss",),
    written=Written(
        "<function=", ">\n", "\n</function>\n", "<seed:tool_call>\n", "</seed:tool_call>", style="qwen_xml"
    ),
    markup="`<seed:tool_call><function=NAME><parameter=KEY>…`",
    field="reasoning_content",
    recovers="forgotten closing tags; values by their types",
)
