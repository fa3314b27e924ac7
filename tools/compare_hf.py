#!/usr/bin/env python3
"""Compares the logits of a model directory, ours against HF transformers': tools/compare_hf.py MODEL_DIR

Any directory that AutoModelForCausalLM.from_pretrained loads serves: a published model, or one that grpo saved. Runs
random token ids through build/release/tools/logits (make all) in f32 and bf16. f32 must agree to 1e-5; in bf16 our error against HF's f32
may be a quarter above HF's own at most.
"""

import argparse
import subprocess
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--logits", default="build/release/tools/logits", help="our program")
    parser.add_argument("--lengths", default="1,7,64,150", help="tokens of the sequences tried")
    args = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    vocabulary = model.config.vocab_size
    torch.manual_seed(0)
    ids = [torch.randint(0, vocabulary, (int(n),)) for n in args.lengths.split(",")]
    text = "".join(" ".join(map(str, x.tolist())) + "\n" for x in ids)

    def theirs(dtype):
        with torch.no_grad():
            return torch.cat([model.to(dtype)(input_ids=x[None]).logits[0].float() for x in ids])

    def ours(dtype):
        out = subprocess.run([args.logits, args.model, dtype], input=text.encode(), stdout=subprocess.PIPE, check=True)
        return torch.from_numpy(np.frombuffer(out.stdout, np.float32).reshape(-1, vocabulary).copy())

    reference, half = theirs(torch.float32), theirs(torch.bfloat16)
    error = lambda x: ((x - reference).double().norm() / reference.double().norm()).item()
    f32, bf16, hf_bf16 = error(ours("f32")), error(ours("bf16")), error(half)
    print(f"f32: {f32:.2e}   bf16: ours {bf16:.2e}, HF's {hf_bf16:.2e}, ratio {bf16 / hf_bf16:.2f}")
    good = f32 < 1e-5 and bf16 <= 1.25 * hf_bf16
    print("agrees" if good else "DIFFERS")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
