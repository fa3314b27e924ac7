"""Other CUDA engines, built by you from their sources: cuda_sources.py SECTION prints notes to stand beside our figures.

LLMQ=DIR    a checkout of llmq with build/train: forward, backward and optimizer of Qwen2.5-0.5B's shape, random weights
RLCU=DIR    a checkout of RL.cu with build/bench_decode and its model: decoding one sequence of Qwen3-0.6B

Neither is a row's peer in the table: llmq's tokens/s count its optimizer, RL.cu's model is another one.
"""
import array
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile

BATCH, LENGTH, STEPS, VOCABULARY = 16, 512, 12, 151936
QWEN2_05B = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": VOCABULARY, "hidden_size": 896,
    "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "tie_word_embeddings": True,
    "hidden_act": "silu", "use_sliding_window": False, "torch_dtype": "bfloat16", "bos_token_id": 151643,
    "eos_token_id": 151645,
}


def note(text):
    print(f"NOTE {text}", flush=True)


def run(command, directory):
    """Its output; None, said, where it failed."""
    try:
        done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=240)
    except (OSError, subprocess.TimeoutExpired) as e:
        return note(f"{command[0]}: {e}")
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        return note(f"{command[0]} ended with {done.returncode}: {last[:120]}")
    return done.stdout


def write_tokens(path, n):
    """llmq's token file, version 2: a header of 1,024 bytes, then ids of 4 bytes."""
    draw = random.Random(1)
    with open(path, "wb") as f:
        f.write(b"BIN.TOK\n" + array.array("i", [2, 4, n, VOCABULARY, 0]).tobytes())
        f.seek(1024)
        f.write(array.array("i", (draw.randrange(VOCABULARY) for _ in range(n))).tobytes())


def train(directory):
    program = os.path.join(os.path.abspath(directory), "build", "train")
    with tempfile.TemporaryDirectory() as where:
        with open(os.path.join(where, "config.json"), "w") as f:
            json.dump(QWEN2_05B, f)
        tokens = os.path.join(where, "tokens.bin")
        write_tokens(tokens, (STEPS + 4) * BATCH * LENGTH)
        out = run([program, f"--model={where}", "--from-scratch", f"--train-file={tokens}", f"--eval-file={tokens}",
                   "--model-dtype=bf16", "--matmul-dtype=bf16", "--opt-m-dtype=bf16", "--opt-v-dtype=bf16",
                   f"--batch-size={BATCH}", f"--seq-len={LENGTH}", "--grad-accumulation=1", f"--steps={STEPS}",
                   "--eval-num-steps=1", "--gpus=1", f"--out-dir={where}/out", f"--checkpoint-dir={where}/checkpoints",
                   f"--log-file={where}/log.json"], where)
    if out is None:
        return
    rates = [float(n) * (1000 if k else 1) for n, k in re.findall(r"^\[T\].*\btps\s+([0-9.]+)(k?)", out, re.M)]
    if len(rates) < 4:
        return note(f"{program}: no speed in its output")
    note(f"llmq, 0.5B, {BATCH} x {LENGTH} tokens, bf16, with its optimizer: {statistics.median(rates[2:]):.6g} tokens/s")


def decode(directory):
    out = run([os.path.join(os.path.abspath(directory), "build", "bench_decode")], directory)
    if out is None:
        return
    found = re.search(r"BENCH_RESULT: tok/s=([0-9.]+)", out)
    reason = re.search(r"\[SKIP\] (.*)", out)
    note(f"RL.cu, Qwen3-0.6B in f16, B = 1: {found[1]} tokens/s" if found else
         f"RL.cu: {reason[1] if reason else 'no speed in its output'}")


if __name__ == "__main__":
    variable, section = {"train": ("LLMQ", train), "decode": ("RLCU", decode)}[sys.argv[1]]
    if os.environ.get(variable):
        section(os.environ[variable])
    else:
        print(f"SKIP {variable} names no checkout")
