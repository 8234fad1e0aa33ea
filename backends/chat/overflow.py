"""What servers say of a request that does not fit the model's context window, and the numbers in it.

Servers write this in dozens of wordings, and another one with each version. Nearly all say that something exceeds a
limit, and name the limit: that is the rule, and what follows it are the wordings that do neither. A length that is no
context window's, such as that of a tool's name, is no such limit.

All patterns are linear: what repeats is bounded, and a number is tried at its first digit only.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from dragoman.backends.refusal import Words, found
from dragoman.backends.usage import count

_N = r"(?<!\d)(\d{1,16})(?!\d)"
_EXCEEDS = (
    r"(?:exceed(?:s|ed|ing)?|(?:longer|larger|greater|bigger|more|higher) than|too (?:long|large|big) for"
    r"|must (?:be|have) (?:<=?|smaller|less|shorter|fewer|lower|at most))"
)
_WINDOW = (
    r"(?:context[ _](?:length|size|window|limit)"
    r"|max(?:imum)?[ _](?:allowed )?(?:model|seq(?:uence)?|input|prompt|token)[ _]?len(?:gth)?"
    r"|(?:model|tokenizer's) (?:max|input) length"
    r"|maximum allowed length \(\d{1,16} tokens|max_num_tokens|session_len|\bn_ctx\b)"
)
_OVERFLOW = re.compile(
    rf"{_EXCEEDS}[^.;:\n]{{0,40}}{_WINDOW}|n_keep.{{1,24}}>= ?n_ctx"
    # in the order of context and verb
    r"|context[ _](?:(?:length|size|window)[ _])?(?:(?:has been|was|is) )?"
    r"(?:exceeded|exceeds (?:the )?limit|overflow|full)"
    r"|maximum context length|maximum prompt length is|context length (?:is|of) only|(?:prompt|input) (?:is )?too long"
    r"|default_max_tokens`? (?:\(-?\d+\) must be greater than 0|is illegal)"  # trtllm-serve
    r"|`inputs` (?:tokens \+ `max_new_tokens` must be|must have less than)"  # TGI
    r"|exceeds the KV (?:cache|memory)"  # SGLang
    r"|prompt sequence length is greater than"  # mistral.rs
    r"|exceeded model token limit|input token count (?:\(\d{1,16}\) )?exceeds"
    r"|reduce the length of the (?:input|messages|prompt)"
    r"|input length and `max_tokens` exceed context limit",
    re.IGNORECASE,
)
# The size of the prompt alone: where a wording has several numbers, the group is around that one.
_TOKENS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"prompt length \({_N}(?:\.\d{{1,16}})?\)",  # trtllm-serve; the query length beside it is added
        rf"\({_N} in (?:the|your) (?:messages|prompt)",  # OpenAI, older vLLM
        rf"{_N} tokens? from the input",  # SGLang
        rf"(?:messages resulted in|request has|passed|given:?) {_N} (?:input |`inputs` )?tokens",  # vLLM, TGI
        rf"must have less than \d{{1,16}} tokens\. Given: {_N}",  # TGI
        rf"(?:prompt|request) contains (?:at least )?{_N} (?:input )?tokens",  # vLLM
        rf"input(?: length)? \({_N} tokens\)",  # SGLang
        rf"=> {_N} >= \d",  # SGLang, with images
        rf"max length \({_N} > \d",  # MAX
        rf"received {_N} tokens, but the maximum input",  # Ray Serve
        rf"requested tokens \({_N}\) exceed",  # llama-cpp-python
        rf"prompt (?:has|tokens:) {_N}\b",  # MLC, OpenVINO
        rf"request \({_N} tokens\)",  # llama.cpp
        rf"keep the first {_N} tokens",  # LM Studio
        rf"prompt \(length {_N}\)",  # vLLM's engine
        rf"prompt_token_ids` length \({_N}\)",  # trtllm-serve
        rf"prompt is too long: {_N} tokens",
        rf"context limit: {_N} \+ \d+ > \d+",
        rf"splited_prompt_len` \({_N}\)",  # trtllm-serve from 1.3; before, another length was added
        rf"(?:prompt_tokens|input[_ ](?:tokens|len(?:gth)?|token count)|prompt length|n_keep)\W{{1,4}}{_N}",
    )
]
_AT_LEAST = re.compile(r"contains at least \d{1,16} input tokens", re.IGNORECASE)  # vLLM stops to count there
_QUERY = re.compile(rf"query length \({_N}(?:\.\d{{1,16}})?\)", re.IGNORECASE)
_TRT_SUM = re.compile(rf"splited_prompt_len` \({_N}\).{{0,80}}?query_token_len` \({_N}\)", re.DOTALL)
_LIMIT = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"max_seq_len`? \(?{_N}",
        rf"max_(?:num_tokens|input_len) \({_N}\)",
        rf"maximum context length (?:is|of) {_N}",
        rf"context length (?:is|of) only {_N}",
        rf"context length \({_N}\b",
        rf"maximum (?:allowed )?(?:(?:model|input|prompt|sequence) )?length (?:is |of |\(){_N}",
        rf"{_N} maximum context length",
        rf"context (?:size|window) (?:of |\(){_N}",
        rf"(?:model|tokenizer's) (?:max|input) length(?: limit|:| \(\d{{1,16}} >) {_N}",
        rf"sequence length is greater than {_N}",
        rf"maximum number of tokens allowed \(?{_N}",
        rf"`inputs` must have less than {_N} tokens",
        rf"max_new_tokens` must be <= {_N}",
        rf"tokens > {_N} maximum",
        rf"=> \d{{1,16}} >= {_N}",
        rf"context limit: \d+ \+ \d+ > {_N}",
        rf"(?:n_ctx|max_model_len|session_len)\W{{1,4}}{_N}",
    )
]


def is_overflow(said: Collection[Words]) -> bool:
    return found(_OVERFLOW, said) is not None


def prompt_tokens(said: Collection[Words]) -> int | None:
    """The size of the prompt, where a wording has it."""
    if (parts := found(_TRT_SUM, said)) is not None:
        return int(parts[1]) + int(parts[2])
    tokens = _first(_TOKENS, said)
    query = found(_QUERY, said)
    return tokens + int(query[1]) if tokens is not None and query is not None else tokens


def is_lower_bound(said: Collection[Words]) -> bool:
    """Whether the prompt may have more tokens than `prompt_tokens` finds."""
    return found(_AT_LEAST, said) is not None


def window(said: Collection[Words]) -> int | None:
    """How much fits, where a wording has it."""
    return _first(_LIMIT, said)


def _first(patterns: Collection[re.Pattern[str]], said: Collection[Words]) -> int | None:
    return next((count(hit[1]) for pattern in patterns if (hit := found(pattern, said)) is not None), None)
