#!/bin/sh
# ptxas 13.0 (nvidia-cuda-nvcc 13.0.88; 13.5.37 does the same), trap beside setmaxnreg on sm_90a.
#
# Behaviour: in a branch that has raised its registers to 240 (setmaxnreg.inc) and holds 200 sums, a `trap` that one
# thread may reach (a guard in a loop that waits) makes ptxas spill hundreds of bytes around the branch's work.
# One expects: an instruction after which nothing runs keeps no registers alive and costs none; `exit` and `brkpt` in its
# place cost none, nor does `trap` in a kernel without setmaxnreg.
# Seen: 388 bytes of spill stores with trap, 0 with exit and with brkpt, 0 with trap where setmaxnreg is left out.
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cd "$room"
command -v g++ >/dev/null || { echo "nvcc needs g++ here"; exit 1; }

python3 -m venv venv
venv/bin/pip install -q --no-deps --target cuda nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
    nvidia-cuda-runtime==13.0.96
nvcc=$(find cuda -name nvcc -type f | head -n 1)
"$nvcc" --version | grep release

# A warpgroup that gives its registers away, and two that multiply; before each step one of their threads waits.
cat >guard.cu <<'CU'
__global__ void __launch_bounds__(THREADS, 1) guard(float *y, const float *x, const int *turn, int n) {
    const int thread = threadIdx.x % 256;
#ifdef MOVES
    if (threadIdx.x >= 256) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
#endif
    float sum[200];
#pragma unroll
    for (int i = 0; i < 200; i++) sum[i] = x[i * 256 + thread];
    for (int step = 0; step < n; step++) {
        if (thread % 128 == 0) {
            int now, looks = 0;
            do {
                if (looks++ == 1 << 26) asm volatile(LAST ";");
                asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(turn + step) : "memory");
            } while (now != step);
        }
        asm volatile("bar.sync 1, 256;");
        float factor = x[step];
#pragma unroll
        for (int i = 0; i < 200; i++) sum[i] = fmaf(sum[i], factor, sum[(i + 1) % 200]);
    }
#pragma unroll
    for (int i = 0; i < 200; i++) y[i * 256 + thread] = sum[i];
}
CU
spilled() { # LAST THREADS MORE...
    last=$1 threads=$2
    shift 2
    "$nvcc" -O3 "-DLAST=\"$last\"" "-DTHREADS=$threads" "$@" -Xptxas -v -gencode arch=compute_90a,code=sm_90a -cubin -o guard.cubin \
        guard.cu 2>&1 | sed -n 's/.* \([0-9]*\) bytes spill stores.*/\1/p'
}
with_trap=$(spilled trap 384 -DMOVES)
with_exit=$(spilled exit 384 -DMOVES)
with_brkpt=$(spilled brkpt 384 -DMOVES)
alone=$(spilled trap 256)
echo "bytes of spill stores: trap $with_trap, exit $with_exit, brkpt $with_brkpt; trap without setmaxnreg $alone"
if [ "$with_trap" -lt 100 ] || [ "$with_exit$with_brkpt$alone" != 000 ]; then
    echo "changed: not as described"
    exit 1
fi
echo "as described: trap alone costs registers, and only beside setmaxnreg"
