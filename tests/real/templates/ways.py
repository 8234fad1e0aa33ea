"""How else a conversation is put to a template that cannot take it as it is: where we differ from transformers.

What differs is never the rendering, only what is rendered: for each template of the table our prompt is, byte for byte,
what transformers makes of the conversation as changed here. Written apart from the code that it checks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    messages: list[Json]
    tools: list[Json] | None
    nulls: bool = False


Way = Callable[[Case], Case]


def each_turn(case: Case, change: Callable[[Json], Sequence[Json]]) -> Case:
    """Changes the turns that hold calls."""
    messages = [
        new for message in case.messages for new in (change(message) if message.get("tool_calls") else [message])
    ]
    return replace(case, messages=messages)


def tools_are_a_list(case: Case) -> Case:
    """It loops over tools without asking whether there are any: an empty list where transformers fails."""
    return replace(case, tools=case.tools or [])


def text_goes_first(case: Case) -> Case:
    """It prints the calls of a turn and drops the text beside them."""

    def change(message: Json) -> Sequence[Json]:
        if not message.get("content"):
            return [message]
        return [{"role": "assistant", "content": message["content"]}, message | {"content": None}]

    return each_turn(case, change)


def text_goes_before_a_thought(case: Case) -> Case:
    """It refuses text and thought beside calls."""

    def change(message: Json) -> Sequence[Json]:
        if not message.get("content") or not message.get("thinking"):
            return [message]
        return [{"role": "assistant", "content": message["content"]}, message | {"content": None}]

    return each_turn(case, change)


def one_call_a_turn(case: Case) -> Case:
    """It prints the first call alone, or refuses a second: each call with its result."""
    messages: list[Json] = []
    results = {message["tool_call_id"]: message for message in case.messages if message["role"] == "tool"}
    for message in case.messages:
        calls = message.get("tool_calls", [])
        if message["role"] == "tool":
            continue
        if not calls:
            messages.append(message)
        for at, call in enumerate(calls):
            told = message if at == 0 else {"role": "assistant"}
            messages += [told | {"tool_calls": [call]}, results[call["id"]]]
    return replace(case, messages=messages)


def arguments_are_text(case: Case) -> Case:
    """It prints strings as they are: so the model's own bytes go back, where an object is escaped, spaced otherwise,
    or Python's repr."""

    def change(message: Json) -> Sequence[Json]:
        calls = [
            call | {"function": call["function"] | {"arguments": written(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
        return [message | {"tool_calls": calls}]

    return each_turn(case, change)


def thoughts_are_blocks(case: Case) -> Case:
    """It takes thoughts as blocks of the content."""
    messages: list[Json] = []
    for message in case.messages:
        if thought := message.get("thinking"):
            text = [{"type": "text", "text": message["content"]}] if message["content"] else []
            message = message | {"content": [{"type": "thinking", "thinking": thought}, *text]}
        messages.append(message)
    return replace(case, messages=messages)


def content_is_empty(case: Case) -> Case:
    """It fails where a turn with calls has no content."""
    return each_turn(case, lambda message: [message | {"content": message.get("content") or ""}])


def content_is_null(case: Case) -> Case:
    """It prints calls only where content is null, which transformers leaves out since version 5."""
    return replace(case, nulls=True)


def spoken(write: Callable[[list[Json]], str]) -> Way:
    """It prints no calls: they go in as text, in the model's own markup where the template tells it."""

    def change(message: Json) -> Sequence[Json]:
        functions = [call["function"] for call in message["tool_calls"]]
        texts = [message["content"]] if message.get("content") else []
        rest = {name: value for name, value in message.items() if name != "tool_calls"}
        return [rest | {"content": "\n".join([*texts, write(functions)])}]

    return lambda case: each_turn(case, change)


def written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def named(function: Json) -> Json:
    return {"name": function["name"], "arguments": function["arguments"]}


def pairs(function: Json) -> str:
    tags = "".join(
        f"<arg_key>{name}</arg_key>\n<arg_value>{value if isinstance(value, str) else written(value)}</arg_value>\n"
        for name, value in function["arguments"].items()
    )
    return f"<tool_call>{function['name']}\n{tags}</tool_call>"


def keywords(function: Json) -> str:
    return f"{function['name']}({', '.join(f'{name}={value!r}' for name, value in function['arguments'].items())})"


AS_JSON = spoken(lambda functions: "\n".join(written(named(function)) for function in functions))
AS_LFM2 = spoken(
    lambda functions: f"<|tool_call_start|>[{', '.join(keywords(each) for each in functions)}]<|tool_call_end|>"
)
AS_GLM = spoken(lambda functions: "\n".join(map(pairs, functions)))
AS_GRANITE = spoken(lambda functions: "<|tool_call|>" + written([named(function) for function in functions]))

WAYS: dict[str, tuple[Way, ...]] = {
    "Cohere2MoE": (text_goes_first,),
    "CohereForAI-c4ai-command-r-plus-tool_use": (tools_are_a_list,),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": (text_goes_first,),
    "GigaChat3-10B-A1.8B": (one_call_a_turn,),
    "GigaChat3.1-10B-A1.8B": (one_call_a_turn,),
    "HuggingFaceTB-SmolLM3-3B": (AS_JSON,),
    "LFM2-8B-A1B": (AS_LFM2,),
    "LFM2.5-Instruct": (AS_LFM2,),
    "MiniMax-M1": (text_goes_first,),
    "Mistral-Small-3.2-24B-Instruct-2506": (text_goes_first,),
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": (tools_are_a_list, text_goes_first),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": (tools_are_a_list, text_goes_first),
    "Qwen-QwQ-32B": (content_is_empty,),
    "Qwen-Qwen3-0.6B": (content_is_empty,),
    "Reka-Edge": (arguments_are_text,),
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": (text_goes_first, arguments_are_text, content_is_null),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": (content_is_null,),
    "ibm-granite-granite-3.3-2B-Instruct": (AS_GRANITE,),
    "llama-cpp-rwkv-world": (AS_JSON,),
    "meetkai-functionary-medium-v3.2": (arguments_are_text,),
    "meta-llama-Llama-3.1-8B-Instruct": (one_call_a_turn, text_goes_first),
    "meta-llama-Llama-3.2-3B-Instruct": (one_call_a_turn, text_goes_first),
    "meta-llama-Llama-3.3-70B-Instruct": (one_call_a_turn, text_goes_first),
    "microsoft-Phi-3.5-mini-instruct": (AS_JSON,),
    "mistralai-Mistral-Nemo-Instruct-2407": (text_goes_first,),
    "mistralai-Ministral-3-14B-Reasoning-2512": (thoughts_are_blocks,),
    "muse-glimmer": (text_goes_first,),
    "openai-gpt-oss-120b": (one_call_a_turn, text_goes_before_a_thought),
    "tokenizer-deepseek_v3 default": (text_goes_first, arguments_are_text, content_is_null),
    "tokenizer-llama3_1 default": (AS_JSON,),
    "tokenizer-qwen3 default": (content_is_empty,),
    "template_alpaca": (AS_JSON,),
    "template_chatglm": (AS_JSON,),
    "template_chatglm2": (AS_JSON,),
    "template_chatml": (AS_JSON,),
    "template_falcon": (AS_JSON,),
    "template_falcon_180b": (AS_JSON,),
    "template_inkbot": (AS_JSON,),
    "template_teleflm": (AS_JSON,),
    "tool_chat_template_deepseekr1": (content_is_empty,),
    "tool_chat_template_deepseekv3": (content_is_null,),
    "tool_chat_template_deepseekv31": (content_is_null,),
    "tool_chat_template_functiongemma": (tools_are_a_list, text_goes_first),
    "tool_chat_template_glm4": (AS_GLM,),
    "tool_chat_template_granite": (text_goes_first,),
    "tool_chat_template_hermes": (text_goes_first,),
    "tool_chat_template_llama3.1_json": (one_call_a_turn, text_goes_first),
    "tool_chat_template_llama3.2_json": (one_call_a_turn, text_goes_first),
    "tool_chat_template_llama3.2_pythonic": (text_goes_first,),
    "tool_chat_template_mistral": (text_goes_first,),
    "tool_chat_template_mistral3": (text_goes_first,),
    "tool_chat_template_mistral_parallel": (text_goes_first,),
    "tool_chat_template_muse_glimmer": (text_goes_first,),
    "tool_chat_template_phi4_mini": (text_goes_first, arguments_are_text),
    "tool_chat_template_toolace": (text_goes_first,),
    "tool_chat_template_xlam_llama": (text_goes_first,),
    "tool_chat_template_xlam_qwen": (text_goes_first,),
    "unsloth-mistral-Devstral-Small-2507": (content_is_empty,),
    "upstage-Solar-Open-100B": (text_goes_first,),
}
