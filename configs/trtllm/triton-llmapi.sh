#!/bin/sh
# Starts Triton with the llmapi profile inside NVIDIA's Triton image for TensorRT-LLM. Not run by this project's tests:
# they have no GPU.
#   MODEL=/models/Qwen3-8B TENSORRT_LLM=/src/TensorRT-LLM configs/trtllm/triton-llmapi.sh
# TENSORRT_LLM is a checkout of the very release that the image carries: python3 -c 'import tensorrt_llm' prints it.
set -eu
model=${MODEL:?"the folder of the model's weights"}
source=${TENSORRT_LLM:?"a checkout of TensorRT-LLM, of the release that the image carries"}
repository=${REPOSITORY:-/tmp/dragoman-llmapi}
here=$(cd "$(dirname "$0")" && pwd)

rm -rf "$repository"
cp -r "$source/triton_backend/all_models/llmapi" "$repository"
sed "s|^model: MODEL\$|model: $model|" "$here/model.yaml" > "$repository/tensorrt_llm/1/model.yaml"

echo "dragoman serve --backend 'triton+grpc://127.0.0.1:8001/tensorrt_llm?tokenizer=$model'"
exec python3 "$source/triton_backend/scripts/launch_triton_server.py" --model_repo "$repository" --world_size 1 --force
