#!/usr/bin/env bash
# The speed of this build beside another's, on one machine in one run: measures both in turn, so that what else the machine
# does falls on both, and prints for each row that both have their medians and how many times as fast this one is.
#   tools/bench_beside.sh [-n TURNS] OTHER [ARGUMENT...]
#   OTHER is the bench of another build (of an older commit, say: git worktree add ../old COMMIT && make -C ../old build/bench);
#   the ARGUMENTs, options and parts of bench, go to both.   BENCH (build/bench): this one.   TURNS: 3
set -uo pipefail
usage() { echo "usage: tools/bench_beside.sh [-n TURNS] OTHER [ARGUMENT...]: OTHER is another build's bench" >&2; exit 2; }
turns=3
if [ "${1:-}" = -n ]; then
    [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || usage
    turns=$2
    shift 2
fi
[ $# -ge 1 ] || usage
other=$1 this=${BENCH:-$(dirname "$0")/../build/bench}
shift
for program in "$other" "$this"; do
    if [ ! -x "$program" ] || [ -d "$program" ]; then
        echo "bench_beside: $program is no program that can be run: make build/bench makes one" >&2
        exit 2
    fi
done
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
for turn in $(seq "$turns"); do
    for which in other this; do
        if ! "${!which}" --csv "$room/$which.$turn" "$@" >"$room/log" 2>&1; then
            echo "bench_beside: ${!which} failed; the end of what it said:" >&2
            tail -n 30 "$room/log" >&2
            exit 1
        fi
    done
done
# A row: its name, quoted where it has a comma, value, unit. Of a time, less is faster.
awk -v turns="$turns" '
    FNR == 1 { side = FILENAME ~ /\/other\.[0-9]*$/ ? "other" : "this"; next }
    {
        if (/^"/) { at = index(substr($0, 2), "\",") + 1; name = substr($0, 2, at - 2) } else { at = index($0, ",") - 1; name = substr($0, 1, at) }
        split(substr($0, at + 2), field, ",")
        if (!(name in unit)) order[++rows] = name
        unit[name] = field[2]
        value[side, name, ++count[side, name]] = field[1]
    }
    function median(side, name,    n, i, k, x) {
        n = count[side, name]
        for (i = 2; i <= n; i++)
            for (k = i; k > 1 && value[side, name, k - 1] + 0 > value[side, name, k] + 0; k--) {
                x = value[side, name, k]; value[side, name, k] = value[side, name, k - 1]; value[side, name, k - 1] = x
            }
        return n % 2 ? value[side, name, (n + 1) / 2] : (value[side, name, n / 2] + value[side, name, n / 2 + 1]) / 2
    }
    END {
        printf "%-52s %12s %12s %10s %8s\n", "median of " turns, "the other", "this", "", "faster"
        for (i = 1; i <= rows; i++) {
            name = order[i]
            if (!count["other", name] || !count["this", name]) { alone++; continue }
            a = median("other", name); b = median("this", name)
            time = unit[name] ~ /^(s|ms|us|ns)$/
            memory = unit[name] ~ /^([KMG]i?B|bytes)$/
            ratio = memory || a <= 0 || b <= 0 ? "" : sprintf("%.2fx", time ? a / b : b / a)
            printf "%-52s %12.6g %12.6g %-10s %8s\n", name, a, b, unit[name], ratio
            both++
        }
        if (alone) printf "%d rows that one of the two alone has\n", alone
        if (!both) { print "bench_beside: no row that both have" >"/dev/stderr"; exit 1 }
    }' "$room"/other.* "$room"/this.*
