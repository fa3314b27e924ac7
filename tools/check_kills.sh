#!/usr/bin/env bash
# The pipeline of make r1, made short, killed (kill -9) at ten random instants and gone on with each time, must leave the very
# files of a run that nobody stopped: all of them, byte for byte, but for what a clock said.
#   tools/check_kills.sh [KILLS] [SEED]      some minutes; outside continuous integration
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD build=$(cd "${BUILD:-build}" && pwd) kills=${1:-10} seed=${2:-1}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
RANDOM=$seed

# Both run under the same names, each in a directory of its own.
for run in straight killed; do
  mkdir -p "$dir/$run"
  ln -s "$here/models" "$here/configs" "$dir/$run"
  tools/r1_data.sh configs/r1-demo.yaml "$dir/$run/runs/r1-demo/data" "$seed"
done
run=("$build/grpo" run configs/r1-demo.yaml cold_start.max_steps=60 reasoning.max_steps=24 pick.select_limit=160
  again.max_steps=60 final.max_steps=8 save_steps=8 progress=off)
begin=$(date +%s%N)
(cd "$dir/straight" && exec "${run[@]}") >"$dir/straight.log" 2>&1
whole=$((($(date +%s%N) - begin) / 1000000))
echo "a straight run takes $whole ms"
hits=0
for k in $(seq "$kills"); do
  (cd "$dir/killed" && exec "${run[@]}") >>"$dir/killed.log" 2>&1 &
  pid=$!
  after=$((RANDOM * 2 * whole / kills / 32768)) # on average as long as the run is, all of them together
  sleep "$((after / 1000)).$(printf %03d $((after % 1000)))"
  if kill -9 $pid 2>/dev/null; then
    hits=$((hits + 1))
    echo "kill $k after $after ms, in $(grep '^== phase' "$dir/killed.log" | tail -n 1)"
  fi
  wait $pid 2>/dev/null || true
  sleep 0.3 # its phase ends with it, a moment later
done 2>/dev/null # the shell's own word on each
(cd "$dir/killed" && exec "${run[@]}") >>"$dir/killed.log" 2>&1

# Times and memory, and what tells of how a run went rather than of what it made.
clocks='s/, "\(step_time\|mfu\|time\/[a-z_0-9\/]*\|memory\/[a-z_0-9\/]*\)": [^,}]*//g; s/"seconds": [0-9]*/"seconds": 0/'
files=0 bad=0
while read -r file; do
  case $file in */report.html | */run.json | */notes.jsonl) continue ;; esac
  files=$((files + 1))
  if ! cmp -s <(sed "$clocks" "$dir/straight/$file") <(sed "$clocks" "$dir/killed/$file"); then
    echo "differs: $file"
    bad=1
  fi
done < <(cd "$dir" && { (cd straight && find runs -type f); (cd killed && find runs -type f); } | sort -u)
echo "check-kills: $files files compared after $hits kills, $([ $bad = 0 ] && echo all the same || echo some differ)"
[ $hits = "$kills" ] || echo "check-kills: $((kills - hits)) came after the end; take another seed"
exit $((bad || hits != kills))
