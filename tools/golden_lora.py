"""LoRA goldens from PEFT and torch: an adapter as PEFT saves it, the loss and the adapter's gradients beside a model of
golden_model.py's formula, and what ten steps of AdamW make of it."""

import json
import os

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from golden_model import MODELS, build, config, dims, inputs, uniform, whole

# Some projections, so that parts of a fused product have none; and all of them, PEFT's "all-linear".
CASES = {
    "qwen3_tied": dict(r=3, lora_alpha=7, use_rslora=True,
                       target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]),
    "qwen2_tiny": dict(r=2, lora_alpha=5, target_modules="all-linear"),
}
STEPS, SAMPLES = 10, 48
ADAM = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)


def saved_name(key):
    return key.replace(".modules_to_save.", ".").replace(".default.", ".")


def loss_of(model, ids):
    """Mean over every token but a sequence's first."""
    total, n = 0, 0
    for x in ids:
        lp = torch.log_softmax(model(input_ids=x[None]).logits[0, :-1].float(), -1)
        total, n = total - lp.gather(1, x[1:, None]).sum(), n + len(x) - 1
    return total / n


def sample(key, x, n=SAMPLES):
    """Elements of a tensor as its file has them."""
    index = np.sort(np.argsort(uniform("sample " + key, x.numel()), kind="stable")[:n])
    return {"norm": x.double().norm().item(), "index": index.tolist(), "value": x.flatten()[index].tolist()}


def golden(out, name, asked):
    cfg = config(name)
    base, fills = build(cfg, torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **asked)).eval()
    adapter = {saved_name(k): p for k, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for key, p in adapter.items():
            p.copy_(torch.from_numpy(uniform(key, p.numel()).reshape(p.shape) / np.float32(p.shape[1] ** 0.5)))
    model.peft_config["default"].base_model_name_or_path = name
    model.save_pretrained(os.path.join(out, name))
    os.remove(os.path.join(out, name, "README.md"))
    ids = inputs(cfg.vocab_size)
    optimizer = torch.optim.AdamW(adapter.values(), foreach=False, **ADAM)
    losses, gradients = [], None
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        losses.append(loss.item())
        gradients = gradients or {key: sample(key, p.grad) for key, p in adapter.items()}
        optimizer.step()
    losses.append(loss_of(model, ids).item())
    with model.disable_adapter():
        without = loss_of(model, ids).item()
    print(f"{name}: loss {without:.4f} without the adapter, {losses[0]:.4f} with it, {losses[-1]:.4f} after {STEPS} steps")
    return {"name": name, **({"config": MODELS[name]} if whole(name) else {"dims": dims(cfg)}), "fills": fills,
            "ids": [x.tolist() for x in ids], "adam": {**ADAM, "betas": list(ADAM["betas"])}, "without": without,
            "losses": losses, "gradients": gradients, "after": {key: sample(key, p.data) for key, p in adapter.items()}}


def write(out, versions):
    import peft
    from golden_loss import dump

    torch.set_num_threads(2)
    directory, path = os.path.join(out, "lora"), os.path.join(out, "lora.json")
    cases = [golden(directory, name, asked) for name, asked in CASES.items()]
    with open(path, "w") as f:
        f.write(dump({"made_with": {**versions, "peft": peft.__version__}, "cases": cases}) + "\n")
    print(f"{path}: {os.path.getsize(path)} bytes")
