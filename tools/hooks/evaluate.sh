#!/bin/sh
# Evaluates a checkpoint on the CPU beside the run: on_save="tools/hooks/evaluate.sh CONFIG.yaml FILE.jsonl [key=value ...]".
# The results are output_dir/eval_STEP.json. $GRPO is the program (default build/grpo).
set -eu
config=$1 file=$2
shift 2
while [ $# -gt 2 ]; do
    options="${options-} $1"
    shift
done
checkpoint=$1 step=$2
# shellcheck disable=SC2086 # a list of key=value
"${GRPO:-build/grpo}" eval "$config" device=cpu model="$checkpoint" eval_file="$file" eval_output="$GRPO_OUTPUT_DIR/eval_$step.json" \
    ${options-}
