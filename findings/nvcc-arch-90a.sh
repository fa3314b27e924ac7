#!/bin/sh
# nvcc 13.0 (nvidia-cuda-nvcc 13.0.88), -arch=sm_90a.
#
# Behaviour: -arch=sm_90a compiles the source twice, for compute_90a and for compute_90, whose PTX becomes a third image of
# the object. Instructions that only sm_90a has (wgmma, setmaxnreg) are then refused, in code that is asked for on sm_90a
# alone. -arch=sm_100a and -arch=sm_120a add compute_100 and compute_120 the same way; -arch=sm_90 adds nothing.
# One expects: what `nvcc --help` says of -arch: of a real architecture it makes that one and its closest virtual one, as
# -gencode arch=compute_90a,code=[sm_90a,compute_90a] does.
# Seen: "Instruction 'wgmma.fence' not supported on .target 'sm_90'" from a file of its own, compute_90.ptx, and exit code 255;
# with that -gencode the same source compiles.
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

cat >fence.cu <<'CU'
__global__ void fence() { asm volatile("wgmma.fence.sync.aligned;"); }
CU
shorthand=0 spelled=0
"$nvcc" -arch=sm_90a -c -o fence.o fence.cu >shorthand.log 2>&1 || shorthand=$?
"$nvcc" -gencode 'arch=compute_90a,code=[sm_90a,compute_90a]' -c -o fence.o fence.cu >spelled.log 2>&1 || spelled=$?
echo "-arch=sm_90a: exit code $shorthand"
sed -n 's/^ptxas .*error *: /    /p' shorthand.log
echo "-gencode arch=compute_90a,code=[sm_90a,compute_90a]: exit code $spelled"
for arch in sm_90 sm_90a sm_100a sm_120a; do
    echo "-arch=$arch compiles for:$("$nvcc" -arch=$arch --dryrun -c -o fence.o fence.cu 2>&1 |
        sed -n 's/.*cicc.* -arch \(compute_[0-9a-z]*\) .*/ \1/p' | tr -d '\n')"
done >archs
cat archs

if [ "$shorthand" -eq 0 ] || [ "$spelled" -ne 0 ] || ! grep -q "not supported on .target 'sm_90'" shorthand.log ||
    ! grep -q '^-arch=sm_90a compiles for: compute_90 compute_90a$' archs || ! grep -q '^-arch=sm_90 compiles for: compute_90$' archs; then
    echo "changed: not as described"
    exit 1
fi
echo "as described: the shorthand compiles for compute_90 too"
