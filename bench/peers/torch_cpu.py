"""PyTorch on the CPU, on the shapes the benchmark uses: torch_cpu.py SECTION prints "name<TAB>value"."""
import statistics
import sys
import time

try:
    import torch
except ImportError:
    print("SKIP python3 has no torch")
    sys.exit(0)
from common import LENGTH, rollouts, row, seconds


def products():
    shapes = [("qkv", 1152, 896), ("o", 896, 896), ("gate_up", 9728, 896), ("down", 896, 4864)]
    for dtype, label in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        for m in (512, 32, 1):
            for layer, n, k in shapes:
                copies = ((96 if m >= 512 else 576) << 20) // (n * k * dtype.itemsize) + 1
                w = [(torch.rand(n, k) * 2 - 1).to(dtype) for _ in range(copies)]
                x = (torch.rand(m, k) * 2 - 1).to(dtype)
                dy = (torch.rand(m, n) * 2 - 1).to(dtype)
                shape = f"[{m},{n},{k}] {label}"
                s = seconds(lambda i: x @ w[i % copies].T)
                if m < 512:
                    row(f"matmul {layer} {shape}", n * k * dtype.itemsize / s * 1e-9)
                    continue
                flop = 2 * m * n * k * 1e-9
                row(f"matmul {layer} {shape}", flop / s)
                row(f"matmul {layer} dx {shape}", flop / seconds(lambda i: dy @ w[i % copies]))
                dw = torch.zeros(n, k, dtype=dtype)  # a gradient that is added to, as ours is
                row(f"matmul {layer} dw {shape}", flop / min(seconds(lambda i: dw.addmm_(dy.T, x)),
                                                             seconds(lambda i: dw.add_(dy.T @ x))))


def qwen2(shape, dtype):
    """HF's Qwen2 with random weights: the tiny model, or Qwen2.5-0.5B's shape."""
    try:
        from transformers import Qwen2Config, Qwen2ForCausalLM
    except ImportError:
        print("SKIP python3 has no transformers")
        sys.exit(0)
    size = {
        "tiny": dict(vocab_size=512, hidden_size=128, intermediate_size=384, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2),
        "0.5B": dict(vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
                     num_attention_heads=14, num_key_value_heads=2),
    }[shape]
    torch.set_default_dtype(dtype)
    model = Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=True, attn_implementation="sdpa", **size))
    torch.set_default_dtype(torch.float32)
    return model


def train():
    for shape, dtype, label, b, t in (("tiny", torch.float32, "f32", 8, 128), ("tiny", torch.bfloat16, "bf16", 8, 128),
                                      ("0.5B", torch.bfloat16, "bf16", 1, 512)):
        model = qwen2(shape, dtype)
        ids = torch.randint(model.config.vocab_size, (b, t))
        name = f"{shape}, {b} x {t} tokens, {label}"
        row(f"prefill {name}", b * t / seconds(lambda i: model.model(ids, use_cache=False)))

        def step(_):
            with torch.enable_grad():
                logits = model(ids, use_cache=False).logits[:, :-1].flatten(0, 1)
                torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:].flatten()).backward()

        row(f"train {name}", b * t / seconds(step))


def decode():
    from transformers import DynamicCache
    for shape, dtype, label, b, n in (("0.5B", torch.bfloat16, "bf16", 1, 16), ("0.5B", torch.bfloat16, "bf16", 8, 8),
                                      ("tiny", torch.float32, "f32", 64, 64)):
        model = qwen2(shape, dtype)
        cache = DynamicCache()
        ids = torch.randint(model.config.vocab_size, (b, 16))

        def token(ids):
            logits = model(ids, past_key_values=cache, use_cache=True).logits[:, -1].float() / 0.9
            return torch.multinomial(torch.softmax(logits, -1), 1)

        ids = token(ids)
        times = []
        for _ in range(n):
            start = time.perf_counter()
            ids = token(ids)
            times.append(time.perf_counter() - start)
        step = statistics.median(times)
        if b > 1:
            row(f"decode {shape}, B = {b}, {label}", b / step)
            continue
        weights = sum(p.numel() for p in model.parameters()) * dtype.itemsize
        row(f"decode {shape}, B = {b}, {label}", weights / step * 1e-9)
        row(f"decode {shape}, B = {b}, {label}, tokens", 1 / step)


def generate(model, prompts, group, seed):
    """HF's generate(): it runs a prompt once for each of its completions."""
    torch.manual_seed(seed)
    ids = torch.tensor(prompts)
    out = model.generate(ids, do_sample=True, temperature=0.9, top_k=0, top_p=1.0, min_new_tokens=LENGTH, max_new_tokens=LENGTH,
                         num_return_sequences=group, pad_token_id=0, attention_mask=torch.ones_like(ids))
    return out[:, ids.shape[1]:].tolist()


def rollout():
    import transformers
    model = qwen2("0.5B", torch.bfloat16).eval()
    rollouts(f"HF generate (transformers {transformers.__version__}, torch {torch.__version__})",
             {"DynamicCache": lambda *what: generate(model, *what)})


def select():
    """Texts that a reward model scores, and tokens that generate() draws, 32 sequences at a time."""
    from transformers import Qwen2ForSequenceClassification
    for shape in ("tiny", "0.5B"):
        causal = qwen2(shape, torch.bfloat16).eval()
        causal.config.num_labels, causal.config.pad_token_id = 1, 0
        torch.set_default_dtype(torch.bfloat16)
        scorer = Qwen2ForSequenceClassification(causal.config).eval()
        torch.set_default_dtype(torch.float32)
        ids = torch.randint(1, causal.config.vocab_size, (16, 256))
        best = max(16 / seconds(lambda i: [scorer(part, use_cache=False) for part in ids.split(n)]) for n in (4, 8, 16))
        row(f"reward model {shape}, 16 texts of 256 tokens, bf16", best)
        # Eight completions of a question at a time, padded to the longest.
        lengths = [150 + 100 + 37 * i % 101 for i in range(16)]
        padded = torch.zeros(16, max(lengths), dtype=torch.long)
        mask = torch.zeros_like(padded)
        for i, n in enumerate(lengths):
            padded[i, :n], mask[i, :n] = torch.randint(1, causal.config.vocab_size, (n,)), 1
        best = max(16 / seconds(lambda i: [scorer(padded[a:a + n, :max(lengths[a:a + n])],
                                                  attention_mask=mask[a:a + n, :max(lengths[a:a + n])], use_cache=False)
                                           for a in range(0, 16, n)]) for n in (1, 4, 8))
        row(f"reward model {shape}, 2 x 8 completions of 100-200 after 150, bf16", best)
        del scorer
        prompts = torch.randint(1, causal.config.vocab_size, (32, 64))
        s = seconds(lambda i: causal.generate(prompts, do_sample=True, temperature=0.9, top_k=0, min_new_tokens=16,
                                              max_new_tokens=16, pad_token_id=0, attention_mask=torch.ones_like(prompts)))
        row(f"select {shape}, B = 32", 32 * 16 / s)


SECTIONS = {"products": products, "train": train, "decode": decode, "rollout": rollout, "select": select}

if __name__ == "__main__":
    torch.manual_seed(1)
    with torch.no_grad():
        SECTIONS[sys.argv[1]]()
