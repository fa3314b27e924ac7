#!/usr/bin/env bash
# What make r1 is expected to show, checked: reasoning RL brings at least 15 points of strict accuracy over the cold start;
# what select keeps is at least 95 % right by a check that it did not use; the last phase raises the reward model's score over
# the phase before without losing more than 3 points of accuracy; and a run takes at most 8 minutes.
#   tools/check_r1.sh [SEED ...]      default 1 2 3; one run after the other, each killed once on its way (tools/r1.sh)
# Everything lies in $R1_DIR (default runs/check-r1)/SEED afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 1 2 3
root=${R1_DIR:-runs/check-r1}
bad=0
mkdir -p "$root"
: >"$root/all"
for seed in "$@"; do
  log=$root/$seed.log
  started=$SECONDS
  if ! R1_DIR=$root/$seed tools/r1.sh seed="$seed" progress=off report=false >"$log" 2>&1; then
    tail -n 20 "$log"
    echo "check-r1: seed $seed: the run failed; its words are in $log"
    exit 1
  fi
  awk -v seed="$seed" -v seconds=$((SECONDS - started)) '
    $1 == "cold_start" { cold = $2 } $1 == "reasoning" { reasoning = $2 } $1 == "again" { again = $2; before = $7 }
    $1 == "final" { final = $2; after = $7 }
    $1 == "kept" { kept = $5; right = $7 }
    END {
      printf "seed %s: strict accuracy %.1f %% after the cold start, %.1f after reasoning (%+.1f points), %.1f after tuning again, " \
        "%.1f in the end; kept %d, %.2f %% right by another check; reward model %.2f, in the end %.2f; %d s\n", seed, cold, reasoning,
        reasoning - cold, again, final, kept, kept ? 100 * right / kept : 0, before, after, seconds
      if (reasoning - cold < 15) print "  MISSED: reasoning should bring 15 points"
      if (!kept || right < 0.95 * kept) print "  MISSED: what is kept should be 95 % right"
      if (after <= before) print "  MISSED: the last phase should raise the reward model'"'"'s score"
      if (final < again - 3) print "  MISSED: the last phase should not lose more than 3 points of accuracy"
      if (seconds > 480) print "  MISSED: 480 s"
    }' "$log" | tee -a "$root/all"
done
if grep -q MISSED "$root/all"; then bad=1; fi
echo "check-r1: $# of $# seeds run, $(grep -c MISSED "$root/all" || true) expectations missed"
exit $bad
