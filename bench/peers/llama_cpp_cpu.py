"""llama.cpp on the CPU: llama_cpp_cpu.py rollout prints tokens/s of whole rollouts of 0.5B, bf16, random weights.

Through its batches, as its own server does it: a prompt runs once, its completions get its keys and values by a copy of the sequence,
and every step decodes all of them. Once with one cache for all sequences and once with one each; the faster counts.
"""
import os
import sys
import tempfile

try:
    import gguf  # noqa: F401, random_gguf needs it
    import llama_cpp as llama
except ImportError as missing:
    print(f"SKIP python3 has no {missing.name}")
    sys.exit(0)
import random_gguf
from common import CORES, LENGTH, PROMPT, rollouts

MOST = 512  # tokens of a batch: the longest prompts, all of them
quiet = llama.llama_log_callback(lambda level, text, data: None)


class Rollout:
    """One kind of cache, and its context for the shape last asked for."""

    def __init__(self, model, unified):
        self.model, self.unified, self.shape, self.made = model, unified, None, None
        self.batch = llama.llama_batch_init(MOST, 0, 1)

    def context(self, n, group):
        if self.shape != (n, group):
            if self.made:
                llama.llama_free(self.made)
            p = llama.llama_context_default_params()
            # Caches come in multiples of 256 tokens.
            caches, tokens = (1, n * PROMPT + n * group * LENGTH) if self.unified else (n * group, PROMPT + LENGTH)
            p.n_ctx = caches * -(-tokens // 256) * 256
            p.n_batch = p.n_ubatch = MOST
            p.n_seq_max = n * group
            p.n_threads = p.n_threads_batch = CORES
            p.kv_unified = self.unified
            self.shape, self.made = (n, group), llama.llama_init_from_model(self.model, p)
            assert self.made, "llama.cpp makes no context"
        return self.made

    def put(self, token, position, sequence, logits):
        b = self.batch
        i = b.n_tokens
        b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = token, position, 1, sequence, logits
        b.n_tokens += 1
        return i

    def decode(self, context):
        assert llama.llama_decode(context, self.batch) == 0, "llama_decode failed"
        self.batch.n_tokens = 0

    def draw(self, prompts, group, seed):
        context = self.context(len(prompts), group)
        memory = llama.llama_get_memory(context)
        llama.llama_memory_clear(memory, False)
        sampler = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        llama.llama_sampler_chain_add(sampler, llama.llama_sampler_init_temp(0.9))
        llama.llama_sampler_chain_add(sampler, llama.llama_sampler_init_dist(seed))
        ends = []
        for p, ids in enumerate(prompts):
            ends += [self.put(token, t, p * group, t == PROMPT - 1) for t, token in enumerate(ids)][-1:]
        self.decode(context)
        for s in range(len(prompts) * group):
            if s % group:
                llama.llama_memory_seq_cp(memory, s - s % group, s, -1, -1)
        rows = [ends[s // group] for s in range(len(prompts) * group)]
        completions = [[] for _ in rows]
        for t in range(LENGTH):
            for s, ids in enumerate(completions):
                ids.append(llama.llama_sampler_sample(sampler, context, rows[s]))
            if t < LENGTH - 1:
                rows = [self.put(ids[-1], PROMPT + t, s, True) for s, ids in enumerate(completions)]
                self.decode(context)
        llama.llama_sampler_free(sampler)
        return completions


def rollout():
    llama.llama_log_set(quiet, None)
    llama.llama_backend_init()
    with tempfile.TemporaryDirectory() as where:
        path = os.path.join(where, "model.gguf")
        random_gguf.write(path, "BF16")
        model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        assert model, "llama.cpp does not load the model"
        rollouts(f"llama.cpp (llama-cpp-python {llama.__version__})",
                 {"one cache": Rollout(model, True).draw, "a cache a sequence": Rollout(model, False).draw})


if __name__ == "__main__":
    {"rollout": rollout}[sys.argv[1]]()
