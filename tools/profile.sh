#!/usr/bin/env bash
# Runs a profiler over the engine: tools/profile.sh nsys [train's arguments] | ncu OP
#   nsys: a timeline of steps 3 and 4 of a GRPO run, with a range for each phase, layer and op. Without arguments the tiny
#         model on word problems; else `grpo train`'s own: tools/profile.sh nsys my.yaml profile_steps=5:6
#   ncu:  every counter of an op's kernels at the benchmark's shapes: tools/profile.sh ncu rmsnorm
# Reports go to $PROFILE_DIR (default build/profile). Needs a GPU, and the profiler of the CUDA toolkit.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build} # as make calls it
out=${PROFILE_DIR:-$build/profile}

find_tool() { # name, where else it may lie
    local path
    path=$(command -v "$1" || true)
    for path in "$path" /usr/local/cuda/bin/"$1" /opt/nvidia/*/*/"$1" /opt/nvidia/*/*/bin/"$1"; do
        [ -x "$path" ] && { echo "$path"; return; }
    done
    echo "tools/profile.sh: $1 is not here: it comes with the CUDA toolkit ($2), or alone from NVIDIA" >&2
    return 1
}

[ $# -ge 1 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
tool=$1
shift
case $tool in
nsys)
    program=$(find_tool nsys "package cuda-nsight-systems")
    mkdir -p "$out"
    if [ $# -eq 0 ]; then
        "$build/release/tools/problems" --seed 1 --count 256 >"$out/train.jsonl"
        set -- configs/demo.yaml model=models/tiny init=random "train_file=$out/train.jsonl" \
            "output_dir=$out/run" resume=never max_steps=4 save_steps=0 per_device_train_batch_size=64 profile_steps=3:4
        rm -rf "$out/run"
    fi
    case " $* " in *" profile_steps="*) ;; *) set -- "$@" profile_steps=3:4 ;; esac
    "$program" profile --trace=cuda,nvtx,cublas --capture-range=cudaProfilerApi --capture-range-end=stop \
        --force-overwrite=true --output="$out/train" "$build/grpo" train "$@" device=cuda
    echo "the timeline is in $out/train.nsys-rep"
    ;;
ncu)
    [ $# -eq 1 ] || { echo "tools/profile.sh: name one op: tools/profile.sh ncu rmsnorm" >&2; exit 2; }
    program=$(find_tool ncu "package cuda-nsight-compute")
    mkdir -p "$out"
    "$program" --set full --nvtx --nvtx-include "$1/" --force-overwrite --export "$out/$1" \
        "$build/bench" --device cuda --iterations 2 --op "$1 " ops
    "$program" --import "$out/$1.ncu-rep" --page details
    ;;
*)
    sed -n '2,6s/^# //p' "$0" >&2
    exit 2
    ;;
esac
