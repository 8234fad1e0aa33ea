"""MiroThinker: `<use_mcp_tool>`, and in it `<server_name>SERVER</server_name>`, `<tool_name>NAME</tool_name>` and the
JSON between `<arguments>` and `</arguments>`. Its template names Qwen's `<tool_call>` too."""

import re

from dragoman.backends.markup.family import Family, Written, on_a_line
from dragoman.backends.markup.readers.headed_calls import HeadedCalls

_CALL, _SERVER, _ARGUMENTS = "<use_mcp_tool>", "<server_name>", "<arguments>"
_FORM = HeadedCalls(
    header=re.compile(rf"(?:(?:{_SERVER})?[^<]*</server_name>\s*)?<tool_name>\s*(?P<name>[\w.:/-]+)\s*</tool_name>"),
    separator=_ARGUMENTS,
    again=(_CALL, _SERVER),
    closers=("</arguments>", "</use_mcp_tool>"),
)

FAMILY = Family(
    "mirothinker",
    "MiroThinker",
    openers=on_a_line({_CALL: _FORM}),
    breaks=True,
    signs=((_CALL,),),
    names=("mirothinker",),
    written=Written(
        f"{_CALL}\n{_SERVER}tools</server_name>\n<tool_name>",
        f"</tool_name>\n{_ARGUMENTS}\n",
        "\n</arguments>\n</use_mcp_tool>",
        separator="\n",
    ),
    markup="`<use_mcp_tool>`, then `<server_name>`, `<tool_name>` and JSON in `<arguments>`",
    recovers="forgotten closing tags; a missing server; several calls in one section",
)
