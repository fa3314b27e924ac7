"""Writes tests/golden/reward_model.json: what transformers' classifiers of one label score, and the loss and gradients that
TRL's RewardTrainer makes of pairs; and what an adapter of PEFT's, its score head beside it, scores and learns.

Run as `tools/golden.py reward`. Weights come from golden_model.py's formula; the tokenizer and the chat template are
models/tiny's. Scores are of padded batches, on the right as pipelines do and on the left.
"""

import json
import os
import tempfile

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from golden_lora import sample, saved_name
from golden_model import base_scale, uniform, weight

PAD = 509  # <|endoftext|>
SIZES = dict(vocab_size=512, max_position_embeddings=512, num_hidden_layers=2, id2label={"0": "LABEL_0"},
             label2id={"LABEL_0": 0}, pad_token_id=PAD, bos_token_id=509, eos_token_id=511, dtype="float32")
MODELS = {
    "qwen2": dict(SIZES, model_type="qwen2", architectures=["Qwen2ForSequenceClassification"], hidden_size=64, intermediate_size=72,
                  num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True,
                  rope_parameters={"rope_type": "default", "rope_theta": 1e4}),
    "qwen3": dict(SIZES, model_type="qwen3", architectures=["Qwen3ForSequenceClassification"], hidden_size=40, intermediate_size=68,
                  num_attention_heads=4, num_key_value_heads=2, head_dim=20, rms_norm_eps=1e-6, tie_word_embeddings=False,
                  rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "llama": dict(SIZES, model_type="llama", architectures=["LlamaForSequenceClassification"], hidden_size=48, intermediate_size=44,
                  num_attention_heads=3, num_key_value_heads=1, rms_norm_eps=1e-5, tie_word_embeddings=False,
                  rope_parameters={"rope_type": "default", "rope_theta": 5e5}),
}
TEXTS = [  # question, completion
    ("Tom has 3 pens and gets 4 more. How many now?", "<think>\n3 + 4 = 7\n</think>\n<answer>\n7\n</answer>"),
    ("Tom has 3 pens and gets 4 more. How many now?", "I do not know."),
    ("Tom has 3 pens and gets 4 more. How many now?", "<think>\n3 + 4 = 7, so Tom has seven pens. 7!"),
    ("Say hello.", "Hello! \u00e9\u4f60\u597d"),
    ("", "?"),
    ("Say nothing.", ""),
    ("Stop.", "Stop.<|endoftext|><|endoftext|>"),  # ends with the padding token, where the text is all there is
    ("Name ten words.", "one, two, three, four, five, six, seven, eight, nine, ten " * 3),
]
PAIRS = [  # prompt, chosen, rejected, margin
    ("How are you?", "Very well, thank you.", "What?", 0.5),
    ("Say hello to Tom, who has been away for long.", "Hello, Tom!", "No.", 0.0),
    ("2 + 2?", "4", "It is certainly 5, as everybody knows who can count.", 1.25),
    ("Say hello to Tom, who has been away for long.", "Welcome back, Tom.", "Hello, Tom!", 0.25),
]
SAMPLES, ADAPTER_SAMPLES = 40, 16
# Of the qwen3 case, in lora/NAME. The head of all is trained, as PEFT has it of this task.
ADAPTER = "qwen3_score"
LORA = dict(task_type="SEQ_CLS", r=2, lora_alpha=5, target_modules="all-linear")
STEPS, ADAM = 10, dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)


def summary(text):
    return text.rsplit("</think>", 1)[-1].strip()


def build(name):
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "config.json"), "w") as f:
            json.dump(MODELS[name], f)
        cfg = AutoConfig.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_config(cfg, dtype=torch.float32)
    fills = {}
    with torch.no_grad():
        for key, p in model.named_parameters():
            base, scale = (0.0, 0.5) if key == "score.weight" else base_scale(key, p.shape, cfg.tie_word_embeddings)
            fills[key] = [base, scale]
            p.copy_(weight(key, tuple(p.shape), base, scale))
    return model.eval(), fills


def padded(rows, left):
    n = max(map(len, rows))
    pad = lambda x, fill: ([fill] * (n - len(x)) + x) if left else (x + [fill] * (n - len(x)))
    ids = torch.tensor([pad(x, PAD) for x in rows])
    mask = torch.tensor([pad([1] * len(x), 0) for x in rows])
    return ids, mask


def scores(model, rows):
    out = []
    for left in (False, True):
        ids, mask = padded(rows, left)
        position = (mask.cumsum(-1) - 1).clamp(min=0)
        out.append(model(input_ids=ids, attention_mask=mask, position_ids=position).logits[:, 0])
    assert (out[0] - out[1]).abs().max() < 1e-4, (out[0] - out[1]).abs().max()
    return out[0].tolist()


def texts(model, tok):
    conversation = lambda q, t: tok.apply_chat_template(
        [{"role": "user", "content": q}, {"role": "assistant", "content": t}], tokenize=True, return_dict=False)
    raw = lambda q, t: tok(q + t + (tok.eos_token if not (q + t).endswith(tok.eos_token) else ""))["input_ids"]
    with torch.no_grad():
        return {
            "completion": scores(model, [conversation(q, t) for q, t in TEXTS]),
            "summary": scores(model, [conversation(q, summary(t)) for q, t in TEXTS]),
            "raw": scores(model, [raw(q, t) for q, t in TEXTS]),
        }


def trainer_of(model, tok, margin, center):
    """TRL's trainer, and all pairs as one batch of it."""
    rows = [dict(prompt=p, chosen=c, rejected=r, **({"margin": m} if margin else {})) for p, c, r, m in PAIRS]
    with tempfile.TemporaryDirectory() as directory:
        args = RewardConfig(output_dir=directory, per_device_train_batch_size=len(rows), report_to=[], bf16=False,
                            use_cpu=True, gradient_checkpointing=False, center_rewards_coefficient=center or None,
                            disable_dropout=True)
        trainer = RewardTrainer(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tok)
    return trainer, trainer.data_collator([trainer.train_dataset[i] for i in range(len(rows))])


def training(model, tok, margin, center):
    trainer, batch = trainer_of(model, tok, margin, center)
    model.zero_grad()
    loss, out = trainer.compute_loss(model, dict(batch), return_outputs=True)
    loss.backward()
    picked = {}
    for key, p in model.named_parameters():
        x = p.grad.flatten()
        there = np.flatnonzero(x.numpy())
        index = np.sort(there[np.argsort(uniform("sample " + key, len(there)), kind="stable")[:SAMPLES]])
        picked[key] = {"norm": x.double().norm().item(), "index": index.tolist(), "value": x[index].tolist()}
    return {"margin": margin, "center": center, "loss": loss.item(), "scores": out.logits[:, 0].tolist(),
            "gradients": picked}


def adapter(directory, tok, margin, center):
    """An adapter as PEFT saves it, its scores, its gradients, and what steps of AdamW on all pairs make of it."""
    model = get_peft_model(build("qwen3")[0], LoraConfig(**LORA)).eval()
    trained = {saved_name(k): p for k, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for key, p in trained.items():
            p.copy_(torch.from_numpy(uniform(key, p.numel()).reshape(p.shape) / np.float32(p.shape[1] ** 0.5)))
    model.peft_config["default"].base_model_name_or_path = "rm"
    model.save_pretrained(os.path.join(directory, ADAPTER))
    os.remove(os.path.join(directory, ADAPTER, "README.md"))
    scored = texts(model, tok)["completion"]
    trainer, batch = trainer_of(model, tok, margin, center)
    optimizer = torch.optim.AdamW(trained.values(), foreach=False, **ADAM)
    losses, gradients = [], None
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = trainer.compute_loss(model, dict(batch))
        loss.backward()
        losses.append(loss.item())
        gradients = gradients or {key: sample(key, p.grad, ADAPTER_SAMPLES) for key, p in trained.items()}
        optimizer.step()
    print(f"{ADAPTER}: loss {losses[0]:.4f}, {losses[-1]:.4f} after {STEPS - 1} steps")
    return {"name": ADAPTER, "margin": margin, "center": center, "completion": scored,
            "adam": {**ADAM, "betas": list(ADAM["betas"])}, "losses": losses, "gradients": gradients,
            "after": {key: sample(key, p.data, ADAPTER_SAMPLES) for key, p in trained.items()}}


def golden(directory, name, tok):
    model, fills = build(name)
    out = {"config": MODELS[name], "fills": fills, **texts(model, tok)}
    cases = [(False, 0.0), (True, 0.01)] if name == "qwen2" else [(True, 0.05)] if name == "qwen3" else []
    out["training"] = [training(model, tok, *case) for case in cases]
    if name == "qwen3":
        out["adapter"] = adapter(directory, tok, True, 0.05)
    return {"name": name, **out}


def write(path, versions):
    import peft
    from golden_loss import dump

    tok = AutoTokenizer.from_pretrained("models/tiny")
    rows = {"made_with": {**versions, "peft": peft.__version__}, "texts": [list(x) for x in TEXTS], "pairs": [list(x) for x in PAIRS],
            "cases": [golden(os.path.join(os.path.dirname(path), "lora"), name, tok) for name in MODELS]}
    with open(path, "w") as f:
        f.write(dump(rows) + "\n")
    print(f"{path}: {os.path.getsize(path)} bytes")
