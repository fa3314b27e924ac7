"""Model goldens from HF transformers: logits, log-probs, entropies, gradients, greedy generation.

Weights come from a formula, so that none are stored: element i of the parameter called `name` is

    base + scale * (2 u - 1),   u = (splitmix64(fnv1a64(name) + i) >> 40) / 2^24     (f32, rounded once a step)

with base and scale by kind of parameter, written into the golden. tests/model_case.h computes the same bits.
"""

import json
import os
import tempfile

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

SAMPLES = 288  # stored gradient elements of a parameter
FEWER = 64  # the same of a model whose config.json is whole
TEMPERATURE = 0.8
GAP = 0.02  # least distance between the two best scores of a greedy step

# Grouped queries as in Qwen2.5-0.5B (7:1, head size 64) and 1.5B (6:1, 128), with sizes that no tile divides. The others are
# config.json files whole, in the words of transformers 4 or of 5, a kind of rotary frequencies each; short contexts, so
# that the sequences below reach into what is scaled.
MODELS = {
    "qwen2_tiny": "models/tiny/config.json",
    "qwen2_gqa7": dict(vocab_size=1291, hidden_size=448, intermediate_size=184, num_hidden_layers=2,
                       num_attention_heads=7, num_key_value_heads=1, tie_word_embeddings=False),
    "qwen2_gqa6": dict(vocab_size=257, hidden_size=768, intermediate_size=136, num_hidden_layers=2,
                       num_attention_heads=6, num_key_value_heads=1, tie_word_embeddings=True),
    "qwen3_tied": dict(model_type="qwen3", architectures=["Qwen3ForCausalLM"], vocab_size=131, hidden_size=72,
                       intermediate_size=52, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2,
                       head_dim=32, max_position_embeddings=512, rms_norm_eps=1e-6, rope_theta=1e6, rope_scaling=None,
                       use_sliding_window=False, sliding_window=None, attention_bias=False, tie_word_embeddings=True,
                       torch_dtype="bfloat16"),
    "qwen3_yarn": dict(model_type="qwen3", vocab_size=83, hidden_size=40, intermediate_size=68, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=4, head_dim=20, max_position_embeddings=256,
                       rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0,
                                            original_max_position_embeddings=64),
                       layer_types=["full_attention", "full_attention"], tie_word_embeddings=False, dtype="bfloat16"),
    "llama_head256": dict(model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=101, hidden_size=90,
                          intermediate_size=44, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
                          head_dim=256, max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=5e5,
                          rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                            original_max_position_embeddings=64), mlp_bias=False,
                          tie_word_embeddings=False),
}
LENGTHS = [9, 1, 33, 2, 17, 130]  # attention takes keys in chunks of 64


def splitmix64(x):
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def fnv1a64(name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def uniform(name, n):
    """n values in [-1, 1), exact in f32."""
    with np.errstate(over="ignore"):
        h = splitmix64(np.uint64(fnv1a64(name)) + np.arange(n, dtype=np.uint64))
    u = (h >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    return np.float32(2) * u - np.float32(1)


def weight(name, shape, base, scale):
    x = np.float32(base) + np.float32(scale) * uniform(name, int(np.prod(shape)))
    return torch.from_numpy(x.astype(np.float32).reshape(shape))


def base_scale(name, shape, tied):
    if name.endswith("norm.weight"):
        return 1.0, 0.4
    if name.endswith("bias"):
        return 0.0, 0.5
    if name.startswith("model.embed_tokens"):
        return 0.0, round(4.5 / shape[1] ** 0.5, 4) if tied else 1.0
    if name.startswith("lm_head"):
        return 0.0, round(4.5 / shape[1] ** 0.5, 4)
    return 0.0, round(2.2 / shape[1] ** 0.5, 4)


def whole(name):
    return "model_type" in MODELS[name]


def config(name):
    if name == "qwen2_tiny":
        return Qwen2Config(**json.load(open(MODELS[name])))
    if not whole(name):
        return Qwen2Config(**MODELS[name], max_position_embeddings=512, rms_norm_eps=1e-6, rope_theta=1e6)
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "config.json"), "w") as f:
            json.dump(MODELS[name], f)
        return AutoConfig.from_pretrained(directory, attn_implementation="sdpa")


def build(cfg, dtype):
    model = AutoModelForCausalLM.from_config(cfg, dtype=torch.float32).to(dtype)
    fills = {}
    with torch.no_grad():
        for key, p in model.named_parameters():  # a tied head is listed once, as the embedding
            base, scale = base_scale(key, p.shape, cfg.tie_word_embeddings)
            fills[key] = [base, scale]
            p.copy_(weight(key, tuple(p.shape), base, scale))
    return model.eval(), fills


def inputs(vocab):
    g = torch.Generator().manual_seed(5)
    return [torch.randint(0, vocab, (n,), generator=g) for n in LENGTHS]


def forward(model, ids, temperature):
    """Logits [T,V] f32; for every token but a sequence's last: log-prob of the next one and entropy, at temperature."""
    logits, logp, entropy = [], [], []
    for x in ids:
        z = model(input_ids=x[None]).logits[0]
        z = z if z.dtype == torch.float64 else z.float()
        logits.append(z)
        lp = torch.log_softmax(z[:-1] / temperature, -1)
        logp.append(lp.gather(1, x[1:, None])[:, 0])
        entropy.append(-(lp.exp() * lp).sum(-1))
    return torch.cat(logits), torch.cat(logp), torch.cat(entropy)


def gradients(model, ids, a, b):
    """Of sum(a * logp + b * entropy); the value, logits, logp, entropy, {name: gradient}."""
    model.zero_grad()
    logits, logp, entropy = forward(model, ids, TEMPERATURE)
    loss = (a * logp + b * entropy).sum()
    loss.backward()
    return loss.item(), logits.detach(), logp.detach(), entropy.detach(), {
        key: p.grad.float().flatten() for key, p in model.named_parameters()}


def relative(x, ref):
    return ((x - ref).double().norm() / ref.double().norm()).item()


def dims(cfg):
    return dict(V=cfg.vocab_size, D=cfg.hidden_size, F=cfg.intermediate_size, L=cfg.num_hidden_layers,
                H=cfg.num_attention_heads, K=cfg.num_key_value_heads,
                d=cfg.hidden_size // cfg.num_attention_heads, max_positions=cfg.max_position_embeddings,
                rms_eps=cfg.rms_norm_eps, rope_theta=cfg.rope_parameters["rope_theta"], tied=cfg.tie_word_embeddings)


def golden(name, full):
    cfg = config(name)
    model, fills = build(cfg, torch.float32)
    half, _ = build(cfg, torch.bfloat16)
    ids = inputs(cfg.vocab_size)
    n = sum(LENGTHS) - len(LENGTHS)
    g = torch.Generator().manual_seed(6)
    a, b = torch.randn(n, generator=g), 0.3 * torch.randn(n, generator=g)
    loss, logits, logp, entropy, grads = gradients(model, ids, a, b)
    _, logits_half, logp_half, entropy_half, grads_half = gradients(half, ids, a, b)
    positions = [0, 8, 9, 42, 126, 191]  # first and last of a sequence, the sequence of one token, the end
    picked = {}
    for key, x in grads.items():
        candidates = np.flatnonzero(x.numpy())  # rows of an embedding that no token used say nothing
        order = np.argsort(uniform("sample " + key, len(candidates)), kind="stable")
        index = np.sort(candidates[order[:FEWER if whole(name) else SAMPLES]])
        picked[key] = {
            "norm": x.double().norm().item(),
            "index": index.tolist(),
            "value": x[index].tolist(),
            "bf16_error": (grads_half[key] - x)[index].double().norm().item(),
        }
    if full:
        os.makedirs(full, exist_ok=True)
        for key, x in {"logits": logits, **grads}.items():
            x.numpy().tofile(os.path.join(full, f"{name}.{key}.f32"))
    print(f"{name}: bf16 against f32 in HF: logits {relative(logits_half, logits):.2e} "
          f"logp {relative(logp_half, logp):.2e}; logits std {logits.std():.2f}, mean entropy {entropy.mean():.2f} "
          f"of {np.log(cfg.vocab_size):.2f}")
    return {
        **({"config": MODELS[name]} if whole(name) else {"dims": dims(cfg)}),
        "fills": fills,
        "temperature": TEMPERATURE,
        "ids": [x.tolist() for x in ids],
        "a": a.tolist(),
        "b": b.tolist(),
        "loss": loss,
        "logp": logp.tolist(),
        "entropy": entropy.tolist(),
        "logp_bf16": logp_half.tolist(),
        "entropy_bf16": entropy_half.tolist(),
        "logit_positions": positions,
        "logits": logits[positions].tolist(),
        "logits_bf16": logits_half[positions].tolist(),
        "gradients": picked,
    }


def padding(vocab=24, pad=5, other=9):
    """What the embedding's rows learn where config.json names a padding token that is among the inputs: head and
    embedding apart, and one. The rows of that token and of another."""
    out = []
    for tied in (False, True):
        cfg = Qwen2Config(vocab_size=vocab, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                          num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, rms_norm_eps=1e-6,
                          rope_theta=1e4, tie_word_embeddings=tied, pad_token_id=pad)
        model, fills = build(cfg, torch.float32)
        g = torch.Generator().manual_seed(8)
        ids = [torch.randint(0, vocab, (n,), generator=g) for n in (7, 12)]
        ids[0][2] = ids[1][5] = ids[1][11] = pad
        ids[0][0] = other
        n = sum(len(x) - 1 for x in ids)
        a, b = torch.randn(n, generator=g), 0.3 * torch.randn(n, generator=g)
        grads = gradients(model, ids, a, b)[4]["model.embed_tokens.weight"].reshape(vocab, -1)
        rows = [pad, other]
        out.append({"dims": dims(cfg), "pad": pad, "fills": fills, "temperature": TEMPERATURE,
                    "ids": [x.tolist() for x in ids], "a": a.tolist(), "b": b.tolist(), "rows": rows,
                    "embedding": [grads[r].tolist() for r in rows]})
    return out


GROUPS = [(70, [9, 33, 65]), (20, [1, 12]), (5, [17])]  # tokens of a prompt, of its completions


def groups(name, samples=96):
    """Gradients of completions that share prompts, each run through HF with its prompt before it."""
    cfg = config(name)
    model, fills = build(cfg, torch.float32)
    half, _ = build(cfg, torch.bfloat16)
    exact, _ = build(cfg, torch.float64)
    with torch.no_grad():
        for p, q in zip(exact.parameters(), model.parameters()):
            p.copy_(q)
    g = torch.Generator().manual_seed(9)
    draw = lambda n: torch.randint(0, cfg.vocab_size, (n,), generator=g)
    asked, ids, scored = [], [], []
    for n, completions in GROUPS:
        prompt, answers = draw(n), [draw(k) for k in completions]
        asked.append({"prompt": prompt.tolist(), "completions": [x.tolist() for x in answers]})
        ids += [torch.cat([prompt, x]) for x in answers]
        scored += [torch.arange(1, n + len(x)) >= n for x in answers]
    scored = torch.cat(scored)
    a, b = torch.randn(len(scored), generator=g) * scored, 0.3 * torch.randn(len(scored), generator=g) * scored
    logp, want = [x for k, x in enumerate(gradients(exact, ids, a, b)) if k in (2, 4)]
    rounded = gradients(half, ids, a, b)[4]
    picked = {}
    for key, x in want.items():
        candidates = np.flatnonzero(x.numpy())
        order = np.argsort(uniform("sample " + key, len(candidates)), kind="stable")
        index = np.sort(candidates[order[:samples]])
        picked[key] = {"norm": x.double().norm().item(), "index": index.tolist(), "value": x[index].tolist(),
                       "bf16_error": (rounded[key] - x)[index].double().norm().item()}
    return {"name": name.removeprefix("qwen2_"), "dims": dims(cfg), "fills": fills, "temperature": TEMPERATURE, "groups": asked,
            "a": a[scored].tolist(), "b": b[scored].tolist(), "logp": logp[scored].float().tolist(),
            "gradients": picked}


def greedy(model, prompt, penalty, new_tokens):
    """Token ids and the least gap between the two best scores of any step."""
    out = model.generate(prompt[None], attention_mask=torch.ones_like(prompt)[None], do_sample=False,
                         max_new_tokens=new_tokens, min_new_tokens=new_tokens, repetition_penalty=penalty,
                         output_scores=True, return_dict_in_generate=True, pad_token_id=0, eos_token_id=None)
    best = torch.stack(out.scores)[:, 0].topk(2, -1).values
    return out.sequences[0, len(prompt):].tolist(), (best[:, 0] - best[:, 1]).min().item()


def generations(name, new_tokens=24, wanted=4):
    """Prompts of several lengths, the first ones tried whose greedy steps are all clear of ties."""
    model, _ = build(config(name), torch.float32)
    g = torch.Generator().manual_seed(7)
    found = []
    for penalty in (1.0, 1.3):
        for length in (1, 5, 12, 31)[:wanted]:
            for _ in range(200):
                prompt = torch.randint(0, model.config.vocab_size, (length,), generator=g)
                ids, gap = greedy(model, prompt, penalty, new_tokens)
                if gap > GAP and len(set(ids)) > new_tokens // 3:
                    break
            else:
                raise SystemExit(f"{name}: no prompt of {length} tokens is clear of ties")
            found.append(dict(prompt=prompt.tolist(), repetition_penalty=penalty, ids=ids, least_gap=gap))
    print(f"{name}: {[len(set(x['ids'])) for x in found]} different tokens of {new_tokens}, least gap "
          f"{min(x['least_gap'] for x in found):.3f}")
    return found


def write(out, versions, what, full, only=None):
    from golden_loss import dump

    torch.set_num_threads(2)
    if what in ("padding", "all"):
        path = os.path.join(out, "padding.json")
        with open(path, "w") as f:
            f.write(dump({"made_with": versions, "cases": padding()}) + "\n")
        print(f"{path}: {os.path.getsize(path)} bytes")
    if what in ("groups", "all"):
        path = os.path.join(out, "groups.json")
        with open(path, "w") as f:
            f.write(dump({"made_with": versions, "cases": [groups("qwen2_tiny"), groups("qwen2_gqa7")]}) + "\n")
        print(f"{path}: {os.path.getsize(path)} bytes")
    if what in ("padding", "groups"):
        return
    for name in [only] if only else MODELS:
        path = os.path.join(out, f"{name}.json")
        old = json.load(open(path)) if os.path.exists(path) else {}
        x = {"made_with": versions, **(golden(name, full) if what != "generate" else old)}
        x["generate"] = generations(name) if what != "model" else old.get("generate", [])
        with open(path, "w") as f:
            f.write(dump(x) + "\n")
        print(f"{path}: {os.path.getsize(path)} bytes")
