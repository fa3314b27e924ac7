#!/bin/sh
# triton 3.9.0 and the ptxas it brings, tensor descriptors for sm_90.
#
# Behaviour: descriptor.gather, compiled for ("cuda", 90), passes Triton's own checks and becomes
# cp.async.bulk.tensor.2d.tile::gather4, which is no instruction of sm_90; the ptxas that Triton ships then refuses the
# PTX that Triton wrote. Loads and stores of the same descriptor compile for sm_90.
# One expects: an error of Triton that names the line of the kernel and the architecture, or code for sm_90.
# Seen: "Internal Triton PTX codegen error", ptxas: ".tile::gather4 ... requires .target sm_100 or higher".
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cd "$room"

python3 -m venv venv
venv/bin/pip install -q triton==3.9.0
cat >try.py <<'PY'
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def rows(x, out, M, N, GATHER: tl.constexpr):
    d = tl.make_tensor_descriptor(x, [M, N], [N, 1], [1 if GATHER else 16, 64])
    at = tl.arange(0, 16)
    if GATHER:
        block = d.gather(at * 3, 0)
    else:
        block = d.load([0, 0])
    tl.store(out + at[:, None] * 64 + tl.arange(0, 64)[None, :], block)


def compiled(gather):
    source = ASTSource(rows, {"x": "*bf16", "out": "*bf16", "M": "i32", "N": "i32", "GATHER": "constexpr"},
                       {"GATHER": gather})
    try:
        triton.compile(source, target=GPUTarget("cuda", 90, 32))
        return "compiles"
    except Exception as e:
        return f"{type(e).__name__}: {e}"


load, gather = compiled(False), compiled(True)
print("load:", load)
print("gather:", *[line for line in gather.splitlines() if "gather4" in line or "Error" in line][:2], sep="\n  ")
raise SystemExit(0 if load == "compiles" and "requires .target sm_100 or higher" in gather else 1)
PY
if ! TRITON_CACHE_DIR=$room/cache venv/bin/python try.py; then
    echo "changed: not as described"
    exit 1
fi
echo "as described: Triton writes PTX for sm_90 that its own ptxas refuses"
