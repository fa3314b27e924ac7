#!/usr/bin/env python3
"""Loads an adapter that grpo trained into PEFT and compares logits, beside the model and merged into it: tools/check_lora.py

Trains a small random model's adapter for three steps with build/grpo sft, and runs the same token ids through
build/release/tools/logits and through PEFT in f32: within 1e-5 (relative L2), and `grpo merge` as merge_and_unload. GRPO
and LOGITS name other programs; without torch and PEFT it says SKIP.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import numpy as np
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM
except ImportError as e:
    print(f"SKIP check_lora: {e}")
    sys.exit(0)

GRPO = os.environ.get("GRPO", "build/grpo")
LOGITS = os.environ.get("LOGITS", "build/release/tools/logits")
TINY = "models/tiny"


def grpo(command, **options):
    subprocess.run([GRPO, command, *(f"{k}={v}" for k, v in options.items())], check=True, stdout=subprocess.DEVNULL)


def ours(model, adapter, ids):
    lines = "".join(" ".join(map(str, x.tolist())) + "\n" for x in ids)
    out = subprocess.run([LOGITS, model, "f32", "cpu", *([adapter] if adapter else [])], input=lines.encode(), check=True,
                         stdout=subprocess.PIPE).stdout
    return torch.from_numpy(np.frombuffer(out, np.float32).copy()).double()


def theirs(model, ids):
    with torch.no_grad():
        return torch.cat([model(input_ids=x[None]).logits[0, :-1] for x in ids]).flatten().double()


def main():
    with tempfile.TemporaryDirectory() as where:
        base, rows, run, merged = (os.path.join(where, n) for n in ("base", "rows.jsonl", "run", "merged"))
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY), dtype=torch.float32).save_pretrained(base)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(TINY, name), base)
        with open(rows, "w") as f:
            f.writelines(json.dumps({"prompt": f"What is {i} + 1?", "completion": str(i + 1)}) + "\n" for i in range(64))
        grpo("sft", model=base, train_file=rows, output_dir=run, dtype="f32", device="cpu", lora_r=6, lora_alpha=11,
             use_rslora="true", lora_target="q_proj,k_proj,o_proj,up_proj,down_proj", learning_rate=0.02, max_steps=3,
             chat_template="r1-zero", per_device_train_batch_size=4, progress="off")
        adapter = os.path.join(run, "step_3")
        grpo("merge", model=base, adapter=adapter, merge_output=merged, dtype="f32", device="cpu")
        ids = [torch.randint(0, 500, (n,)) for n in (9, 40, 120)]
        load = lambda: AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        bare, beside = theirs(load(), ids), PeftModel.from_pretrained(load(), adapter).eval()
        want = theirs(beside, ids)
        whole = theirs(beside.merge_and_unload(), ids)
        relative = lambda x, y: ((x - y).norm() / y.norm()).item()
        errors = {"beside the model": relative(ours(base, adapter, ids), want),
                  "merged": relative(ours(merged, None, ids), whole),
                  "merged, by transformers": relative(theirs(AutoModelForCausalLM.from_pretrained(merged), ids), whole)}
        for what, error in errors.items():
            print(f"logits {what}: {error:.2e}")
        print(f"the adapter changes them by {relative(want, bare):.2f}")
        sys.exit(not all(error < 1e-5 for error in errors.values()) or relative(want, bare) < 0.05)


main()
