#!/usr/bin/env python3
"""Compares a model's logits and gradients, ours against HF transformers': tools/compare_hf.py MODEL_DIR|SHAPE

Any directory that AutoModelForCausalLM.from_pretrained loads serves: a published model, or one that grpo saved. SHAPE is
0.5B or 1.5B: Qwen2.5's, with random weights. Runs random token ids through build/release/tools/logits (make all) in f32
and bf16, and HF in f64, f32 and bf16. In f32 logits must be within 1e-5 of f64 and every parameter's gradient within 1e-4
(relative L2), or no further from it than HF's own f32 and a quarter (a key's bias has a gradient near the noise); in bf16
that quarter is the rule. --device cuda runs both on the GPU; without torch and transformers it says SKIP.
"""

import argparse
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config
except ImportError as e:
    print(f"SKIP compare_hf: {e}")
    sys.exit(0)

SHAPES = {"0.5B": (896, 4864, 24, 14, 2), "1.5B": (1536, 8960, 28, 12, 2)}


def make_directory(shape, where, device):
    """Random weights of Qwen2.5's shape; biases and norms that are not what they began as."""
    hidden, intermediate, layers, heads, kv = SHAPES[shape]
    config = Qwen2Config(vocab_size=151936, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
                         num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=32768,
                         rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=True)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(0.1 * torch.randn_like(p))
    model.save_pretrained(where)


def relative(x, reference):
    return ((x - reference).double().norm() / reference.double().norm()).item()


class Theirs:
    def __init__(self, directory, ids, device):
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).to(device).eval()
        self.ids = [x.to(device) for x in ids]

    def run(self, dtype):
        """Logits of all sequences but each one's last position, and {name: gradient}, on the CPU."""
        model = self.model.to(dtype)
        model.zero_grad()
        logits, n = [], sum(len(x) - 1 for x in self.ids)
        for x in self.ids:
            z = model(input_ids=x[None]).logits[0, :-1]
            z = z.float() if dtype == torch.bfloat16 else z
            (torch.nn.functional.cross_entropy(z, x[1:], reduction="sum") / n).backward()
            logits.append(z.detach().cpu())
        return torch.cat(logits), {k: p.grad.cpu() for k, p in model.named_parameters()}


def ours(args, directory, dtype, text):
    """The same from our program."""
    command = [args.logits, directory, dtype, args.device]
    out = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    logits = torch.from_numpy(np.frombuffer(out, np.float32).copy())
    process = subprocess.Popen(command + ["gradients"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(text.encode())
    process.stdin.close()
    gradients = {}
    while header := process.stdout.readline():
        name, n = header.split()
        gradients[name.decode()] = torch.from_numpy(np.frombuffer(process.stdout.read(4 * int(n)), np.float32).copy())
    if process.wait():
        sys.exit(process.returncode)
    return logits, gradients


def compare(args, directory):
    vocabulary = AutoModelForCausalLM.from_pretrained(directory).config.vocab_size if not args.vocabulary else args.vocabulary
    torch.manual_seed(0)
    ids = [torch.randint(0, vocabulary, (int(n),)) for n in args.lengths.split(",")]
    text = "".join(" ".join(map(str, x.tolist())) + "\n" for x in ids)
    theirs = Theirs(directory, ids, args.device)
    hf = {"f32": theirs.run(torch.float32)}
    reference, gradient = theirs.run(torch.float64)
    hf["bf16"] = theirs.run(torch.bfloat16)
    del theirs
    if args.device == "cuda":
        torch.cuda.empty_cache()

    good = True
    for dtype in ("f32", "bf16"):
        z, g = ours(args, directory, dtype, text)
        z = z.reshape(-1, reference.shape[1])
        if g.keys() != gradient.keys():
            print(f"other parameters than HF's: {sorted(g.keys() ^ gradient.keys())}")
            return False
        their_z, their_g = hf[dtype]
        error = {k: relative(g[k], gradient[k].flatten()) for k in g}
        theirs_error = {k: relative(their_g[k], gradient[k]) for k in g}
        logits, their_logits = relative(z, reference), relative(their_z, reference)
        mean = lambda e: (sum(x * x for x in e.values()) / len(e)) ** 0.5
        print(f"{dtype}: logits {logits:.2e} (HF {their_logits:.2e}), gradients {mean(error):.2e} (HF {mean(theirs_error):.2e})")
        if dtype == "f32":
            good &= logits < 1e-5
            bad = [k for k in g if error[k] > 1e-4 and error[k] > 1.25 * theirs_error[k]]
            for k in bad:
                print(f"  gradient of {k}: {error[k]:.2e}, HF's {theirs_error[k]:.2e}")
            good &= not bad
        else:
            good &= logits <= 1.25 * their_logits and mean(error) <= 1.25 * mean(theirs_error)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--logits", default="build/release/tools/logits", help="our program")
    parser.add_argument("--lengths", default="2,7,64,150", help="tokens of the sequences tried")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    args.vocabulary = 151936 if args.model in SHAPES else None
    if args.device == "cuda" and not torch.cuda.is_available():
        print("SKIP compare_hf: torch sees no GPU")
        return 0
    if args.model in SHAPES:
        torch.manual_seed(1)
        with tempfile.TemporaryDirectory() as where:
            make_directory(args.model, where, args.device)
            good = compare(args, where)
    else:
        good = compare(args, args.model)
    print("agrees" if good else "DIFFERS")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
