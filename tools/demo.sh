#!/usr/bin/env bash
# The whole story on a small model, offline: make word problems, teach the format by a short supervised cold start,
# measure, train with GRPO (killed once on purpose, and resumed), measure again.
#   tools/demo.sh [key=value ...]      key=value goes to the GRPO run (seed=2, shuffle_rewards=true ...)
# Everything lies in $DEMO_DIR (default runs/demo) afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build} # as make calls it
grpo=$build/grpo
problems=$build/release/tools/problems
config=configs/demo.yaml
dir=${DEMO_DIR:-runs/demo}
seed=42
for arg in "$@"; do case $arg in seed=*) seed=${arg#seed=} ;; esac; done

say() { printf '\n== %s\n' "$*"; }
newest() { find "$1" -maxdepth 1 -name 'step_*' ! -name '*.tmp' | sort -V | tail -n 1; }

rm -rf "$dir"
mkdir -p "$dir"
started=$SECONDS

say "1. Word problems in GSM8K's format (no question of the evaluation is in the training files)"
level=$(sed -n 's/^# problems: *//p' $config)
# shellcheck disable=SC2086
{
  $problems $level --seed "$seed" --count 8000 >"$dir/train.jsonl"
  $problems $level --seed "$seed" --count 12000 --solutions >"$dir/sft.jsonl"
  $problems $level --seed "$seed" --count 200 --split eval >"$dir/eval.jsonl"
}
head -n 1 "$dir/train.jsonl"

say "2. Cold start: supervised fine-tuning on correct, fully formatted answers"
$grpo sft $config model=models/tiny init=random seed="$seed" train_file="$dir/sft.jsonl" output_dir="$dir/sft" \
  $(sed -n 's/^# sft: *//p' $config)
cold=$(newest "$dir/sft")

say "3. Evaluation before GRPO: 200 problems never seen"
$grpo eval $config model="$cold" seed="$seed" eval_file="$dir/eval.jsonl" eval_output="$dir/before.json"
cat "$dir/before.json"

say "4. GRPO; the run is killed (kill -9) after its first checkpoint, and the same command goes on from there"
train=("$grpo" train "$config" "model=$cold" "train_file=$dir/train.jsonl" "output_dir=$dir/grpo" "$@")
"${train[@]}" &
pid=$!
while kill -0 $pid 2>/dev/null && [ -z "$(newest "$dir/grpo" 2>/dev/null)" ]; do sleep 0.2; done
if kill -9 $pid 2>/dev/null; then echo "-- killed process $pid"; fi
wait $pid 2>/dev/null || true
"${train[@]}"
trained=$(newest "$dir/grpo")

say "5. Evaluation after GRPO, on the same 200 problems"
$grpo eval $config model="$trained" seed="$seed" eval_file="$dir/eval.jsonl" eval_output="$dir/after.json"
cat "$dir/after.json"

value() { tr ',{}' '\n\n\n' <"$2" | sed -n "s/^ *\"$1\": *//p" | head -n 1; }
row() {
  awk -v name="$1" -v a="$(value "$2" "$dir/before.json")" -v b="$(value "$2" "$dir/after.json")" -v k="$3" \
    'BEGIN { printf "%-28s %10.3f %10.3f %+10.3f\n", name, k * a, k * b, k * (b - a) }'
}
say "Rewards by part (mean over the 200 problems, greedy)"
printf '%-28s %10s %10s %10s\n' reward before after change
for r in correctness int strict_format soft_format xmlcount; do row $r $r 1; done
row "sum" reward 1
say "Accuracy in percent (lenient: the last number of the answer, whatever its format)"
printf '%-28s %10s %10s %10s\n' accuracy before after change
row "strict" accuracy 100
row "lenient" lenient_accuracy 100
row "mean length, tokens" mean_length 1

say "Done in $((SECONDS - started)) s. In $dir:"
cat <<EOF
  train.jsonl sft.jsonl eval.jsonl   the problems
  $cold                              the model after the cold start (a Hugging Face directory)
  $trained                           the model after GRPO
  grpo/report.html                   open it in a browser: curves, completions, configuration
  grpo/metrics.jsonl                 every step under TRL's metric names
  grpo/completions.jsonl             every completion with its rewards
Try it:  $grpo sample $config model=$trained prompt="$(sed -n '1s/.*"question": "\([^"]*\)".*/\1/p' "$dir/eval.jsonl")"
EOF
