#!/bin/sh
# Breaks the kernels and what feeds them on purpose, one place at a time, and sees whether the tests notice: `make mutants`.
#
# list.sh names those of the kernels, host.sh those of the host. Each is made in a copy of kernels/, or of the host's one file;
# the one object it concerns is compiled anew (in haste: a test runs once) and linked with the build's library, and the named
# test runs on the emulated GPU, or for the host's on the CPU. A mutant is killed where the test fails, crashes
# or hangs. The pristine tree must pass all those tests first (or have passed them in `make test`). As many run side by side as there are cores. The last
# line is "N killed, N survived"; whatever survived or did not compile fails the run.
#
# Environment, from the Makefile: LIST (list.sh or host.sh), GRPO_TEST_DEVICE (cuda or cpu), BUILD (its directory), GRPO (the
# program), COMPILE_CU, COMPILE_C, LINK and LIBS (commands), MUTANTS (a pattern: only those), PART (1/3: every
# third, from the first on).
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
list=tests/mutants/$LIST
limit=${MUTANT_TIMEOUT:-300}
export EMU_DEVICES=4 EMU_DEFER=1 EMU_GUARD=1 OMP_WAIT_POLICY=passive ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}"

# Runs test $1 ("rollout"; "ops:rmsnorm": one op of the case table; "head/hopper": the tests with that in their name) as
# program $2, up to its first failure; output to $3.
run_test() {
    op=${1#*:} only=${1#*/}
    [ "$op" != "$1" ] || op=
    [ "$only" != "$1" ] || only=
    ${op:+env GRPO_TEST_OP="$op"} ${only:+env GRPO_TEST="*$only*"} timeout -k 5 "$limit" "$2" </dev/null >"$3" 2>&1 &
    running=$!
    while kill -0 "$running" 2>/dev/null; do
        ! grep -qs '^\[ *FAILED' "$3" || kill "$running" 2>/dev/null
        sleep 0.1
    done
    wait "$running"
}

# Compiles object $1 of the copy in $dir.
compile() {
    case $1 in
        *.c) sh -c "$COMPILE_C -w -c -o $dir/mutant.o $dir/$1" ;;
        *) (cd "$dir" && sh -c "$(echo "$COMPILE_CU" | sed "s#-Ikernels/#-I$dir/kernels/#g; s#-I\([^/ ]\)#-I$root/\1#g") \
            -O1 -g0 -c -o mutant.o $1") ;;
    esac
}

# Copies file $1 to $2 with the only occurrence of $from replaced by $to.
replace() {
    FROM=$from TO=$to awk '
        { text = text $0 "\n" }
        END {
            from = ENVIRON["FROM"]
            at = index(text, from)
            if (!at || index(substr(text, at + 1), from)) exit 1
            printf "%s%s%s", substr(text, 1, at - 1), ENVIRON["TO"], substr(text, at + length(from))
        }' "$1" >"$2"
}

# One mutant: its verdict goes to $work/NAME.verdict.
mutate() {
    name=$1 file=$2 test=$3 from=$4 to=$5
    object=${file#*>} file=${file%%>*} # HEADER>FILE.cu: the object that a header is tried in
    dir=$work/$name
    mkdir -p "$dir/$(dirname "$file")" && cp -r kernels "$dir/"
    program=$BUILD/tests/test_${test%%[:/]*}
    if ! replace "$file" "$dir/$file"; then
        verdict="not made: the text is not there exactly once"
    elif ! compile "$object" >"$dir/log" 2>&1; then
        verdict="did not compile"
    elif ! sh -c "$LINK -o $dir/test $program.o $dir/mutant.o $BUILD/libgrpo.a $LIBS" >"$dir/log" 2>&1; then
        verdict="did not link"
    elif run_test "$test" "$dir/test" "$dir/log"; then
        verdict=survived
    else
        status=$?
        how=$(sed -n 's/^\[ *FAILED *\] \([a-z_0-9]*\)$/\1/p' "$dir/log" | sort -u | head -n 2 | tr '\n' ' ')
        [ -n "$how" ] || how=$(sed -n 's/^\[ *RUN *\] \([a-z_0-9]*\)$/\1/p' "$dir/log" | tail -n 1)
        [ "$status" -ne 124 ] || how="$how(did not end)"
        verdict="killed by $test: $how"
    fi
    printf '%-36s %-28s %s\n' "$name" "$file" "$verdict"
    echo "$verdict" >"$work/$name.verdict"
    case $verdict in killed*) rm -rf "$dir" ;; esac
}

if [ "${1-}" = --one ]; then
    work=$2 wanted=$3
    mutant() { [ "$1" != "$wanted" ] || mutate "$@"; }
    . "./$list"
    exit 0
fi

if [ "${1-}" = --pristine ]; then
    program=$BUILD/tests/test_${3%%[:/]*}
    # It may have passed in `make test` just now.
    [ ! "$program.log" -nt "$program" ] || ! grep -q '^\[ *PASSED' "$program.log" || grep -q '^\[ *FAILED' "$program.log" || exit 0
    log="$2/pristine.$(echo "$3" | tr / :)"
    run_test "$3" "$program" "$log" && exit 0
    echo "the pristine tree fails $3:"
    grep -v -e '^\[ *OK' -e '^\[ *RUN' "$log" | tail -n 20
    touch "$2/pristine-failed"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pick() { case $1 in ${MUTANTS:-*}) true ;; *) false ;; esac; }
mutant() { if pick "$1"; then echo "$1 $3"; fi; }
. "./$list" | awk -v part="${PART:-0/1}" '{ split(part, p, "/") } NR % p[2] == p[1] % p[2]' >"$work/list"
if [ ! -s "$work/list" ]; then
    if [ -z "${MUTANTS-}" ]; then # fewer mutants than parts
        echo "part $PART of $list has no mutant"
        exit 0
    fi
    echo "mutants: none is called $MUTANTS; $list names them" >&2
    exit 1
fi

cut -d ' ' -f 2 "$work/list" | sort -u | xargs -P "$(nproc)" -I '{}' "$0" --pristine "$work" '{}'
[ ! -e "$work/pristine-failed" ] || exit 1
echo "the pristine tree passes $(cut -d ' ' -f 2 "$work/list" | sort -u | wc -l) tests"

cut -d ' ' -f 1 "$work/list" | xargs -P "$(nproc)" -I '{}' "$0" --one "$work" '{}'
killed=$(cat "$work"/*.verdict | grep -c '^killed')
survived=$(($(wc -l <"$work/list") - killed))
echo "$killed killed, $survived survived"
[ "$survived" -eq 0 ]
