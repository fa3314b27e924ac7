#!/usr/bin/env bash
# The word problems of make r1, as the head of its configuration has them: no question of the evaluation is in the training
# files, and of the cold start's examples some lack the tags on purpose.
#   tools/r1_data.sh CONFIG DIRECTORY SEED      writes train.jsonl, eval.jsonl, cold.jsonl
set -euo pipefail
problems=$(dirname "$0")/../build/release/tools/problems
level=$(sed -n 's/^# problems: *//p' "$1")
untagged=$(sed -n 's/^# untagged: *//p' "$1")
mkdir -p "$2"
# shellcheck disable=SC2086
{
  $problems $level --seed "$3" --count 8000 >"$2/train.jsonl"
  $problems $level --seed "$3" --count 200 --split eval >"$2/eval.jsonl"
  $problems $level --seed "$3" --count 12000 --solutions |
    awk -v n="$untagged" 'NR % n == 0 { gsub(/<[a-z\/]*>\\n/, "") } 1' >"$2/cold.jsonl"
}
