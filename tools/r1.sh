#!/usr/bin/env bash
# R1's phases on a small model, offline: grpo run configs/r1-demo.yaml, killed once while it samples and gone on with, and a
# table of what each phase brought.
#   tools/r1.sh [key=value ...]      key=value goes to the pipeline (seed=2, reasoning.max_steps=50 ...)
# Everything lies in $R1_DIR (default runs/r1-demo) afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
grpo=${BUILD:-build}/grpo # BUILD: as make calls it
config=configs/r1-demo.yaml
dir=${R1_DIR:-runs/r1-demo}
seed=42
for arg in "$@"; do case $arg in seed=*) seed=${arg#seed=} ;; esac; done

say() { printf '\n== %s\n' "$*"; }

rm -rf "$dir"
started=$SECONDS

say "Word problems (no question of the evaluation is in the training files)"
tools/r1_data.sh $config "$dir/data" "$seed"
sed -n 1,3p "$dir/data/cold.jsonl"

# The pipeline's own words come in paragraphs; where $dir is another place, the file is told so.
run=("$grpo" run "$config" "$@")
if [ "$dir" != runs/r1-demo ]; then
  sed "s|runs/r1-demo|$dir|" "$config" >"$dir/r1.yaml"
  run=("$grpo" run "$dir/r1.yaml" "$@")
fi
say "The pipeline; it is killed (kill -9) once samples are being drawn, and the same command goes on from there"
"${run[@]}" &
pid=$!
while kill -0 $pid 2>/dev/null && [ "$(wc -l 2>/dev/null <"$dir/pick/samples.jsonl" || echo 0)" -lt 100 ]; do sleep 0.1; done
if kill -9 $pid 2>/dev/null; then echo "-- killed process $pid"; fi
wait $pid 2>/dev/null || true
sleep 0.5 # its phase ends with it, a moment later
"${run[@]}"

value() { tr ',{}' '\n\n\n' <"$2" | sed -n "s/^ *\"$1\": *//p" | head -n 1; }
say "Phase by phase: 200 problems never seen, greedy; format and tokens are theirs. 200 gifts, four sampled replies each"
printf '%-12s %8s %9s %7s %7s %9s %13s\n' phase strict% lenient% format tokens language% reward_model
for phase in cold_start reasoning again final; do
  file=$dir/${phase}_eval.json replies=$dir/${phase}_thanks.json
  awk -v name=$phase -v s="$(value accuracy "$file")" -v l="$(value lenient_accuracy "$file")" \
    -v f="$(value strict_format "$file")" -v t="$(value mean_length "$file")" \
    -v c="$(value language_consistency "$replies")" -v m="$(value reward_model "$replies")" \
    'BEGIN { printf "%-12s %8.1f %9.1f %7.3f %7.1f %9.1f %13.3f\n", name, 100 * s, 100 * l, f, t, 100 * c, m }'
done
# A judge that the selection did not ask: the last number of the text.
right=$($grpo reward gsm8k_flexible <"$dir/pick/kept.jsonl" | grep -c '"reward": 1\(\.0\)\?[,}]' || true)
kept=$(wc -l <"$dir/pick/kept.jsonl")
echo "kept for phase 3: $kept completions, $right of them right by another judge"
logs=()
for log in "$dir"/*/metrics.jsonl; do logs+=("$(dirname "$log")"); done
report=$($grpo report "${logs[@]}" output="$dir/report.html")
say "Done in $((SECONDS - started)) s; $dir/pipeline.json says what was made from what, $report shows the phases' curves"
