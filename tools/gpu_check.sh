#!/usr/bin/env bash
# Everything that needs a real GPU, without a network, in calls of less than ten minutes:
#   tools/gpu_check.sh            builds for the card that is here, checks, measures; PASS, FAIL or SKIP for each stage
#   tools/gpu_check.sh peers      after it: measures again, beside PyTorch and HF (those that python3, or PYTHON, has)
#   tools/gpu_check.sh beside DIR training and decoding beside those of an older tree, DIR (git worktree add DIR COMMIT), which it
#                                 builds too: how many times as fast each row is
#   tools/gpu_check.sh pack DIR   on a machine with the libraries: copies their headers and archives into DIR, for a GPU
#                                 machine that has only the CUDA toolkit; there, GRPO_DEPS=DIR tools/gpu_check.sh
# What is worth most comes first, and every stage says what it found as it ends, so that a call which is cut off has not been
# in vain. Figures go to bench/results/CARD-DATE.csv and CARD-peers-DATE.csv, row by row. Without a GPU it says SKIP and ends well.
#   GRPO_CONTRACT_TOKENS  tokens of the contract's test (1000000)
#   GRPO_CHECK_STAGES     some of: build tests ops contract bench memcheck racecheck hf peers (all but the last)
#   GRPO_CHECK_SECONDS    for all of them (560)
#   GRPO_CHECK_RESULTS    the folder of the figures (bench/results)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

if [ "${1:-}" = pack ]; then
    [ $# -eq 2 ] || { echo "usage: tools/gpu_check.sh pack DIR" >&2; exit 2; }
    set -e
    mkdir -p "$2/include" "$2/lib"
    for header in pcre2.h yaml.h jansson.h jansson_config.h utf8proc.h cmocka.h; do
        path=$(find /usr/include -name "$header" -print -quit)
        [ -n "$path" ] || { echo "gpu_check: no $header: run tools/deps.sh test" >&2; exit 1; }
        cp "$path" "$2/include/"
    done
    for library in pcre2-8 yaml jansson utf8proc cmocka; do
        path=$(find /usr/lib /usr/lib64 -name "lib$library.a" -print -quit 2>/dev/null)
        if [ -n "$path" ]; then cp "$path" "$2/lib/"; continue; fi
        path=$(find /usr/lib /usr/lib64 -name "lib$library.so" -print -quit 2>/dev/null)
        [ -n "$path" ] || { echo "gpu_check: no lib$library: run tools/deps.sh test" >&2; exit 1; }
        real=$(readlink -f "$path")
        cp "$real" "$2/lib/lib$library.so"
        cp "$real" "$2/lib/$(objdump -p "$real" | sed -n 's/^ *SONAME *//p')"
    done
    git describe --always --dirty >"$2/commit" 2>/dev/null || true
    echo "packed: $(du -sh "$2" | cut -f1) in $2"
    exit 0
fi

default="build tests ops contract bench memcheck racecheck hf"
case ${1:-} in
'') ;;
peers) default="build peers" ;;
beside)
    if [ $# -ne 2 ] || [ ! -f "$2/bench/train.c" ]; then
        echo "usage: tools/gpu_check.sh beside DIR: an older tree of this project, from git worktree add DIR COMMIT" >&2
        exit 2
    fi
    default="build beside" older=$2
    ;;
*) echo "usage: tools/gpu_check.sh [peers | beside DIR | pack DIR]" >&2; exit 2 ;;
esac
stages=${GRPO_CHECK_STAGES:-$default}
for stage in $stages; do
    case " $default peers build tests ops contract bench memcheck racecheck hf " in
    *" $stage "*) ;;
    *) echo "gpu_check: GRPO_CHECK_STAGES: there is no stage $stage; the top of $0 names them" >&2; exit 2 ;;
    esac
done

# ---- a GPU? ----------------------------------------------------------------------------------------------------------
if ! card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || [ -z "$card" ]; then
    echo "SKIP gpu_check: no GPU answers here (nvidia-smi names none); nothing was checked"
    exit 0
fi
export PATH="$PATH:/usr/local/cuda/bin" OMP_WAIT_POLICY=passive
if ! command -v nvcc >/dev/null; then
    echo "SKIP gpu_check: $card is here, but no nvcc: install the CUDA toolkit; nothing was checked"
    exit 0
fi
if [ -n "${GRPO_DEPS:-}" ]; then
    deps=$(cd "$GRPO_DEPS" && pwd) || exit 1
    export C_INCLUDE_PATH="$deps/include:${C_INCLUDE_PATH:-}" LIBRARY_PATH="$deps/lib:${LIBRARY_PATH:-}"
    export LD_LIBRARY_PATH="$deps/lib:${LD_LIBRARY_PATH:-}"
    # A tree that was carried here without its history: the figures' commit is the one that packed.
    GRPO_COMMIT=$(cat "$deps/commit" 2>/dev/null || true)
    export GRPO_COMMIT
fi

build=build/gpu
logs=$build/logs
results=${GRPO_CHECK_RESULTS:-bench/results}
mkdir -p "$logs" "$results" || exit 1
started=$SECONDS
passed=0 failed=0 skipped=0

wanted() { case " $stages " in *" $1 "*) return 0 ;; *) return 1 ;; esac; }
report() { # PASS|FAIL|SKIP, stage, words
    printf '%-4s %-10s %4d s  %s\n' "$1" "$2" $((SECONDS - stage_start)) "$3"
    case $1 in PASS) passed=$((passed + 1)) ;; FAIL) failed=$((failed + 1)) ;; *) skipped=$((skipped + 1)) ;; esac
}
# Seconds a stage may take: its own limit, and never past those of all.
limit() {
    local left=$((${GRPO_CHECK_SECONDS:-560} - SECONDS + started))
    [ "$left" -gt 1 ] || left=1
    [ "$1" -lt "$left" ] && echo "$1" || echo "$left"
}
show_end() { tail -n 25 "$1" | sed 's/^/     | /'; }

echo "gpu_check on $card, driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1), commit" \
    "$(git describe --always --dirty 2>/dev/null || echo "${GRPO_COMMIT:-unknown}")"

# ---- build -----------------------------------------------------------------------------------------------------------
# The programs first: without them nothing can be checked; the tests after them, as only one stage needs those.
make="make -j$(nproc) CUDA=yes CUDA_ARCH=native BUILD=$build"
# The programs that take their device from GRPO_TEST_DEVICE; test_ptx's run PTX on the CPU.
tests=$(grep -l 'include "on_device.h"' tests/test_*.c | grep -v test_ptx |
    sed "s|^tests/\(.*\)\.c$|$build/release/tests/\1|" | tr '\n' ' ')
if wanted build; then
    stage_start=$SECONDS
    # shellcheck disable=SC2086
    if timeout "$(limit 300)" $make all "$build/bench" >"$logs/build.log" 2>&1; then
        report PASS build "for this card, with $(nvcc --version | sed -n 's/^.*release \([0-9.]*\).*$/CUDA \1/p')"
    else
        report FAIL build "see $logs/build.log"
        show_end "$logs/build.log"
        echo "gpu_check: FAIL: it does not build"
        exit 1
    fi
fi
if wanted tests; then
    stage_start=$SECONDS
    # shellcheck disable=SC2086
    if timeout "$(limit 150)" $make --keep-going $tests >"$logs/tests.log" 2>&1; then
        report PASS tests "$(echo "$tests" | wc -w) programs"
    else
        report FAIL tests "see $logs/tests.log"
        show_end "$logs/tests.log"
    fi
fi

# ---- every case against the C twin's oracles, on the card -------------------------------------------------------------
if wanted ops; then
    # All at once: each keeps a fraction of a card busy, and a core or two.
    stage_start=$SECONDS
    for program in $tests; do
        log=$logs/$(basename "$program").log
        (
            GRPO=$build/grpo GRPO_TEST_DEVICE=cuda OMP_NUM_THREADS=2 timeout "$(limit 150)" "$program" >"$log" 2>&1 </dev/null
            echo $? >"$log.status"
        ) &
    done
    wait
    for program in $tests; do
        name=$(basename "$program")
        status=$(cat "$logs/$name.log.status")
        count=$(grep -c '^\[ *OK *\]' "$logs/$name.log")
        if [ "$status" -eq 0 ] && [ "$count" -gt 0 ]; then report PASS "${name#test_}" "$count tests on the card"
        else
            report FAIL "${name#test_}" "exit $status, $count passed; see $logs/$name.log"
            grep -vE '^\[ *(OK|RUN) ' "$logs/$name.log" | tail -n 12 | sed 's/^/     | /'
        fi
    done
fi

# ---- the contract ----------------------------------------------------------------------------------------------------
if wanted contract; then
    stage_start=$SECONDS
    tokens=${GRPO_CONTRACT_TOKENS:-1000000}
    if timeout "$(limit 120)" "$build/bench" --device cuda --iterations 1 --tokens "$tokens" contract >"$logs/contract.log" 2>&1
    then report PASS contract "0 bits differ in $tokens tokens, sampled and trained"
    elif [ $? -eq 124 ]; then report SKIP contract "not done within its time"
    else
        report FAIL contract "see $logs/contract.log"
        show_end "$logs/contract.log"
    fi
fi

# ---- figures ---------------------------------------------------------------------------------------------------------
# measure STAGE SECONDS CSV ARGUMENT...: the benchmark; its rows are shown, and in the file, as they are measured.
measure() {
    local stage=$1 seconds csv=$3 status rows=0
    stage_start=$SECONDS
    seconds=$(limit "$2")
    shift 3
    timeout "$seconds" "$build/bench" --device cuda --csv "$csv" "$@" 2>&1 | tee "$logs/$stage.log" | sed -u 's/^/     | /'
    status=${PIPESTATUS[0]}
    [ ! -f "$csv" ] || rows=$(($(wc -l <"$csv") - 1))
    if [ "$status" -eq 0 ]; then report PASS "$stage" "$rows rows in $csv"
    elif [ "$status" -eq 124 ] && [ "$rows" -gt 0 ]; then report PASS "$stage" "time was up after $rows rows, which are in $csv"
    else report FAIL "$stage" "exit $status; $rows rows in $csv"
    fi
}
card_name=$(echo "$card" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
# What is expected of each kernel first; then the parts in the order of what they are worth.
if wanted bench; then
    measure bench 240 "$results/$card_name-$(date -u +%Y-%m-%d).csv" --no-peers floor train rollout step ops products
fi

# ---- compute-sanitizer on a tiny run ---------------------------------------------------------------------------------
sanitizer=$(command -v compute-sanitizer || true)
for path in /usr/local/cuda/bin/compute-sanitizer /usr/local/cuda/compute-sanitizer/compute-sanitizer; do
    [ -n "$sanitizer" ] || { [ -x "$path" ] && sanitizer=$path; }
done
for tool in memcheck racecheck; do
    wanted $tool || continue
    stage_start=$SECONDS
    if [ -z "$sanitizer" ]; then
        report SKIP $tool "no compute-sanitizer here"
        continue
    fi
    "$build/release/tools/problems" --seed 1 --count 16 >"$logs/train.jsonl"
    timeout "$(limit 90)" "$sanitizer" --tool $tool --error-exitcode 99 "$build/grpo" train configs/demo.yaml \
        model=models/tiny init=random train_file="$logs/train.jsonl" output_dir="$logs/run_$tool" resume=never \
        max_steps=1 save_steps=0 num_generations=4 per_device_train_batch_size=8 max_completion_length=8 dtype=bf16 \
        beta=0.04 progress=plain device=cuda >"$logs/$tool.log" 2>&1
    status=$?
    rm -rf "$logs/run_$tool"
    if [ $status -eq 0 ]; then report PASS $tool "a training step of the tiny model"
    elif grep -qi 'device not supported\|failed to initialize' "$logs/$tool.log"; then
        report SKIP $tool "compute-sanitizer does not work on this machine"
    elif [ $status -eq 124 ]; then report SKIP $tool "not done within its time"
    else
        report FAIL $tool "exit $status; see $logs/$tool.log"
        show_end "$logs/$tool.log"
    fi
done

# ---- HF transformers on the same card -----------------------------------------------------------------------------------
if wanted hf; then
    for shape in 0.5B 1.5B; do
        stage_start=$SECONDS
        timeout "$(limit 80)" "${PYTHON:-python3}" tools/compare_hf.py --device cuda --logits "$build/release/tools/logits" \
            $shape >"$logs/hf_$shape.log" 2>&1
        status=$?
        if skip=$(grep '^SKIP' "$logs/hf_$shape.log"); then report SKIP "hf $shape" "${skip#SKIP }"
        elif [ $status -eq 0 ]; then
            report PASS "hf $shape" "logits and gradients as HF's, f32 and bf16"
            sed 's/^/     | /' "$logs/hf_$shape.log"
        elif [ $status -eq 124 ]; then report SKIP "hf $shape" "not done within its time"
        elif [ $status -eq 127 ]; then report SKIP "hf $shape" "no ${PYTHON:-python3} here"
        else
            report FAIL "hf $shape" "exit $status; see $logs/hf_$shape.log"
            show_end "$logs/hf_$shape.log"
        fi
    done
fi

# ---- peers -----------------------------------------------------------------------------------------------------------
# The parts that have some, each with its peers in the same minutes: products first, which take the shortest.
if wanted peers; then
    measure peers 540 "$results/$card_name-peers-$(date -u +%Y-%m-%d).csv" products train rollout step
fi

# ---- an older build --------------------------------------------------------------------------------------------------
if wanted beside; then
    stage_start=$SECONDS
    table=$results/$card_name-beside-$(date -u +%Y-%m-%d).txt
    if ! timeout "$(limit 300)" make -C "$older" "-j$(nproc)" CUDA=yes CUDA_ARCH=native BUILD=build/gpu build/gpu/bench >"$logs/older.log" 2>&1
    then
        report FAIL beside "$older does not build: see $logs/older.log"
        show_end "$logs/older.log"
    elif PYTHON=false BENCH=$build/bench timeout "$(limit 540)" tools/bench_beside.sh -n 2 "$older/build/gpu/bench" --device cuda train rollout \
        >"$table" 2>"$logs/beside.log"; then
        sed 's/^/     | /' "$table"
        report PASS beside "$table"
    else
        status=$?
        if [ $status -eq 124 ]; then report SKIP beside "not done within its time"
        else
            report FAIL beside "exit $status; see $logs/beside.log"
            show_end "$logs/beside.log"
        fi
    fi
fi

echo "gpu_check: $passed passed, $failed failed, $skipped skipped in $((SECONDS - started)) s: $([ "$failed" -eq 0 ] && echo PASS || echo FAIL)"
[ "$failed" -eq 0 ]
