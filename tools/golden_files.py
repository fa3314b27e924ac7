"""What HF transformers makes of a model directory's files: the rotary base it takes from config.json, and whether head and
embedding are one tensor once loaded."""

import json
import os
import tempfile

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, Qwen2ForCausalLM

SIZES = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 40, "hidden_size": 12,
         "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1,
         "max_position_embeddings": 64, "tie_word_embeddings": True}
EMBEDDING, HEAD, INDEX = "model.embed_tokens.weight", "lm_head.weight", "model.safetensors.index.json"

NEW = {"rope_theta": 1e6, "rope_type": "default"}
ROPE = [{}, {"rope_theta": 5e5}, {"rope_parameters": NEW}, {"rope_theta": 5e5, "rope_parameters": NEW},
        {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default"}}, {"rope_parameters": None, "rope_theta": 5e5},
        {"rope_scaling": None, "rope_parameters": NEW}, {"rope_scaling": {}, "rope_parameters": NEW},
        {"rope_scaling": {"type": "default"}, "rope_parameters": NEW},
        {"rope_scaling": {"rope_type": "default"}, "rope_parameters": NEW, "rope_theta": 5e5},
        {"rope_scaling": {"rope_type": "default", "rope_theta": 3e5}, "rope_parameters": NEW, "rope_theta": 5e5},
        {"rope_scaling": {"type": "default"}, "rope_theta": 5e5}, {"rope_scaling": {"type": "default"}}]


def write_json(directory, name, value):
    with open(os.path.join(directory, name), "w") as f:
        json.dump(value, f)


def theta(patch):
    with tempfile.TemporaryDirectory() as directory:
        write_json(directory, "config.json", SIZES | patch)
        return AutoConfig.from_pretrained(directory).rope_parameters["rope_theta"]


def loaded(config, head, embedding, shards):
    """Outcome of one directory. head: absent, equal or other; embedding: whether it is there; shards: one file, or two
    whose index names all tensors ("named") or all but the head ("unnamed")."""
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(AutoConfig.for_model(**(SIZES | {"tie_word_embeddings": False})))
    tensors = {name: t.clone() for name, t in model.state_dict().items()}
    if head == "absent":
        del tensors[HEAD]
    elif head == "equal":
        tensors[HEAD] = tensors[EMBEDDING].clone()
    there = dict(tensors)
    if not embedding:
        del tensors[EMBEDDING]
    with tempfile.TemporaryDirectory() as directory:
        write_json(directory, "config.json", SIZES | config)
        if shards == "one":
            save_file(tensors, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
        else:
            halves = [{n: t for n, t in tensors.items() if (n in (EMBEDDING, HEAD)) == first} for first in (True, False)]
            names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
            for name, half in zip(names, halves):
                save_file(half, os.path.join(directory, name), metadata={"format": "pt"})
            weight_map = {n: name for name, half in zip(names, halves) for n in half}
            if shards == "unnamed":
                weight_map.pop(HEAD)
            write_json(directory, INDEX, {"metadata": {}, "weight_map": weight_map})
        got = Qwen2ForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tied = got.lm_head.weight.data_ptr() == got.model.embed_tokens.weight.data_ptr()
    is_head = HEAD in there and torch.equal(got.lm_head.weight, there[HEAD])
    return {"head": head, "embedding": embedding, "shards": shards, "tie_word_embeddings": config["tie_word_embeddings"],
            "tied": tied, "head_is_the_files": bool(is_head)}


def write(path, versions):
    rope = [{"config": patch, "theta": theta(patch)} for patch in ROPE]
    tie, apart = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
    heads = [loaded(tie, head, True, shards) for shards in ("one", "named", "unnamed")
             for head in ("absent", "equal", "other") if shards != "unnamed" or head != "absent"]
    heads += [loaded(tie, "other", False, "one"), loaded(apart, "other", True, "one"), loaded(apart, "equal", True, "one")]
    with open(path, "w") as f:
        rows = lambda table: ",\n".join(json.dumps(row) for row in table)
        f.write('{"made_with":%s,\n"rope":[\n%s\n],\n"heads":[\n%s\n]}\n' % (json.dumps(versions), rows(rope), rows(heads)))
