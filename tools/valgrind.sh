#!/bin/sh
# The tiny run under valgrind: a cold start, GRPO with a checkpoint, an evaluation; `make valgrind`. Any error or leak of
# ours fails it. Two steps of everything are enough for it to see every path, and take a minute. Its CPU has AVX2.
#   tools/valgrind.sh GRPO PROBLEMS
set -eu
cd "$(dirname "$0")/.."
grpo=$1 problems=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
$problems --seed 1 --count 40 >"$dir/train.jsonl"
$problems --seed 1 --count 40 --solutions >"$dir/sft.jsonl"

check() {
    echo "  VALGRIND  grpo $1"
    OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive valgrind --quiet --error-exitcode=99 --leak-check=full \
        --errors-for-leak-kinds=definite "$grpo" "$@" >"$dir/log" 2>&1 ||
        { cat "$dir/log"; exit 1; }
}
common="configs/demo.yaml progress=off max_prompt_length=96 max_completion_length=16 per_device_train_batch_size=4"
# shellcheck disable=SC2086 # a list of words
{
    check sft $common model=models/tiny init=random train_file="$dir/sft.jsonl" \
        output_dir="$dir/sft" max_steps=2 save_steps=2 packing=true
    check train $common model="$dir/sft/step_2" train_file="$dir/train.jsonl" output_dir="$dir/grpo" num_generations=4 \
        gradient_accumulation_steps=2 max_steps=2 save_steps=1 beta=0.04 top_k=20 top_p=0.9 repetition_penalty=1.1
    check train $common model="$dir/sft/step_2" train_file="$dir/train.jsonl" output_dir="$dir/grpo" num_generations=4 \
        gradient_accumulation_steps=2 max_steps=3 save_steps=1 beta=0.04 top_k=20 top_p=0.9 repetition_penalty=1.1
    check eval $common model="$dir/grpo/step_3" eval_file="$dir/train.jsonl" eval_limit=4
}
echo "valgrind: no errors"
