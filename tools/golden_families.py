"""What HF transformers makes of the config.json of several families: the rotary frequencies of every kind, in the words of
transformers 4 and of 5 and where both are there; the parameters of published sizes."""

import json
import os
import tempfile

import torch
from transformers import AutoConfig, AutoModelForCausalLM

BASE = {"model_type": "llama", "vocab_size": 40, "hidden_size": 64, "intermediate_size": 20, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 4096}
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
ROPES = [
    {}, {"rope_theta": 500000.0, "rope_scaling": LLAMA3},
    {"rope_parameters": LLAMA3 | {"rope_theta": 500000.0}}, {"rope_theta": 5e5, "rope_parameters": LLAMA3},
    {"rope_scaling": {k: v for k, v in LLAMA3.items() if k != "original_max_position_embeddings"}},
    {"rope_scaling": LLAMA3, "original_max_position_embeddings": 2048},
    {"rope_scaling": LLAMA3, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    {"rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_parameters": {"rope_type": "linear", "factor": 3}},
    {"rope_scaling": YARN}, {"rope_scaling": YARN | {"attention_factor": 0.8}},
    {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 0.5}},
    {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 0.0}}, {"rope_scaling": YARN | {"mscale": 0, "mscale_all_dim": 0}},
    {"rope_scaling": YARN | {"mscale": 0, "mscale_all_dim": 0.5}}, {"rope_scaling": YARN | {"mscale": 0.7}},
    {"rope_scaling": YARN | {"beta_fast": 0, "beta_slow": 0}}, {"rope_scaling": YARN | {"beta_fast": 16, "beta_slow": 0.0}},
    {"rope_scaling": YARN | {"beta_fast": 16, "beta_slow": 2, "truncate": False}}, {"rope_scaling": YARN | {"factor": None}},
    {"rope_scaling": {"type": "yarn", "factor": 1.0}, "rope_theta": 1e6},
    {"rope_scaling": {"rope_type": "default", "type": "yarn", "factor": 2.0}},
    {"rope_theta": 5e5, "head_dim": 10, "rope_scaling": LLAMA3}, {"model_type": "qwen3"},
    {"model_type": "qwen3", "head_dim": 256, "rope_theta": 1000000, "rope_scaling": {"rope_type": "yarn", "factor": 4.0,
     "original_max_position_embeddings": 32768}},
    {"model_type": "qwen2", "rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0,
     "original_max_position_embeddings": 32768}},
]


def size(model_type, hidden, inter, layers, heads, kv, vocab, tied, head_dim=None):
    config = {"model_type": model_type, "hidden_size": hidden, "intermediate_size": inter, "num_hidden_layers": layers,
              "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab, "tie_word_embeddings": tied}
    return config | ({"head_dim": head_dim} if head_dim else {})


SIZES = {
    "Qwen3-0.6B": size("qwen3", 1024, 3072, 28, 16, 8, 151936, True, 128),
    "Qwen3-1.7B": size("qwen3", 2048, 6144, 28, 16, 8, 151936, True, 128),
    "Qwen3-4B": size("qwen3", 2560, 9728, 36, 32, 8, 151936, True, 128),
    "Qwen3-8B": size("qwen3", 4096, 12288, 36, 32, 8, 151936, False, 128),
    "Llama-3.2-1B": size("llama", 2048, 8192, 16, 32, 8, 128256, True, 64),
    "Llama-3.2-3B": size("llama", 3072, 8192, 28, 24, 8, 128256, True, 128),
    "Llama-3.1-8B": size("llama", 4096, 14336, 32, 32, 8, 128256, False),
    "SmolLM2-135M": size("llama", 576, 1536, 30, 9, 3, 49152, True),
}


def read(config):
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "config.json"), "w") as f:
            json.dump(config, f)
        return AutoConfig.from_pretrained(directory)


def table(patch):
    rotary = AutoModelForCausalLM.from_config(read(BASE | patch)).model.rotary_emb
    return {"config": patch, "inv_freq": rotary.inv_freq.tolist(), "scale": float(rotary.attention_scaling)}


def count(name):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(read(SIZES[name]))
    return {"name": name, "config": SIZES[name], "parameters": sum(p.numel() for p in model.parameters())}


def write(path, versions):
    rows = lambda key, table: '"%s":[\n%s\n]' % (key, ",\n".join(json.dumps(row) for row in table))
    with open(path, "w") as f:
        f.write('{"made_with":%s,\n"base":%s,\n%s,\n%s}\n' % (
            json.dumps(versions), json.dumps(BASE), rows("ropes", [table(p) for p in ROPES]),
            rows("sizes", [count(n) for n in SIZES])))
