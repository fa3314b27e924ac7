"""Makes tests/golden/ptx: kernels written in Triton and compiled to PTX, and what numpy says they must compute.

    python tools/golden_ptx.py [FOLDER]      needs triton and numpy; no GPU

They are foreign code for the machine of tests/ptx (build/ptx): its understanding of PTX is held against theirs. For each kernel
there is NAME.ptx, NAME.bin (its outputs in f32, one after the other) and an entry in kernels.json that says how to launch it.
Inputs are not kept: both sides make them from a seed (`numbers` here, `numbers` in tests/test_ptx.c).
"""
import json
import os
import re
import sys

os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"
import numpy as np  # noqa: E402
import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402


# ---- kernels ---------------------------------------------------------------------------------------------------------
@triton.jit
def matmul_pointers(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """c[M, N] = a[M, K] b[K, N] through pointers and masks."""
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    pa = a + rm[:, None] * K + rk[None, :]
    pb = b + rk[:, None] * N + rn[None, :]
    sum = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        x = tl.load(pa, mask=(rm[:, None] < M) & (rk[None, :] + k < K), other=0.0)
        y = tl.load(pb, mask=(rk[:, None] + k < K) & (rn[None, :] < N), other=0.0)
        sum = tl.dot(x, y, sum)
        pa += BK
        pb += BK * N
    tl.store(c + rm[:, None] * N + rn[None, :], sum.to(c.dtype.element_ty), mask=(rm[:, None] < M) & (rn[None, :] < N))


@triton.jit
def matmul_descriptors(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """The same through tensor descriptors made on the device."""
    m = tl.program_id(0) * BM
    n = tl.program_id(1) * BN
    da = tl.make_tensor_descriptor(a, [M, K], [K, 1], [BM, BK])
    db = tl.make_tensor_descriptor(b, [K, N], [N, 1], [BK, BN])
    dc = tl.make_tensor_descriptor(c, [M, N], [N, 1], [BM, BN])
    sum = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        sum = tl.dot(da.load([m, k]), db.load([k, n]), sum)
    dc.store([m, n], sum.to(c.dtype.element_ty))


@triton.jit
def flash_attention(q, k, v, o, T, scale, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """o[H, T, D]: causal attention of q, k, v [H, T, D]; the scale is that of exp2."""
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rd = tl.arange(0, D)
    rn = tl.arange(0, BN)
    head = tl.program_id(1) * T * D
    x = tl.load(q + head + rm[:, None] * D + rd[None, :], mask=rm[:, None] < T, other=0.0)
    most = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    sum = tl.zeros((BM, D), tl.float32)
    for n in range(0, T, BN):
        at = n + rn
        y = tl.load(k + head + at[:, None] * D + rd[None, :], mask=at[:, None] < T, other=0.0)
        s = tl.dot(x, y.T) * scale
        s = tl.where((rm[:, None] >= at[None, :]) & (at[None, :] < T), s, float("-inf"))
        now = tl.maximum(most, tl.max(s, 1))
        p = tl.exp2(s - now[:, None])
        shrink = tl.exp2(most - now)
        total = total * shrink + tl.sum(p, 1)
        z = tl.load(v + head + at[:, None] * D + rd[None, :], mask=at[:, None] < T, other=0.0)
        sum = tl.dot(p.to(z.dtype), z, sum * shrink[:, None])
        most = now
    tl.store(o + head + rm[:, None] * D + rd[None, :], (sum / total[:, None]).to(o.dtype.element_ty), mask=rm[:, None] < T)


@triton.jit
def softmax(x, y, N, B: tl.constexpr):
    row = tl.program_id(0) * N
    c = tl.arange(0, B)
    v = tl.load(x + row + c, mask=c < N, other=float("-inf")).to(tl.float32)
    e = tl.exp(v - tl.max(v, 0))
    tl.store(y + row + c, (e / tl.sum(e, 0)).to(y.dtype.element_ty), mask=c < N)


@triton.jit
def layer_norm_backward(dx, dw, db, dy, x, w, mean, rstd, N, B: tl.constexpr):
    """dw and db are added to by atomics."""
    r = tl.program_id(0)
    c = tl.arange(0, B)
    there = c < N
    g = tl.load(dy + r * N + c, mask=there, other=0.0).to(tl.float32)
    wg = tl.load(w + c, mask=there, other=0.0).to(tl.float32) * g
    xh = (tl.load(x + r * N + c, mask=there, other=0.0).to(tl.float32) - tl.load(mean + r)) * tl.load(rstd + r)
    xh = tl.where(there, xh, 0.0)
    out = (wg - xh * (tl.sum(xh * wg, 0) / N) - tl.sum(wg, 0) / N) * tl.load(rstd + r)
    tl.store(dx + r * N + c, out.to(dx.dtype.element_ty), mask=there)
    tl.atomic_add(dw + c, g * xh, mask=there)
    tl.atomic_add(db + c, g, mask=there)


@triton.jit
def scan(x, y, z, N, B: tl.constexpr):
    """Running sums and products of rows."""
    row = tl.program_id(0) * N
    c = tl.arange(0, B)
    v = tl.load(x + row + c, mask=c < N, other=1.0).to(tl.float32)
    tl.store(y + row + c, tl.cumsum(v, 0), mask=c < N)
    tl.store(z + row + c, tl.cumprod(v, 0), mask=c < N)


# ---- numbers ---------------------------------------------------------------------------------------------------------
def rounded(x, dtype):
    """f64 to f32, then to dtype; as the f32 it holds."""
    x = x.astype(np.float32)
    if dtype == "fp16":
        return x.astype(np.float16).astype(np.float32)
    if dtype == "bf16":
        u = x.view(np.uint32)
        return ((u + 0x7FFF + ((u >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return x


def numbers(n, seed, low, high, dtype):
    """n numbers in [low, high): splitmix64 (Steele et al. 2014) of seed 2^32 + i."""
    with np.errstate(over="ignore"):
        z = (np.arange(n, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return rounded(low + (high - low) * ((z >> np.uint64(11)).astype(np.float64) * 2.0**-53), dtype)


# ---- goldens ---------------------------------------------------------------------------------------------------------
folder = sys.argv[1] if len(sys.argv) > 1 else "tests/golden/ptx"
os.makedirs(folder, exist_ok=True)
entries = []


SIXTEENS = ("N", "K")  # sizes that are multiples of 16, as Triton's launcher would tell the compiler


def compile_kernel(kernel, signature, constants, capability, warps, stages):
    full = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names)
               if str(full[n]).startswith("*") or n in SIXTEENS}
    source = ASTSource(kernel, signature=full, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, "num_stages": stages})


def golden(name, kernel, constants, capability, warps, stages, grid, arguments, tolerance):
    """arguments: (name, type, what), where what is {"in": ...}, {"out": ..., "want": array} and so on; see test_ptx.c."""
    signature = {a[0]: a[1] for a in arguments}
    made = compile_kernel(kernel, signature, constants, capability, warps, stages)
    text = re.sub(r"[ \t]*//[^\n]*", "", made.asm["ptx"])
    text = re.sub(r"\n\s*\n+", "\n", text).strip() + "\n"
    with open(f"{folder}/{name}.ptx", "w") as f:
        f.write(f"// Triton {triton.__version__}: {kernel.__name__}, {warps} warps, {stages} stages (tools/golden_ptx.py)\n{text}")
    want = [a[2].pop("want") for a in arguments if "want" in a[2]]
    np.concatenate([w.astype(np.float32).ravel() for w in want]).tofile(f"{folder}/{name}.bin")
    passed = [a[2] for a in arguments] + [{"text": "buf:65536"}, {"text": "u64:0"}]  # Triton's scratch and profile
    entries.append({"name": name, "entry": made.metadata.name, "grid": grid, "threads": 32 * warps,
                    "shared": made.metadata.shared, "tolerance": tolerance, "arguments": passed})


STORED = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2e-6}
TENSOR = {"bf16": 2.0**-8, "fp16": 2.0**-11, "fp32": 2.0**-9}  # f32 goes through tf32


def matmul(name, kernel, dtype, capability, warps, stages, M=40, N=80, K=96, block=(64, 64, 32)):
    a = numbers(M * K, 1, -1, 1, dtype).reshape(M, K)
    b = numbers(K * N, 2, -1, 1, dtype).reshape(K, N)
    BM, BN, BK = block
    golden(name, kernel, {"BM": BM, "BN": BN, "BK": BK}, capability, warps, stages, f"{-(-M // BM)},{-(-N // BN)}",
           [("a", "*" + dtype, {"in": dtype, "n": M * K, "seed": 1, "low": -1, "high": 1}),
            ("b", "*" + dtype, {"in": dtype, "n": K * N, "seed": 2, "low": -1, "high": 1}),
            ("c", "*" + dtype, {"out": dtype, "n": M * N, "want": a.astype(np.float64) @ b}),
            ("M", "i32", {"text": f"i32:{M}"}), ("N", "i32", {"text": f"i32:{N}"}), ("K", "i32", {"text": f"i32:{K}"})],
           TENSOR[dtype])


def attention(name, dtype, capability, warps, stages, H=2, T=80, D=64):
    q, k, v = (numbers(H * T * D, s, -1, 1, dtype).reshape(H, T, D).astype(np.float64) for s in (1, 2, 3))
    scale = float(np.float32(D**-0.5 * np.log2(np.e)))
    s = np.where(np.tril(np.ones((T, T))) > 0, np.einsum("hid,hjd->hij", q, k) * scale, -np.inf)
    p = np.exp2(s - s.max(-1, keepdims=True))
    given = [(n, "*" + dtype, {"in": dtype, "n": H * T * D, "seed": i, "low": -1, "high": 1}) for i, n in ((1, "q"), (2, "k"), (3, "v"))]
    golden(name, flash_attention, {"D": D, "BM": 64, "BN": 32}, capability, warps, stages, f"{-(-T // 64)},{H}",
           given + [("o", "*" + dtype, {"out": dtype, "n": H * T * D, "want": (p / p.sum(-1, keepdims=True)) @ v}),
                    ("T", "i32", {"text": f"i32:{T}"}), ("scale", "fp32", {"text": f"f32:{scale!r}"})], 2 * TENSOR[dtype])


def rows(name, capability, dtype, warps):
    R, N = 3, 496
    x = numbers(R * N, 1, -4, 4, dtype).reshape(R, N).astype(np.float64)
    e = np.exp(x - x.max(1, keepdims=True))
    golden(f"softmax_{name}", softmax, {"B": 512}, capability, warps, 1, f"{R}",
           [("x", "*" + dtype, {"in": dtype, "n": R * N, "seed": 1, "low": -4, "high": 4}),
            ("y", "*" + dtype, {"out": dtype, "n": R * N, "want": e / e.sum(1, keepdims=True)}),
            ("N", "i32", {"text": f"i32:{N}"})], STORED[dtype])

    g = numbers(R * N, 2, -1, 1, dtype).reshape(R, N).astype(np.float64)
    w = numbers(N, 3, -1, 1, dtype).astype(np.float64)
    mean, rstd = (numbers(R, s, 0.1, 0.5, "fp32").astype(np.float64)[:, None] for s in (4, 5))
    xh = (x - mean) * rstd
    dx = (w * g - xh * (xh * w * g).sum(1, keepdims=True) / N - (w * g).sum(1, keepdims=True) / N) * rstd
    golden(f"layer_norm_{name}", layer_norm_backward, {"B": 512}, capability, warps, 1, f"{R}",
           [("dx", "*" + dtype, {"out": dtype, "n": R * N, "want": dx}),
            ("dw", "*fp32", {"inout": "fp32", "n": N, "want": (g * xh).sum(0)}),
            ("db", "*fp32", {"inout": "fp32", "n": N, "want": g.sum(0)}),
            ("dy", "*" + dtype, {"in": dtype, "n": R * N, "seed": 2, "low": -1, "high": 1}),
            ("x", "*" + dtype, {"in": dtype, "n": R * N, "seed": 1, "low": -4, "high": 4}),
            ("w", "*" + dtype, {"in": dtype, "n": N, "seed": 3, "low": -1, "high": 1}),
            ("mean", "*fp32", {"in": "fp32", "n": R, "seed": 4, "low": 0.1, "high": 0.5}),
            ("rstd", "*fp32", {"in": "fp32", "n": R, "seed": 5, "low": 0.1, "high": 0.5}),
            ("N", "i32", {"text": f"i32:{N}"})], STORED[dtype])

    v = numbers(R * N, 6, 0.9, 1.1, dtype).reshape(R, N).astype(np.float64)
    golden(f"scan_{name}", scan, {"B": 512}, capability, warps, 1, f"{R}",
           [("x", "*" + dtype, {"in": dtype, "n": R * N, "seed": 6, "low": 0.9, "high": 1.1}),
            ("y", "*fp32", {"out": "fp32", "n": R * N, "want": v.cumsum(1)}),
            ("z", "*fp32", {"out": "fp32", "n": R * N, "want": v.cumprod(1)}),
            ("N", "i32", {"text": f"i32:{N}"})], STORED["fp32"])


for capability in (80, 90):
    for dtype, warps, stages in (("bf16", 4, 3), ("fp16", 8, 2), ("fp32", 2, 1)):
        matmul(f"matmul_{dtype}_{capability}", matmul_pointers, dtype, capability, warps, stages)
    attention(f"attention_bf16_{capability}", "bf16", capability, 4, 3)
    rows(f"bf16_{capability}", capability, "bf16", 4)
for dtype, warps, stages in (("bf16", 4, 3), ("fp16", 8, 4), ("fp32", 4, 2), ("bf16", 1, 1)):
    matmul(f"descriptors_{dtype}_{warps}_90", matmul_descriptors, dtype, 90, warps, stages, K=208)  # stages come again
attention("attention_fp16_80", "fp16", 80, 8, 2)
attention("attention_fp32_90", "fp32", 90, 4, 1)
rows("fp32_80", 80, "fp32", 8)

with open(f"{folder}/kernels.json", "w") as f:
    json.dump({"triton": triton.__version__, "numpy": np.__version__, "kernels": entries}, f, indent=1)
    f.write("\n")
