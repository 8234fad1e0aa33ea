#!/bin/sh
# Starts trtllm-serve inside NVIDIA's TensorRT-LLM image. Not run by this project's tests: they have no GPU.
#   MODEL=/models/Qwen3-8B TOOL_PARSER=qwen3 REASONING_PARSER=qwen3 configs/trtllm/serve.sh
# Then: dragoman serve --backend http://127.0.0.1:8000/v1   with DRAGOMAN_PRESET=trtllm-serve
set -eu
model=${MODEL:?"the folder of the model's weights, or its name"}
here=$(cd "$(dirname "$0")" && pwd)
set -- "$model" --host 127.0.0.1 --port "${PORT:-8000}" --extra_llm_api_options "$here/serve.yaml"
# Which parsers there are depends on the release: trtllm-serve --help names them. Where its own fails, leave it out and
# set `markup` of the backend in gateway.yaml instead: then dragoman reads the calls out of the text.
[ -z "${TOOL_PARSER:-}" ] || set -- "$@" --tool_parser "$TOOL_PARSER"
[ -z "${REASONING_PARSER:-}" ] || set -- "$@" --reasoning_parser "$REASONING_PARSER"
exec trtllm-serve serve "$@"
