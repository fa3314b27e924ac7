"""PyTorch on a GPU, on the shapes the benchmark uses: torch_cuda.py SECTION prints "name<TAB>value".

Training is one compiled step (torch.compile) of HF's Qwen2 with SDPA attention, bf16, over the full vocabulary.
PEER_DEVICE=cpu tries the script itself on a tiny shape, without meaning in its figures.
"""
import os
import statistics
import sys
import time

from torch_cpu import qwen2, row, torch

DEVICE = os.environ.get("PEER_DEVICE", "cuda")
TRIAL = DEVICE == "cpu"
if not TRIAL and not torch.cuda.is_available():
    print("SKIP torch sees no GPU")
    sys.exit(0)


def sync():
    if not TRIAL:
        torch.cuda.synchronize()


def seconds(fn, calls=1):
    """Median of one call out of `calls` in a row, after two to warm up."""
    for i in range(2):
        fn(i)
    sync()
    times = []
    while len(times) < 5 or (sum(times) < 0.4 and len(times) < 200):
        start = time.perf_counter()
        for i in range(calls):
            fn(i)
        sync()
        times.append((time.perf_counter() - start) / calls)
        if sum(times) * calls > 5:
            break
    return statistics.median(times)


def on_device(shape):
    with torch.device(DEVICE):
        return qwen2("tiny" if TRIAL else shape, torch.bfloat16)


def products():
    shapes = [("qkv", 1152, 896), ("o", 896, 896), ("gate_up", 9728, 896), ("down", 896, 4864)]
    for m in (8,) if TRIAL else (8192, 256, 8):
        for layer, n, k in shapes:
            copies = (576 << 20) // (n * k * 2) + 1 if not TRIAL else 2
            w = [(torch.rand(n, k, device=DEVICE) * 2 - 1).bfloat16() for _ in range(copies)]
            x = (torch.rand(m, k, device=DEVICE) * 2 - 1).bfloat16()
            dy = (torch.rand(m, n, device=DEVICE) * 2 - 1).bfloat16()
            shape, calls = f"[{m},{n},{k}] bf16", min(copies, 100)
            row(f"matmul {layer} {shape}", 1e6 * seconds(lambda i: x @ w[i % copies].T, calls))
            if m < 512:  # decoding has no backward pass
                continue
            row(f"matmul {layer} dx {shape}", 1e6 * seconds(lambda i: dy @ w[i % copies], calls))
            row(f"matmul {layer} dw {shape}", 1e6 * seconds(lambda i: dy.T @ x, calls))


def train():
    model = on_device("0.5B")
    b, t = (2, 32) if TRIAL else (16, 512)
    ids = torch.randint(model.config.vocab_size, (b, t), device=DEVICE)
    row(f"prefill 0.5B, {b} x {t} tokens, bf16", b * t / seconds(lambda i: model.model(ids, use_cache=False)))

    def loss():
        logits = model(ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:].flatten())

    compiled = loss if TRIAL else torch.compile(loss)

    def step(_):
        with torch.enable_grad():
            compiled().backward()

    row(f"train 0.5B, {b} x {t} tokens, bf16", b * t / seconds(step))


SECTIONS = {"products": products, "train": train}

if __name__ == "__main__":
    torch.manual_seed(1)
    with torch.no_grad():
        SECTIONS[sys.argv[1]]()
