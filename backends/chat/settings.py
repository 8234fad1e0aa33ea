"""What an OpenAI-compatible chat server can do and wants, as named settings with one line of explanation each.

A preset is a server family's answers to these questions; an operator may override every one of them, and nothing is
guessed from a URL. They are flat for the operator; the code takes the part that it reads: `Rendering` (of
`backends.prompts`), `Wire` or `Probing`. The documentation's table is made from the field descriptions. The vendor,
thread or version that forced a tolerance stands beside the preset that has it. Tolerance in *reading* answers is
unconditional: it lives in the decoder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from dragoman.backends.numeric_fields import NumericFields
from dragoman.backends.prompts.rendering import STRICT, Rendering, checked
from dragoman.translators.errors import GatewayError, Kind

# The fields of `ir.Sampling`, under which every server's own name is looked up.
COMMON = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "stop"})
ENGINE = frozenset(
    {"top_k", "min_p", "repetition_penalty", "min_tokens", "ignore_eos", "skip_special_tokens"}
    | {"include_stop_str_in_output", "logit_bias"}
)
KNOWN_PARAMETERS = COMMON | ENGINE | {"logprobs", "parallel_tool_calls"}


class Wording(NumericFields):
    """How the server words its refusals, whatever it was asked."""

    model_config = STRICT

    overflow_patterns: tuple[str, ...] = Field(
        (),
        description="More regular expressions for overflow wordings, with optional groups tokens and limit.",
    )

    @field_validator("overflow_patterns")
    @classmethod
    def _compiles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return value


class Wire(Wording):
    """What requests to a chat server and its answers look like, beside the conversation."""

    # ---- parameters
    parameters: frozenset[str] = Field(
        COMMON | {"logit_bias", "logprobs", "parallel_tool_calls"},
        description="Optional parameters that the server accepts; others are dropped visibly.",
    )
    parameter_names: Mapping[str, str] = Field(
        {}, description="Parameters that this server knows by another name: ours to its own."
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="The name of the answer's token limit; never both, trtllm-serve refuses that."
    )
    max_tokens_default: int | None = Field(
        None,
        ge=1,
        description="Limit sent when the client names none; null omits it, right where the server takes the room left.",
    )
    clamp_max_tokens: bool = Field(
        True,
        description="When prompt and limit do not fit together but the prompt alone does, ask again with the rest.",
    )

    # ---- thinking
    thinking: Literal["reasoning_effort", "enable_thinking", "none"] = Field(
        "reasoning_effort",
        description="How effort is asked for: reasoning_effort, or chat_template_kwargs.enable_thinking.",
    )
    efforts: tuple[str, ...] = Field(
        ("none", "low", "medium", "high"),
        description="Values of reasoning_effort that the server takes; others become the nearest.",
    )
    chat_template_kwargs: bool = Field(
        False, description="Whether requests may carry the client's own variables for the chat template."
    )
    thinking_budget_field: str | None = Field(
        None, description="Parameter that limits the tokens of reasoning; null where the server has none."
    )

    # ---- tools and formats
    tools: Literal["native", "forced_only"] = Field(
        "native",
        description="forced_only: the model's template ignores tools; only a forced call can be had, by emulation.",
    )
    force_tool: Literal["native", "required", "schema", "prompt"] = Field(
        "native",
        description="How tool_choice required or a named tool is made true: the server's own way; only required, one "
        "tool sent for a named one; constrained decoding of a call as JSON; a prompt with one retry.",
    )
    json_schema: Literal["enforced", "prompt"] = Field(
        "enforced",
        description="Whether response_format constrains decoding; prompt: instruction, validation, one retry. So it is "
        "beside tools that may be called, too, which a constraint would forbid; the retry is then constrained.",
    )
    schema_shape: Literal["openai", "flat"] = Field(
        "openai", description="response_format with the schema in json_schema.schema (openai) or in schema (flat)."
    )
    guided: Literal["structured_outputs", "guided", "sglang", "response_format", "grammar", "none"] = Field(
        "none",
        description="How an answer is held to a choice, a regular expression or a grammar: structured_outputs (vLLM "
        "from 0.11), guided_choice and its like (before), regex and ebnf (SGLang), types of response_format "
        "(trtllm-serve), grammar (llama.cpp, no regular expressions); none: such requests are refused.",
    )
    structural_tags: Literal["structured_outputs", "response_format", "none"] = Field(
        "none",
        description="With markup: how a forced call is held to the model's own markup, and a strict tool to its "
        "schema, by xgrammar's structural tags: in structured_outputs (vLLM from 0.11), in response_format "
        "(trtllm-serve from 1.2). Where the server refuses them, and with none, force_tool holds.",
    )
    markup_prompt: str = Field(
        "",
        description="With markup: what the server's template ends its prompt with, where that opens the reasoning "
        "(`<think>`).",
    )

    # ---- prefill
    continue_final_message: bool = Field(
        False,
        description="Whether the server goes on with a last assistant message (continue_final_message); otherwise that "
        "is sent as a turn of its own and noted.",
    )

    last_assistant: Literal["turn", "continued"] = Field(
        "turn",
        description="What the server takes a last assistant message for, unasked. turn: one like any other; continued: "
        "the beginning of its answer, which it refuses where the model thinks. Then thinking is off for a prefill, and "
        "any other such message is followed by one of the user's.",
    )

    # ---- the end
    trust_done: bool = Field(
        False,
        description="Whether [DONE] ends an answer that has no finish reason; only for servers that never send one, "
        "since a stream that was cut by a proxy may look the same.",
    )

    completes_cut_calls: bool = Field(
        False,
        description="Whether the server completes the JSON of a call that the token limit cuts; then the last call of "
        "such an answer counts as cut, whatever it looks like, and its last bracket is left out.",
    )

    # ---- answers in one piece
    whole_answers: Literal["never", "text", "always"] = Field(
        "never",
        description="Which answers that the client takes in one piece are asked for so (stream: false): those to "
        "requests without tools (text), or with tools too (always). For servers that stop when such a request's "
        "connection closes, and say in a whole answer what they say in a stream. Never with markup, log probabilities, "
        "parallel_tool_calls false or a constraint that the gateway enforces: these need the stream. Nor without a "
        "limit of tokens, or with one that a slow server (ten tokens a second) does not reach within "
        "`timeouts.first_event`: only a stream shows that it is still at work.",
    )

    # ---- usage
    usage: Literal["include_usage", "always", "none"] = Field(
        "include_usage", description="How usage comes in a stream: when asked for, unasked, or never."
    )
    continuous_usage: bool = Field(
        False, description="Whether usage can come with every chunk; asked for only where a stream may be ended early."
    )

    prompt_progress: bool = Field(
        False,
        description="Whether the server says, when asked (return_progress), how far it is with a prompt; for the log.",
    )

    # ---- connections
    affinity_header: str | None = Field(
        "x-session-affinity",
        description="Header that names the request's session to an endpoint picker before the server; null: none.",
    )
    http_client: Literal["direct", "aiohttp"] = Field(
        "direct",
        description="What reads the answers: direct hands on what the server sends at once; aiohttp does it through a "
        "task, to compare with.",
    )
    fresh_connection: bool = Field(False, description="A new connection for every stream.")
    retry_stale: bool = Field(
        True,
        description="Ask once more when a reused connection dies without a byte, a parameter is refused by name, or "
        "the order of the roles, the ids of calls or a tool's schema is refused; these are then as with turns: "
        "alternate, system_messages: user, call_ids: short and tool_schemas: plain.",
    )

    @field_validator("parameters")
    @classmethod
    def _known(cls, value: frozenset[str]) -> frozenset[str]:
        if unknown := sorted(value - KNOWN_PARAMETERS):
            raise ValueError(
                f"unknown parameters {', '.join(unknown)}; known are {', '.join(sorted(KNOWN_PARAMETERS))}"
            )
        return value

    @field_validator("affinity_header")
    @classmethod
    def _header(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9-]+", value):
            raise ValueError("must be the name of a header")
        return value


class Probing(Wording):
    """What can be asked of the server apart from answers."""

    health_path: str | None = Field(None, description="GET path below the server's root that is 200 when it can serve.")
    sleep_path: str | None = Field(None, description="GET path that says whether the engine sleeps (vLLM, LMDeploy).")
    wake_call: str | None = Field(
        None, description="Method and path below the server's root that wake a sleeping engine, as `POST /wake_up`."
    )
    tokenizer: str | None = Field(
        None,
        description="Folder with the model's tokenizer.json and chat template, to count prompts where no server does "
        "(extra `tokenizer`).",
    )
    tokenize: Literal["none", "vllm", "trtllm-serve", "llama.cpp"] = Field(
        "none", description="How the server counts a rendered prompt, whose endpoints these are."
    )

    @field_validator("wake_call")
    @classmethod
    def _callable(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(GET|POST|PUT) /\S*", value):
            raise ValueError("must be a method and a path, such as `POST /wake_up`")
        return value


class Settings(Probing, Wire, Rendering):
    """All of them, flat, as an operator writes them. The defaults are the preset `generic`: a careful client of a
    server of which nothing is known."""

    preset: str = Field("generic", description="Name of the preset these settings started from; a label only.")


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "generic": {},
    "trtllm-serve": {
        "parameters": KNOWN_PARAMETERS,  # parallel_tool_calls only in the newest; refused by older ones
        "reasoning_field": "reasoning_content",  # 1.x knows only this one, the newest takes both
        "efforts": ("none", "low", "medium", "high", "max"),
        "chat_template_kwargs": True,
        "guided": "response_format",
        "structural_tags": "response_format",  # from 1.2; older ones refuse them
        "thinking_budget_field": "thinking_token_budget",
        "force_tool": "schema",  # 400 "tool_choice='required' is not supported for this model."; named is unconstrained
        "strict_tools": True,  # structural tags
        "continuous_usage": True,
        "whole_answers": "text",  # looks once a second whether the client is still there, for them as for streams
        "health_path": "/health",  # 503 "LLM is unavailable"
        "tokenize": "trtllm-serve",
    },
    "triton-openai": {
        # extra="forbid"; logit_bias is refused, logprobs only for its vLLM backend
        "parameters": COMMON | {"min_tokens", "ignore_eos"},
        "max_tokens_default": 4096,  # --default-max-tokens is 16
        "system_messages": "user",  # llama3 and mistral, its tool parsers: templates with one system message
        "thinking": "none",
        "force_tool": "prompt",  # required is forced to the first tool
        "json_schema": "prompt",  # response_format is accepted and not applied
        "images": False,
        "health_path": "/health/ready",
    },
    "vllm": {
        "parameters": KNOWN_PARAMETERS,
        "chat_template_kwargs": True,
        "guided": "structured_outputs",
        "structural_tags": "structured_outputs",
        "reasoning_field": "reasoning",  # vllm#27752 renamed it; its input accepts both names
        "tool_choice_none": "send",
        "strict_tools": True,
        "continue_final_message": True,
        "continuous_usage": True,
        # no whole_answers: a thought that max_tokens cuts is content in them with the qwen3 parser (vllm#35221)
        "health_path": "/health",
        "wake_call": "POST /wake_up",
        "sleep_path": "/is_sleeping",  # only with VLLM_SERVER_DEV_MODE; 404 otherwise
        "tokenize": "vllm",
    },
    "sglang": {
        "parameters": KNOWN_PARAMETERS - {"include_stop_str_in_output"},  # its own switch is no_stop_trim
        "chat_template_kwargs": True,
        "guided": "sglang",
        "reasoning_field": "reasoning_content",
        "strict_tools": True,
        "continue_final_message": True,
        "continuous_usage": True,
        "completes_cut_calls": True,  # sends what its parser has not yet sent of the arguments, and closes them
        "whole_answers": "text",  # looks every four seconds whether the client is still there
        "health_path": "/health",
    },
    "lmdeploy": {
        "parameters": KNOWN_PARAMETERS,
        "parameter_names": {"min_tokens": "min_new_tokens"},
        "reasoning_field": "reasoning_content",
        "thinking": "enable_thinking",
        "chat_template_kwargs": True,
        "force_tool": "schema",  # required and named depend on the parser; its guided decoding does not
        # no whole_answers: until 2026 a cut thought was read otherwise in them (lmdeploy#3748)
        "health_path": "/health",
        "sleep_path": "/is_sleeping",
        "wake_call": "POST /wakeup",
    },
    "llama.cpp": {
        "parameters": COMMON
        | {"top_k", "min_p", "repetition_penalty", "ignore_eos", "logit_bias"}
        | {"logprobs", "parallel_tool_calls"},
        "parameter_names": {"repetition_penalty": "repeat_penalty"},
        "system_messages": "user",  # claude-code#77698: Qwen's and Gemma's templates refuse a later one
        "reasoning_field": "reasoning_content",
        "thinking": "enable_thinking",
        "chat_template_kwargs": True,
        "guided": "grammar",
        "thinking_budget_field": "reasoning_budget_tokens",
        "prompt_progress": True,
        "tool_schemas": "plain",  # 400 "failed to parse grammar", for one tool of many
        "last_assistant": "continued",  # opencode#27920: 400 "prefill is incompatible with enable_thinking"
        # no whole_answers: in 4 of 19 tries one whose client had left was generated to its end
        "force_tool": "required",  # a named choice is silently taken as auto (b11549)
        "health_path": "/health",  # 503 "Loading model"
        "tokenize": "llama.cpp",
        "fresh_connection": True,  # b10434, b11549: a connection reused after a stream is dropped at times with 0 bytes
    },
}


def resolve(preset: str = "generic", overrides: Mapping[str, Any] | None = None) -> Settings:
    """The preset's settings with the operator's on top; raises `GatewayError` INVALID, in one line, for a wrong one."""
    if preset not in PRESETS:
        raise GatewayError(Kind.INVALID, f"unknown preset {preset!r}; there are {', '.join(PRESETS)}", "preset")
    return checked(Settings, {**PRESETS[preset], "preset": preset, **(overrides or {})})
