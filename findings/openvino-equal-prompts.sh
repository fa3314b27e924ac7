#!/bin/sh
# openvino-genai 2026.4.1 (gguf 0.19.0 writes the model), LLMPipeline with ATTENTION_BACKEND=SDPA on the CPU.
#
# Behaviour: of a batch in which the same prompt stands eight times, sampling (do_sample, temperature 1, all tokens) gives eight
# identical completions. Asked for one prompt with num_return_sequences=8, it gives different ones.
# One expects: the sequences of a batch are drawn independently of each other, as HF's generate and the continuous batching
# of the same package do. Who samples a group of answers by repeating its question gets one answer eight times, without a
# word, and every advantage is 0.
# Seen: 1 distinct completion of 8 for equal prompts, several of 8 for num_return_sequences.
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cd "$room"

python3 -m venv venv
venv/bin/pip install -q openvino-genai==2026.4.1.0 openvino==2026.4.1 openvino-tokenizers==2026.4.1.0 gguf==0.19.0 numpy==2.4.6
cat >try.py <<'PY'
import os

import gguf
import numpy as np
import openvino as ov
import openvino_genai as genai

D, F, H, K, V, LAYERS = 64, 128, 4, 2, 512, 2
rng = np.random.default_rng(1)
w = gguf.GGUFWriter("model.gguf", "qwen2")
w.add_name("random")
w.add_context_length(128)
w.add_embedding_length(D)
w.add_block_count(LAYERS)
w.add_feed_forward_length(F)
w.add_head_count(H)
w.add_head_count_kv(K)
w.add_layer_norm_rms_eps(1e-6)
w.add_rope_freq_base(1e4)
w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
w.add_vocab_size(V)
w.add_tokenizer_model("none")


def put(name, *shape):
    x = rng.normal(0, 0.05, shape)
    w.add_tensor(name, x.astype(np.float16 if len(shape) > 1 else np.float32))


put("token_embd.weight", V, D)
w.add_tensor("output_norm.weight", np.ones(D, np.float32))
for i in range(LAYERS):
    for norm in ("attn_norm", "ffn_norm"):
        w.add_tensor(f"blk.{i}.{norm}.weight", np.ones(D, np.float32))
    for name, rows in (("attn_q", D), ("attn_k", D // H * K), ("attn_v", D // H * K)):
        put(f"blk.{i}.{name}.weight", rows, D)
        put(f"blk.{i}.{name}.bias", rows)
    put(f"blk.{i}.attn_output.weight", D, D)
    put(f"blk.{i}.ffn_gate.weight", F, D)
    put(f"blk.{i}.ffn_up.weight", F, D)
    put(f"blk.{i}.ffn_down.weight", D, F)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()

os.mkdir("none")  # prompts are ids: there is no tokenizer
pipeline = genai.LLMPipeline("model.gguf", genai.Tokenizer("none"), "CPU", ATTENTION_BACKEND="SDPA")


def distinct(prompts, each):
    c = genai.GenerationConfig()
    c.min_new_tokens = c.max_new_tokens = 16
    c.ignore_eos, c.eos_token_id, c.stop_token_ids = True, V - 1, {V - 1}
    c.do_sample, c.temperature, c.num_return_sequences, c.rng_seed = True, 1.0, each, 7
    done = pipeline.generate(ov.Tensor(np.array([[5, 6, 7, 8]] * prompts, np.int64)), c).tokens
    assert len(done) == prompts * each
    return len({tuple(ids) for ids in done})


equal, returned = distinct(8, 1), distinct(1, 8)
print(f"eight equal prompts: {equal} distinct; num_return_sequences=8: {returned} distinct")
raise SystemExit(0 if equal == 1 and returned > 1 else 1)
PY
if ! venv/bin/python try.py; then
    echo "changed: not as described"
    exit 1
fi
echo "as described: equal prompts of a batch are given equal completions"
