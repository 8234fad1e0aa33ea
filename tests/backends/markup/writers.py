"""Calls as the models of each family write them: what their templates print, written once more by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Arguments = Mapping[str, Any]
BAR, LINE = "\uff5c", "\u2581"
M3 = "]<]minimax[>["


def js(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def raw(value: Any) -> str:
    return value if isinstance(value, str) else js(value)


@dataclass(frozen=True)
class Writing:
    """Calls stand between `begin` and `end`, each as `call` writes it, with `between` between them. `bare`: they begin
    the answer and nothing may stand before them. `flat`: nested values carry no types. `forgets`: what models leave out
    at the end of a call."""

    call: Callable[[str, Arguments], str]
    begin: str = ""
    between: str = ""
    end: str = ""
    bare: bool = False
    flat: bool = False
    forgets: tuple[str, ...] = ()

    def write(self, *calls: tuple[str, Arguments]) -> str:
        return self.begin + self.between.join(self.call(*call) for call in calls) + self.end


def objects(name: str = "name", arguments: str = "arguments") -> Callable[[str, Arguments], str]:
    return lambda tool, given: f'{{"{name}": {js(tool)}, "{arguments}": {js(given)}}}'


def around(before: str, after: str, inner: Callable[[str, Arguments], str]) -> Callable[[str, Arguments], str]:
    return lambda tool, given: before + inner(tool, given) + after


def headed(before: str, separator: str, after: str) -> Callable[[str, Arguments], str]:
    return lambda tool, given: f"{before}{tool}{separator}{js(given)}{after}"


def tagged(
    call: tuple[str, str], parameter: tuple[str, str], line: str = "\n", trim: str = ""
) -> Callable[[str, Arguments], str]:
    """`{}` in the opening tags stands for the name."""

    def write(tool: str, given: Arguments) -> str:
        inner = "".join(
            f"{parameter[0].replace('{}', key)}{trim}{raw(value)}{trim}{parameter[1]}{line}"
            for key, value in given.items()
        )
        return f"{call[0].replace('{}', tool)}{line}{inner}{call[1]}"

    return write


def dsml(word: str, blank: str = "") -> Callable[[str, Arguments], str]:
    mark = f"{BAR}{word}{BAR}{blank}"

    def write(tool: str, given: Arguments) -> str:
        inner = "".join(
            f'<{mark}parameter name="{key}" string="{str(isinstance(value, str)).lower()}">{raw(value)}'
            f"</{mark}parameter>\n"
            for key, value in given.items()
        )
        return f'<{mark}invoke name="{tool}">\n{inner}</{mark}invoke>'

    return write


def python(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {python(item)}' for key, item in value.items())}}}"
    return f"[{', '.join(map(python, value))}]" if isinstance(value, list) else repr(value)


def python_call(tool: str, given: Arguments) -> str:
    return f"{tool}({', '.join(f'{key}={python(value)}' for key, value in given.items())})"


def braces(quote: str) -> Callable[[Any], str]:
    def write(value: Any) -> str:
        if isinstance(value, dict):
            return f"{{{','.join(f'{quote}{key}{quote}:{write(item)}' for key, item in value.items())}}}"
        if isinstance(value, list):
            return f"[{','.join(map(write, value))}]"
        return f"{quote}{value}{quote}" if isinstance(value, str) else js(value)

    return write


def brace_call(tool: str, given: Arguments) -> str:
    write = braces('<|"|>')
    members = ",".join(f"{key}:{write(value)}" for key, value in given.items())
    return f"<|tool_call>call:{tool}{{{members}}}<tool_call|>"


def escaped_call(tool: str, given: Arguments) -> str:
    members = ",".join(f"{key}:<escape>{raw(value)}<escape>" for key, value in given.items())
    return f"<start_function_call>call:{tool}{{{members}}}<end_function_call>"


def element(name: str, value: Any) -> str:
    if isinstance(value, dict):
        inner = "".join(element(key, item) for key, item in value.items())
    elif isinstance(value, list):
        inner = "".join(element("item", item) for item in value)
    else:
        inner = raw(value)
    return f"{M3}<{name}>{inner}{M3}</{name}>"


def element_call(tool: str, given: Arguments) -> str:
    inner = "".join(element(key, value) for key, value in given.items())
    return f'{M3}<invoke name="{tool}">{inner}{M3}</invoke>\n'


def channel_call(tool: str, given: Arguments) -> str:
    kinds = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
    inner = "".join(
        f'<|open|>argument key="{key}" type="{kinds.get(type(value), "null")}"<|sep|>{raw(value)}'
        "<|close|>argument<|sep|>"
        for key, value in given.items()
    )
    return f'<|open|>call tool="{tool}" index="1"<|sep|>{inner}<|close|>call<|sep|>'


def plamo(word: str) -> str:
    return f"<|plamo:{word}:plamo|>"


def pairs(opener: str, closer: str, key: str = "arg_key", value: str = "arg_value", after: str = "\n") -> Writing:
    written = tagged((f"{opener}{{}}", closer), (f"<{key}>{{}}</{key}>\n<{value}>", f"</{value}>"), after)
    return Writing(written, between="\n", forgets=(f"</{value}>\n{closer}", closer))


DSML = f"{BAR}DSML{BAR}"
ACTION = '{{"tool_call_id": "", "tool_name": {}, "parameters": {}}}'
ATTRIBUTES = tagged(('<invoke name="{}">', "</invoke>"), ('<parameter name="{}">', "</parameter>"))
ATEM = tagged(('<atem:invoke name="{}">', "</atem:invoke>"), ('<atem:parameter name="{}">', "</atem:parameter>"))
FUNCTIONS = tagged(("<function={}>", "</function>"), ("<parameter={}>", "</parameter>"), trim="\n")
STEP = tagged(
    ('<steptml:invoke name="{}">', "</steptml:invoke>"), ('<steptml:parameter name="{}">', "</steptml:parameter>")
)

WRITINGS: dict[str, Writing] = {
    "hermes": Writing(around("<tool_call>\n", "\n</tool_call>", objects()), between="\n", forgets=("\n</tool_call>",)),
    "ernie45": Writing(around("<tool_call>\n", "\n</tool_call>\n", objects()), forgets=("\n</tool_call>\n",)),
    "xlam": Writing(objects(), "[", ", ", "]", bare=True),
    "llama3": Writing(objects(arguments="parameters"), between="; ", bare=True, forgets=("}",)),
    "pythonic": Writing(python_call, "[", ", ", "]", bare=True, forgets=("]",)),
    "jamba": Writing(objects(), "<tool_calls>[", ", ", "]</tool_calls>", forgets=("]</tool_calls>", "</tool_calls>")),
    "granite": Writing(objects(), "<|tool_call|>[", ", ", "]", forgets=("]",)),
    "mistral": Writing(headed("[TOOL_CALLS]", "[ARGS]", "")),
    "nemotron": Writing(objects(), "<TOOLCALL>[", ", ", "]</TOOLCALL>", forgets=("]</TOOLCALL>", "</TOOLCALL>")),
    "qwen3_coder": Writing(
        around("<tool_call>\n", "\n</tool_call>", FUNCTIONS),
        between="\n",
        forgets=("\n</tool_call>", "\n</function>\n</tool_call>", "\n</parameter>\n</function>\n</tool_call>"),
    ),
    "glm": pairs("<tool_call>", "</tool_call>"),
    "deepseek": Writing(
        dsml("DSML"),
        f"\n\n<{DSML}tool_calls>\n",
        "\n",
        f"\n</{DSML}tool_calls>",
        forgets=(f"\n</{DSML}tool_calls>", f"</{DSML}invoke>\n</{DSML}tool_calls>"),
    ),
    "kimi_k2": Writing(
        headed("<|tool_call_begin|>functions.", ":7<|tool_call_argument_begin|>", "<|tool_call_end|>"),
        "<|tool_calls_section_begin|>",
        end="<|tool_calls_section_end|>",
        forgets=("<|tool_calls_section_end|>", "<|tool_call_end|><|tool_calls_section_end|>"),
    ),
    "harmony": Writing(
        headed("<|channel|>commentary to=functions.", " <|constrain|>json<|message|>", "<|call|>"),
        between="<|start|>assistant",
        forgets=("<|call|>",),
    ),
    "phi4_mini": Writing(objects(), "functools[", ", ", "]", forgets=("]",)),
    "seed_oss": Writing(
        tagged(("<function={}>", "</function>"), ("<parameter={}>", "</parameter>")),
        "<seed:tool_call>\n",
        "\n",
        "\n</seed:tool_call>",
        forgets=("\n</seed:tool_call>", "\n</function>\n</seed:tool_call>"),
    ),
    "minimax_m2": Writing(
        ATTRIBUTES,
        "<minimax:tool_call>\n",
        "\n",
        "\n</minimax:tool_call>",
        forgets=("\n</minimax:tool_call>", "\n</invoke>\n</minimax:tool_call>"),
    ),
    "minimax_m3": Writing(
        element_call, f"{M3}<tool_call>\n", end=f"{M3}</tool_call>", flat=True, forgets=(f"{M3}</tool_call>",)
    ),
    "gemma4": Writing(brace_call, forgets=("<tool_call|>", "}<tool_call|>")),
    "kimi_k3": Writing(
        channel_call,
        "<|open|>tools<|sep|>",
        end="<|close|>tools<|sep|><|close|>message<|sep|>",
        forgets=("<|close|>tools<|sep|><|close|>message<|sep|>",),
    ),
    "olmo3": Writing(python_call, "<function_calls>", "\n", "</function_calls>", forgets=("</function_calls>",)),
    "lfm2": Writing(
        python_call,
        "<|tool_call_start|>[",
        ", ",
        "]<|tool_call_end|>",
        forgets=("<|tool_call_end|>", "]<|tool_call_end|>"),
    ),
    "command": Writing(
        lambda tool, given: ACTION.format(js(tool), js(given)),
        "<|START_ACTION|>[\n    ",
        ",\n    ",
        "\n]<|END_ACTION|>",
        forgets=("<|END_ACTION|>", "\n]<|END_ACTION|>"),
    ),
    "command_r": Writing(
        lambda tool, given: f'    {{\n        "tool_name": {js(tool)},\n        "parameters": {js(given)}\n    }}',
        "Action: ```json\n[\n",
        ",\n",
        "\n]```",
        forgets=("```", "\n]```"),
    ),
    "apriel": Writing(objects(), "<tool_calls>[", ", ", "]</tool_calls>", forgets=("]</tool_calls>",)),
    "hunyuan": Writing(
        objects(), "<answer>\n<tool_calls>[", ", ", "]</tool_calls>\n</answer>", forgets=("]</tool_calls>\n</answer>",)
    ),
    "hy3": Writing(
        around(
            "",
            "",
            tagged(
                ("<tool_call:opensource>{}<tool_sep:opensource>", "</tool_call:opensource>\n"),
                (
                    "<arg_key:opensource>{}</arg_key:opensource>\n<arg_value:opensource>",
                    "</arg_value:opensource>",
                ),
            ),
        ),
        "<tool_calls:opensource>\n",
        end="</tool_calls:opensource>",
        forgets=("</tool_calls:opensource>",),
    ),
    "step3": Writing(
        around(f"<{BAR}tool_call_begin{BAR}>function<{BAR}tool_sep{BAR}>", f"<{BAR}tool_call_end{BAR}>", STEP),
        f"<{BAR}tool_calls_begin{BAR}>\n",
        "\n",
        f"\n<{BAR}tool_calls_end{BAR}>",
        forgets=(f"\n<{BAR}tool_calls_end{BAR}>",),
    ),
    "internlm2": Writing(
        around("<|action_start|><|plugin|>\n", "<|action_end|>", objects(arguments="parameters")),
        forgets=("<|action_end|>",),
    ),
    "inkling": Writing(
        around("<|content_invoke_tool_json|>", "<|end_message|>", objects(arguments="args")),
        between="<|message_model|>",
        forgets=("<|end_message|>",),
    ),
    "telechat4": pairs("<tool_call>", "</tool_call>", "param_key", "param_value", ""),
    "apertus": Writing(
        lambda tool, given: js({tool: given}),
        "<|tools_prefix|>[",
        ", ",
        "]<|tools_suffix|>",
        forgets=("<|tools_suffix|>", "]<|tools_suffix|>"),
    ),
    "gigachat": Writing(around("<|function_call|>", "", objects()), forgets=("}",)),
    "functiongemma": Writing(escaped_call, forgets=("<end_function_call>",)),
    "solar": Writing(
        headed("<|tool_call:begin|><|tool_call:name|>", "<|tool_call:args|>", "<|tool_call:end|>"),
        "<|tool_calls|>",
        end="<|calls|>",
        forgets=("<|calls|>", "<|tool_call:end|><|calls|>"),
    ),
    "solar_open2": Writing(
        tagged(
            ("<|tool_call:start|>{}", "<|tool_call:end|>"),
            ("<|tool_arg:start|>{}<|tool_arg:value|>", "<|tool_arg:end|>"),
        ),
        between="\n",
        forgets=("<|tool_call:end|>", "<|tool_arg:end|>\n<|tool_call:end|>"),
    ),
    "minicpm5": Writing(
        tagged(('<function name="{}">', "</function>"), ('<param name="{}">', "</param>"), ""),
        between="\n",
        forgets=("</function>",),
    ),
    "longcat": Writing(
        around("<longcat_tool_call>\n", "\n</longcat_tool_call>", objects()),
        between="\n",
        forgets=("\n</longcat_tool_call>",),
    ),
    "dots": Writing(
        ATTRIBUTES, "<dots_function_call>\n", "\n", "\n</dots_function_call>", forgets=("\n</dots_function_call>",)
    ),
    "muse_glimmer": Writing(
        lambda tool, given: f"<|start|>assistant to={tool}<|message|><atem:function_calls>\n{ATEM(tool, given)}",
        between="\n</atem:function_calls><|eom|>",
        end="\n</atem:function_calls><|eot|>",
        forgets=("<|eot|>", "\n</atem:function_calls><|eot|>"),
    ),
    "plamo3": Writing(
        headed(
            f"{plamo('begin_tool_request')}{plamo('begin_tool_name')}",
            f"{plamo('end_tool_name')}{plamo('begin_tool_arguments')}<|plamo:constrain|>json<|plamo:msg|>",
            f"{plamo('end_tool_arguments')}{plamo('end_tool_request')}",
        ),
        plamo("begin_tool_requests"),
        end=plamo("end_tool_requests"),
        forgets=(plamo("end_tool_requests"), f"{plamo('end_tool_request')}{plamo('end_tool_requests')}"),
    ),
    "mirothinker": Writing(
        headed(
            "<use_mcp_tool>\n<server_name>tools</server_name>\n<tool_name>",
            "</tool_name>\n<arguments>\n",
            "\n</arguments>\n</use_mcp_tool>",
        ),
        between="\n",
        forgets=("\n</use_mcp_tool>", "\n</arguments>\n</use_mcp_tool>"),
    ),
    "functionary": Writing(headed(">>>", "\n", ""), forgets=("}",)),
    "iquest": pairs("<iquest_tool_call>", "</iquest_tool_call>"),
    "k2_horizon": Writing(
        tagged(
            ("<ifm|tool_call>{}", "</ifm|tool_call>"),
            ("<ifm|arg_key>{}</ifm|arg_key>\n<ifm|arg_value>", "</ifm|arg_value>"),
        ),
        "<ifm|tool_calls>\n",
        "\n",
        "\n</ifm|tool_calls>",
        forgets=("\n</ifm|tool_calls>", "</ifm|tool_call>\n</ifm|tool_calls>"),
    ),
}
