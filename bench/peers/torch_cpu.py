"""PyTorch on the CPU, on the shapes the benchmark uses: torch_cpu.py SECTION prints "name<TAB>value"."""
import statistics
import sys
import time

try:
    import torch
except ImportError:
    print("SKIP python3 has no torch")
    sys.exit(0)


def seconds(fn):
    """Median of one call, after a call to warm up."""
    fn(0)
    times = []
    while len(times) < 5 or (sum(times) < 0.4 and len(times) < 200):
        start = time.perf_counter()
        fn(len(times) + 1)
        times.append(time.perf_counter() - start)
        if sum(times) > 5:
            break
    return statistics.median(times)


def row(name, value):
    print(f"{name}\t{value:.6g}", flush=True)


def products():
    shapes = [("qkv", 1152, 896), ("o", 896, 896), ("gate_up", 9728, 896), ("down", 896, 4864)]
    for dtype, label in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        for m in (512, 1):
            for layer, n, k in shapes:
                copies = (96 << 20) // (n * k * dtype.itemsize) + 1
                w = [(torch.rand(n, k) * 2 - 1).to(dtype) for _ in range(copies)]
                x = (torch.rand(m, k) * 2 - 1).to(dtype)
                dy = (torch.rand(m, n) * 2 - 1).to(dtype)
                shape = f"[{m},{n},{k}] {label}"
                s = seconds(lambda i: x @ w[i % copies].T)
                if m == 1:
                    row(f"matmul {layer} {shape}", n * k * dtype.itemsize / s * 1e-9)
                    continue
                flop = 2 * m * n * k * 1e-9
                row(f"matmul {layer} {shape}", flop / s)
                row(f"matmul {layer} dx {shape}", flop / seconds(lambda i: dy @ w[i % copies]))
                row(f"matmul {layer} dw {shape}", flop / seconds(lambda i: dy.T @ x))


SECTIONS = {"products": products}

if __name__ == "__main__":
    torch.manual_seed(1)
    with torch.no_grad():
        SECTIONS[sys.argv[1]]()
