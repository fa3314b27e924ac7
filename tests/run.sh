#!/bin/sh
# Runs test programs (cmocka) and adds up: tests/run.sh PROGRAM[@ISA]... [--cuda PROGRAM...]
#
# PROGRAM@ISA runs on that instruction set of the CPU, where it is there.
# Those after --cuda run with GRPO_TEST_DEVICE=cuda, and GRPO_CUDA in the place of GRPO; they are single-threaded under
# emulation, so as many run side by side as there are cores. A program that crashes, hangs (TEST_TIMEOUT seconds, 300;
# three times that after --cuda) or exits with an error counts as failed, and so does a skipped test that
# tests/allowed_skips.txt does not name. A program's output goes to PROGRAM.log; that of a failed one is shown. The last
# line is "N passed, N failed, N skipped".
set -u

allowed=$(dirname "$0")/allowed_skips.txt
limit=${TEST_TIMEOUT:-300}
passed=0 failed=0 skipped=0
# Threads that wait give their core away: on a busy machine a third of the time is spinning otherwise.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

# Runs $1 within $2 seconds, its output to $1.log; leaves its exit status and its milliseconds in $1.ran.
run() {
    start=$(date +%s%N)
    timeout -k 5 "$2" "$1" </dev/null >"$1.log" 2>&1
    status=$?
    echo "$status $((($(date +%s%N) - start) / 1000000))" >"$1.ran"
}
if [ "${1-}" = --one ]; then
    # An emulated GPU does nothing before somebody waits for it, and its memory is out of reach: what the host reads
    # too early, or where it cannot, shows. (Its own tests choose.)
    [ "${2##*/}" = test_emu ] || export EMU_DEFER="${EMU_DEFER:-1}" EMU_GUARD="${EMU_GUARD:-1}"
    run "$2" "$3"
    exit 0
fi

# Lines of $log whose cmocka tag is $1.
count() { grep -c "^\[ *$1 *\]" "$log"; }

# Adds up what $1 has left, and says it; $2 stands behind its name.
report() {
    name=${1##*/}$2
    log=$1.log
    read -r status ms <"$1.ran"
    rm -f "$1.ran"

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

cuda=
for program in "$@"; do
    if [ "$program" = --cuda ]; then
        shift
        cuda=yes
        break
    fi
    isa=
    case $program in
    *@*) isa=${program##*@} program=${program%@*} ;;
    esac
    shift
    if [ -z "$isa" ]; then
        run "$program" "$limit"
        report "$program" ""
    elif GRPO_CPU_ISA=$isa "$GRPO" doctor 2>/dev/null | grep -q '^OK *device'; then
        (export GRPO_CPU_ISA="$isa" && run "$program" "$limit")
        report "$program" " ($isa)"
    else
        echo "SKIP ${program##*/} ($isa): this CPU does not have it"
    fi
done
if [ -n "$cuda" ] && [ $# -gt 0 ]; then
    limit=$((3 * limit))
    printf '%s\n' "$@" | GRPO_TEST_DEVICE=cuda EMU_DEVICES=4 GRPO=${GRPO_CUDA:-${GRPO:-}} \
        xargs -P "${TEST_JOBS:-$(nproc)}" -I '{}' "$0" --one '{}' "$limit"
    for program in "$@"; do report "$program" " (cuda)"; done
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
