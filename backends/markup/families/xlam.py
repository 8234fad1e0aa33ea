"""xLAM and others that write an array of JSON by itself: `[{"name": …, "arguments": {…}}]`, at times in a fence.

It is one of calls only where it begins the answer, or follows a thought, has no other members, and names declared
tools."""

from dragoman.backends.markup.family import Bare, Family, in_array
from dragoman.backends.markup.readers.json_calls import JsonCalls

FAMILY = Family(
    "xlam",
    "xLAM, ToolACE variants",
    bare=Bare(JsonCalls(fenced=True), begins=("[", "{", "```json")),
    names=("xlam",),
    written=in_array("[", "]"),
    markup='`[{"name": …, "arguments": {…}}]`',
    recovers="a fence; an object without its array; forgotten brackets",
)
