"""A GGUF file of a model in Qwen2.5-0.5B's shape: random weights, without a tokenizer."""
import gguf
import numpy as np
from common import VOCABULARY

WIDTH, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD = 896, 4864, 24, 14, 2, 64


def write(path, kind):
    """kind: of the matrices, "BF16" or "F16"; vectors are f32."""
    draw, stored = np.random.default_rng(1), gguf.GGMLQuantizationType[kind]
    w = gguf.GGUFWriter(path, "qwen2")
    w.add_block_count(LAYERS)
    w.add_context_length(32768)
    w.add_embedding_length(WIDTH)
    w.add_feed_forward_length(INTERMEDIATE)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(1e6)
    w.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    w.add_tokenizer_model("none")  # the peers get and give ids
    w.add_vocab_size(VOCABULARY)

    def matrix(name, *shape):
        values = draw.standard_normal(shape, np.float32) * np.float32(0.02)
        w.add_tensor(f"{name}.weight", gguf.quants.quantize(values, stored), raw_dtype=stored)

    def vector(name, values):
        w.add_tensor(name, np.asarray(values, np.float32))

    matrix("token_embd", VOCABULARY, WIDTH)  # also the head
    vector("output_norm.weight", np.ones(WIDTH))
    for i in range(LAYERS):
        for name in "attn_norm", "ffn_norm":
            vector(f"blk.{i}.{name}.weight", np.ones(WIDTH))
        for name, heads in ("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS):
            matrix(f"blk.{i}.attn_{name}", heads * HEAD, WIDTH)
            vector(f"blk.{i}.attn_{name}.bias", draw.standard_normal(heads * HEAD) * 0.02)
        matrix(f"blk.{i}.attn_output", WIDTH, HEADS * HEAD)
        matrix(f"blk.{i}.ffn_gate", INTERMEDIATE, WIDTH)
        matrix(f"blk.{i}.ffn_up", INTERMEDIATE, WIDTH)
        matrix(f"blk.{i}.ffn_down", WIDTH, INTERMEDIATE)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
