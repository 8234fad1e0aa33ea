#!/bin/sh
# Writes the lock files: hashes of every published file, no addresses, for every platform and Python from 3.11 on.
# usage: requirements/lock.sh path/to/uv
set -eu
uv=${1:?"usage: requirements/lock.sh path/to/uv"}
cd "$(dirname "$0")/.."

lock() {
    output=requirements/$1.txt
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-header --no-annotate --output-file "$output" "$@"
    echo "$output"
}

lock core pyproject.toml --extra uvloop
lock dev pyproject.toml --constraint requirements/core.txt \
    --extra dev --extra uvloop --extra postgres --extra tokenizer --extra triton --extra otel --extra launch \
    --extra documents
# What the container with every extra holds.
lock extras pyproject.toml --constraint requirements/dev.txt \
    --extra uvloop --extra postgres --extra tokenizer --extra triton --extra otel --extra documents
lock build requirements/build.in --constraint requirements/dev.txt
for input in agent-framework agents agno aider audit claude-agent-sdk comply haystack langchain-py litellm llama-index lock \
    node operations peer-codex-relay peer-litellm peer-switchyard postgres py-spy pydantic-ai pydantic-ai-2.38 sbom \
    sdk-anthropic-0 sdk-anthropic-2 sdk-openai-1 sdk-openai-2 sdk-openai-3 transformers vllm-metadata; do
    lock "$input" "requirements/$input.in"
done
# These are installed without their dependencies, so only what is named is locked.
for input in chat-templates local-model pytriton vllm-templates xgrammar; do
    lock "$input" "requirements/$input.in" --no-deps
done
