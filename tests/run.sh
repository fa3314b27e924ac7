#!/bin/sh
# Runs test programs (cmocka) and adds up: tests/run.sh PROGRAM[@ISA]... [--cuda PROGRAM...]
#
# PROGRAM@ISA runs on that instruction set of the CPU, or its twin in C. Two run side by side: many do nothing but wait,
# for ranks, limits of time, disks.
# Those after --cuda run with GRPO_TEST_DEVICE=cuda, and GRPO_CUDA in the place of GRPO; they are single-threaded under
# emulation, so as many run side by side as there are cores. TEST_JOBS is how many, if not so. A program that crashes,
# hangs (TEST_TIMEOUT seconds, 300; three times that after --cuda) or exits with an error counts as failed, and so does a
# skipped test that tests/allowed_skips.txt does not name. A program's output goes to PROGRAM[@ISA].log; that of a failed
# one is shown. The last line is "N passed, N failed, N skipped".
set -u

allowed=$(dirname "$0")/allowed_skips.txt
limit=${TEST_TIMEOUT:-300}
passed=0 failed=0 skipped=0
# Threads that wait give their core away: on a busy machine a third of the time is spinning otherwise.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

# --one PROGRAM[@ISA] SECONDS: runs it, and says its name, exit status and milliseconds.
if [ "${1-}" = --one ]; then
    program=${2%@*}
    # An emulated GPU does nothing before somebody waits for it, and its memory is out of reach: what the host reads
    # too early, or where it cannot, shows. (Its own tests choose.)
    if [ -n "${GRPO_TEST_DEVICE-}" ] && [ "${program#*/test_emu}" = "$program" ] &&
        [ "${program#*/test_draw}" = "$program" ]; then
        export EMU_DEFER="${EMU_DEFER:-1}" EMU_GUARD="${EMU_GUARD:-1}"
    fi
    start=$(date +%s%N)
    [ "$2" = "$program" ] || export GRPO_CPU_ISA="${2##*@}"
    timeout -k 5 "$3" "$program" </dev/null >"$2.log" 2>&1
    echo "$2 $? $((($(date +%s%N) - start) / 1000000))"
    exit 0
fi

# Lines of $log whose cmocka tag is $1.
count() { grep -c "^\[ *$1 *\]" "$log"; }

# Adds up what program $1 left that ended with status $2 after $3 milliseconds, and says it.
report() {
    log=$1.log status=$2 ms=$3
    case $1 in
    *@*) name="$(basename "${1%@*}") (${1##*@})" ;;
    *) name=${1##*/}${device:+ ($device)} ;;
    esac

    # Tests announced by every "Running N test(s)" line: those that neither passed nor were skipped have failed.
    announced=$(sed -n 's/^\[=*\].*Running \([0-9]*\) test.*/\1/p' "$log" | awk '{ n += $1 } END { print n + 0 }')
    ok=$(count OK)
    skips=$(count SKIPPED)
    # cmocka lists skipped tests once more at the end, below a line with their number.
    names=$(sed -n 's/^\[ *SKIPPED *\] \([A-Za-z_][A-Za-z0-9_]*\)$/\1/p' "$log" | sort -u)
    skips=$(printf '%s' "$names" | grep -c .)
    bad=$((announced - ok - skips))
    why=""
    if [ "$status" -ne 0 ] || [ "$announced" -eq 0 ]; then
        [ "$bad" -gt 0 ] || bad=1
        case $status in
        0) why="ran no tests" ;;
        124 | 137) why="did not end within $limit s" ;;
        *) [ "$status" -le 128 ] || why="died of signal $((status - 128))" ;;
        esac
    fi
    for test in $names; do
        if ! grep -q "^$test[[:space:]]" "$allowed"; then
            why="$why${why:+; }skipped $test, which tests/allowed_skips.txt does not name"
            skips=$((skips - 1))
            bad=$((bad + 1))
        fi
    done

    printf '%-22s %4d passed' "$name" "$ok"
    [ "$skips" -eq 0 ] || printf ', %d skipped' "$skips"
    [ "$bad" -eq 0 ] || printf ', %d FAILED' "$bad"
    printf '  %d.%d s%s\n' $((ms / 1000)) $((ms % 1000 / 100)) "${why:+ ($why)}"
    if [ "$bad" -gt 0 ]; then
        # What passed is left out, unless the program broke off in the middle of it.
        grep -v -e '^\[ *OK *\]' -e '^\[=*\]' "$log" | tail -n 200 | sed 's/^/    /'
    else
        grep '^SKIP ' "$log" | sed 's/^/    /'
    fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skips))
}

# Runs the programs of the list, as many at a time as $1 says, and tells of each as it ends.
run_all() {
    device=${GRPO_TEST_DEVICE-}
    : >"$list.ended"
    xargs -P "${TEST_JOBS:-$1}" -I '{}' "$0" --one '{}' "$limit" <"$list" | {
        while read -r program status ms; do
            report "$program" "$status" "$ms"
            echo "$program" >>"$list.ended"
        done
        # A worker that was killed has said nothing.
        sort "$list" >"$list.all" && sort "$list.ended" | comm -23 "$list.all" - >"$list.lost"
        while read -r program; do
            echo "$program was killed"
            failed=$((failed + 1))
        done <"$list.lost"
        echo "$passed $failed $skipped" >"$list.sums"
    }
    read -r passed failed skipped <"$list.sums"
    rm -f "$list".*
    : >"$list"
}

list=$(mktemp)
trap 'rm -f "$list" "$list".*' EXIT
while [ $# -gt 0 ] && [ "$1" != --cuda ]; do
    echo "$1" >>"$list"
    shift
done
run_all 2
if [ $# -gt 1 ]; then
    shift
    limit=$((3 * limit))
    printf '%s\n' "$@" >"$list"
    export GRPO_TEST_DEVICE=cuda EMU_DEVICES=4 GRPO="${GRPO_CUDA:-${GRPO:-}}"
    run_all "$(nproc)"
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
