#!/bin/sh
# Starts Triton with the engine profile inside NVIDIA's Triton image for TensorRT-LLM (about 26.06 or older), for an
# existing engine. Not run by this project's tests: they have no GPU.
#   ENGINE=/engines/qwen3-8b MODEL=/models/Qwen3-8B TENSORRT_LLM=/src/TensorRT-LLM configs/trtllm/triton-engine.sh
# For constrained decoding, XGRAMMAR names the file that TensorRT-LLM's examples/generate_xgrammar_tokenizer_info.py
# makes of the tokenizer; without it, JSON schemas and forced tools are asked for by prompt and checked.
set -eu
engine=${ENGINE:?"the folder of the engine"}
model=${MODEL:?"the folder with tokenizer.json and the chat template"}
source=${TENSORRT_LLM:?"a checkout of TensorRT-LLM, of the release that the image carries"}
batch=${BATCH:-64}
repository=${REPOSITORY:-/tmp/dragoman-engine}
guide=
[ -z "${XGRAMMAR:-}" ] || guide=",guided_decoding_backend:xgrammar,xgrammar_tokenizer_info_path:$XGRAMMAR"

rm -rf "$repository"
cp -r "$source/triton_backend/all_models/inflight_batcher_llm" "$repository"
fill() {
    python3 "$source/triton_backend/tools/fill_template.py" -i "$repository/$1/config.pbtxt" "$2"
}
common=triton_max_batch_size:$batch,logits_datatype:TYPE_FP32
fill ensemble "$common"
# The chat template has written the BOS, and calls are written with special tokens.
fill preprocessing "triton_max_batch_size:$batch,tokenizer_dir:$model,preprocessing_instance_count:4,add_special_tokens:False"
fill postprocessing "triton_max_batch_size:$batch,tokenizer_dir:$model,postprocessing_instance_count:4,skip_special_tokens:False"
fill tensorrt_llm_bls "$common,decoupled_mode:True,bls_instance_count:$batch,accumulate_tokens:True"
fill tensorrt_llm "$common,triton_backend:tensorrtllm,decoupled_mode:True,engine_dir:$engine,\
batching_strategy:inflight_fused_batching,max_queue_delay_microseconds:0,encoder_input_features_data_type:TYPE_FP16,\
exclude_input_in_output:True,enable_kv_cache_reuse:True,enable_chunked_context:True,kv_cache_free_gpu_mem_fraction:0.9,\
cancellation_check_period_ms:100,stats_check_period_ms:100$guide"

echo "dragoman serve --backend 'triton+grpc://127.0.0.1:8001/ensemble?tokenizer=$model'"
exec python3 "$source/triton_backend/scripts/launch_triton_server.py" --model_repo "$repository" --world_size 1 --force
