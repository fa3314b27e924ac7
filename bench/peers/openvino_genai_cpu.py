"""OpenVINO GenAI on the CPU: openvino_genai_cpu.py rollout prints tokens/s of whole rollouts of 0.5B, bf16, random weights.

Through ContinuousBatchingPipeline, where a prompt's completions share its keys and values (num_return_sequences), which is faster
than LLMPipeline. Its GGUF reader takes matrices in f16 and none in bf16; they are rounded to bf16 when the model is compiled.
"""
import os
import sys
import tempfile

try:
    import gguf  # noqa: F401, random_gguf needs it
    import numpy as np
    import openvino as ov
    import openvino_genai as genai
except ImportError as missing:
    print(f"SKIP python3 has no {missing.name}")
    sys.exit(0)
import random_gguf
from common import CORES, LENGTH, VOCABULARY, rollouts


def params(group, seed):
    c = genai.GenerationConfig()
    c.min_new_tokens = c.max_new_tokens = LENGTH
    c.ignore_eos, c.eos_token_id, c.stop_token_ids = True, VOCABULARY - 1, {VOCABULARY - 1}
    c.do_sample, c.temperature = True, 0.9  # of all tokens: top_k and top_p stay off
    c.num_return_sequences, c.rng_seed = group, seed
    return c


def open_pipeline(where):
    path, tokenizer = os.path.join(where, "model.gguf"), os.path.join(where, "none")
    random_gguf.write(path, "F16")
    os.mkdir(tokenizer)  # prompts are ids: it stays empty
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 1  # GiB
    scheduler.max_num_batched_tokens, scheduler.max_num_seqs = 512, 64
    scheduler.enable_prefix_caching = False  # every prompt is a new one
    return genai.ContinuousBatchingPipeline(path, genai.Tokenizer(tokenizer), scheduler, "CPU", INFERENCE_PRECISION_HINT="bf16",
                                            KV_CACHE_PRECISION="bf16", INFERENCE_NUM_THREADS=CORES)


def rollout():
    with tempfile.TemporaryDirectory() as where:
        pipeline = open_pipeline(where)

        def draw(prompts, group, seed):
            done = pipeline.generate([ov.Tensor(np.array([ids], np.int64)) for ids in prompts],
                                     [params(group, 1000 * seed + i) for i in range(len(prompts))])
            return [ids for prompt in done for ids in prompt.m_generation_ids]

        rollouts(f"OpenVINO GenAI {genai.__version__}", {"ContinuousBatchingPipeline": draw})


if __name__ == "__main__":
    {"rollout": rollout}[sys.argv[1]]()
