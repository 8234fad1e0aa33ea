"""xLAM and others that write an array of JSON by itself: `[{"name": …, "arguments": {…}}]`, at times in a fence, which
may follow text, or after a tag of other models.

Without a tag it is one of calls only where it begins the answer, or follows a thought, or stands in a fence, has no
other members, and names declared tools."""

from dragoman.backends.markup.family import Bare, Family, in_array, on_a_line
from dragoman.backends.markup.readers.json_calls import JsonCalls

_FENCED = JsonCalls(("```",), declared=True)

FAMILY = Family(
    "xlam",
    "xLAM, ToolACE variants",
    openers={
        **on_a_line({"<tool_call>": JsonCalls(("</tool_call>",))}),
        "[TOOL_CALLS]": JsonCalls(),
        "\n```json\n[": _FENCED,
        "\n```\n[": _FENCED,
    },
    bare=Bare(JsonCalls(fenced=True), begins=("[", "{", "```json")),
    names=("xlam",),
    written=in_array("[", "]"),
    markup='`[{"name": …, "arguments": {…}}]`',
    recovers="a fence; tags of other models; an object without its array; forgotten brackets",
)
