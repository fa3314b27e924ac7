#!/bin/sh
# Shows what each kernel takes on the GPU generations that a build's objects are for: tools/check_cuda.sh FOLDER ARCH...
# (make check-cuda gives both). FOLDER holds the objects, and beside each what ptxas said (NAME.cu.told). No GPU is needed.
#
# One line a kernel: bytes of static shared memory, then registers a thread on each generation. Registers that did not fit
# (spills) are written behind them as "+stores/loads", in bytes, and fail the check: a kernel that spills waits for memory.
set -u
cd "$(dirname "$0")/.." || exit 1

objects=$1
shift
archs=$*
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
for told in "$objects"/kernels/*/*.cu.told; do cp "$told" "$room/$(basename "$told" .told).log"; done

printf '%-72s %7s' kernel shared
for arch in $archs; do printf ' %10s' "sm_$arch"; done
echo
demangle=$(command -v c++filt || echo cat)
[ "$demangle" = cat ] || demangle="$demangle -p"
for log in "$room"/*.log; do
    # A kernel and generation a line: name, generation, registers, spill stores, spill loads, shared bytes.
    awk -F"'" '
        /Compiling entry function/ { name = $2; arch = $4; sub(/^sm_/, "", arch); stores = loads = 0 }
        /bytes spill stores/ { split($0, n, /[^0-9]+/); i = n[1] == "" ? 2 : 1; stores += n[i + 1]; loads += n[i + 2] }
        /Used [0-9]+ registers/ {
            regs = $0; sub(/.*Used /, "", regs); sub(/ .*/, "", regs)
            shared = 0
            if (match($0, /[0-9]+ bytes smem/)) { shared = substr($0, RSTART, RLENGTH); sub(/ .*/, "", shared) }
            print name, arch, regs, stores, loads, shared
        }' "$log" >"$log.rows"
    # Names are demangled apart, as they may hold spaces then.
    cut -d' ' -f1 "$log.rows" | $demangle | sed 's/^void //' | paste -d'|' "$log.rows" - | sort -t'|' -k2,2 -s
done >"$room/all"

awk -F'|' -v archs="$archs" '
    function flush(   i, line) {
        if (name == "") return
        line = sprintf("%-72s %7s", name, shared)
        for (i = 1; i <= n; i++) line = line sprintf(" %10s", cell[a[i]])
        print line
        for (i in cell) delete cell[i]
    }
    BEGIN { n = split(archs, a, " ") }
    {
        split($1, f, " ")
        if ($2 != name) { flush(); name = $2; shared = 0 }
        if (f[6] + 0 > shared) shared = f[6] + 0
        cell[f[2]] = f[3] (f[4] + f[5] ? "+" f[4] "/" f[5] : "")
    }
    END { flush() }' "$room/all"

awk -F'|' '{ split($1, f, " "); if (f[4] + f[5]) print f[2] "|" $2 }' "$room/all" | sort -u >"$room/spills"
while IFS='|' read -r arch name; do
    echo "check-cuda: $name spills on sm_$arch; make its tile smaller"
    touch "$room/failed"
done <"$room/spills"
kernels=$(cut -d'|' -f2 "$room/all" | sort -u | grep -c .)
if [ -e "$room/failed" ] || [ "$kernels" -eq 0 ]; then
    echo "check-cuda: failed"
    exit 1
fi
echo "check-cuda: $kernels kernels for$(for arch in $archs; do printf ' sm_%s' "$arch"; done): none spills"
