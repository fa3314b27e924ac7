#!/usr/bin/env python3
"""Loads an adapter that grpo trained into PEFT and compares logits, beside the model and merged into it: tools/check_lora.py

Trains a small random model's adapter for three steps with build/grpo sft, and runs the same token ids through
build/release/tools/logits and through PEFT in f32: within 1e-5 (relative L2), and `grpo merge` as merge_and_unload. Then
the same of an adapter and a score head by build/grpo reward_model, whose scores build/grpo reward prints. GRPO and LOGITS
name other programs; without torch and PEFT it says SKIP.
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
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
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


relative = lambda x, y: ((x - y).norm() / y.norm()).item()
LORA = dict(lora_r=6, lora_alpha=11, use_rslora="true", lora_target="q_proj,k_proj,o_proj,up_proj,down_proj",
            learning_rate=0.02, max_steps=3, per_device_train_batch_size=4, progress="off", dtype="f32", device="cpu")


def our_scores(model, texts):
    lines = "".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in texts)
    out = subprocess.run([GRPO, "reward", f"reward_model:model={model},part=completion,chat_template=raw", "-", "dtype=f32",
                          "device=cpu"], input=lines.encode(), check=True, stdout=subprocess.PIPE).stdout
    return torch.tensor([json.loads(line)["reward"] for line in out.splitlines()]).double()


def their_scores(model, texts, tok):
    with torch.no_grad():
        ids = [tok(p + c + tok.eos_token, return_tensors="pt")["input_ids"] for p, c in texts]
        return torch.cat([model(input_ids=x).logits[:, 0] for x in ids]).double()


def check_scores(where, base):
    """Errors of the scores beside the model and merged, and how much the adapter changes them."""
    rows, run, merged = (os.path.join(where, n) for n in ("pairs.jsonl", "rewards", "scorer"))
    with open(rows, "w") as f:
        f.writelines(json.dumps({"prompt": f"Ask {i}?", "chosen": f"Of course: {i}.", "rejected": f"No, {i}."}) + "\n"
                     for i in range(64))
    grpo("reward_model", model=base, train_file=rows, output_dir=run, raw="true", max_length=128, **LORA)
    adapter = os.path.join(run, "step_3")
    grpo("merge", model=base, adapter=adapter, merge_output=merged, dtype="f32", device="cpu")
    texts, tok = [(f"Ask {i}?", "Of course. " * i) for i in range(1, 9)], AutoTokenizer.from_pretrained(base)
    load = lambda path, **more: AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32, **more).eval()
    with open(os.path.join(merged, "config.json")) as f:
        pad = json.load(f)["pad_token_id"]  # of a base without one that is the token that ends a text, where none is read
    beside = PeftModel.from_pretrained(load(base, num_labels=1, pad_token_id=pad), adapter).eval()
    want = their_scores(beside, texts, tok)
    with beside.disable_adapter():
        bare = their_scores(beside, texts, tok)
    whole = their_scores(beside.merge_and_unload(), texts, tok)
    return {"scores beside the model": relative(our_scores(adapter, texts), want),
            "scores merged": relative(our_scores(merged, texts), whole),
            "scores merged, by transformers": relative(their_scores(load(merged), texts, tok), whole)}, relative(want, bare)


def main():
    with tempfile.TemporaryDirectory() as where:
        base, rows, run, merged = (os.path.join(where, n) for n in ("base", "rows.jsonl", "run", "merged"))
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY), dtype=torch.float32).save_pretrained(base)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(TINY, name), base)
        with open(rows, "w") as f:
            f.writelines(json.dumps({"prompt": f"What is {i} + 1?", "completion": str(i + 1)}) + "\n" for i in range(64))
        grpo("sft", model=base, train_file=rows, output_dir=run, chat_template="r1-zero", **LORA)
        adapter = os.path.join(run, "step_3")
        grpo("merge", model=base, adapter=adapter, merge_output=merged, dtype="f32", device="cpu")
        ids = [torch.randint(0, 500, (n,)) for n in (9, 40, 120)]
        load = lambda: AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        bare, beside = theirs(load(), ids), PeftModel.from_pretrained(load(), adapter).eval()
        want = theirs(beside, ids)
        whole = theirs(beside.merge_and_unload(), ids)
        errors = {"logits beside the model": relative(ours(base, adapter, ids), want),
                  "logits merged": relative(ours(merged, None, ids), whole),
                  "logits merged, by transformers": relative(theirs(AutoModelForCausalLM.from_pretrained(merged), ids), whole)}
        scores, changed = check_scores(where, base)
        for what, error in {**errors, **scores}.items():
            print(f"{what}: {error:.2e}")
        print(f"the adapters change logits by {relative(want, bare):.2f}, scores by {changed:.2f}")
        sys.exit(not all(error < 1e-5 for error in [*errors.values(), *scores.values()])
                 or relative(want, bare) < 0.05 or changed < 0.05)


main()
