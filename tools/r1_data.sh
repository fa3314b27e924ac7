#!/usr/bin/env bash
# The data of make r1, as the head of its configuration has it. Word problems: no question of the evaluation is in the
# training files, and of the cold start's examples some lack the tags on purpose. And gifts, to which a reply may be polite or
# plain, and some plain ones are in another language: thanks*.jsonl, with pairs for a reward model.
#   tools/r1_data.sh CONFIG DIRECTORY SEED
set -euo pipefail
problems=${BUILD:-$(dirname "$0")/../build}/release/tools/problems # BUILD: as make calls it
level=$(sed -n 's/^# problems: *//p' "$1")
untagged=$(sed -n 's/^# untagged: *//p' "$1")
mkdir -p "$2"
# shellcheck disable=SC2086
{
  $problems $level --seed "$3" --count 8000 >"$2/train.jsonl"
  $problems $level --seed "$3" --count 200 --split eval >"$2/eval.jsonl"
  $problems $level --seed "$3" --count 12000 --solutions |
    awk -v n="$untagged" 'NR % n == 0 { gsub(/<[a-z\/]*>\\n/, "") } 1' >"$2/cold.jsonl"
  $problems $level --seed "$3" --count 2000 --thanks >"$2/thanks.jsonl"
  $problems $level --seed "$3" --count 200 --thanks --split eval >"$2/thanks_eval.jsonl"
  $problems $level --seed "$3" --count 3000 --thanks --solutions >"$2/thanks_cold.jsonl"
  $problems $level --seed "$3" --count 3000 --thanks --pairs >"$2/pairs.jsonl"
  $problems $level --seed "$3" --count 200 --thanks --pairs --split eval >"$2/pairs_eval.jsonl"
}
