#!/bin/sh
# Shows what each kernel takes on the GPU generations that a build's objects are for: tools/check_cuda.sh FOLDER ARCH...
# (make check-cuda gives both). FOLDER holds the objects, and beside each what ptxas said (NAME.cu.told). No GPU is needed.
#
# First one line a kernel: bytes of static shared memory, then registers a thread on each generation. Registers that did not
# fit (spills) are written behind them as "+stores/loads", in bytes, and fail the check: a kernel that spills waits for memory.
# So does one whose wgmma ptxas serializes.
#
# Then the hot kernels of tools/hot_kernels.txt, with what their main loop is made of in machine code (cuobjdump; SKIP, said in
# the last line, without it): how many instructions are the tensor cores', how many not, and whether setmaxnreg is there,
# which ptxas leaves out without a warning where __launch_bounds__ lacks its second number; and how many of its blocks fit a
# multiprocessor. Against that table a share of tensor-core instructions that is lower by a fiftieth, fewer blocks, or a setmaxnreg
# that is gone fails the check. UPDATE=yes writes the table anew.
#
# Environment: CUOBJDUMP (the program), LAUNCHES (how kernels are launched, from make check-ptx: what the table says of
# that must be right), UPDATE.
set -u
cd "$(dirname "$0")/.." || exit 1

objects=$1
shift
archs=$*
table=tools/hot_kernels.txt
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT

# ---- registers and spills ----------------------------------------------------------------------------------------------
demangle=$(command -v c++filt || echo cat)
[ "$demangle" = cat ] || demangle="$demangle -p"
for told in "$objects"/kernels/*/*.cu.told; do
    # A kernel and generation a line: name, generation, registers, spill stores, spill loads, shared bytes.
    awk -F"'" '
        /Compiling entry function/ { name = $2; arch = $4; sub(/^sm_/, "", arch); stores = loads = 0 }
        /bytes spill stores/ { split($0, n, /[^0-9]+/); i = n[1] == "" ? 2 : 1; stores += n[i + 1]; loads += n[i + 2] }
        /Used [0-9]+ registers/ {
            regs = $0; sub(/.*Used /, "", regs); sub(/ .*/, "", regs)
            shared = 0
            if (match($0, /[0-9]+ bytes smem/)) { shared = substr($0, RSTART, RLENGTH); sub(/ .*/, "", shared) }
            print name, arch, regs, stores, loads, shared
        }' "$told" >"$room/rows"
    # Names are demangled apart, as they may hold spaces then.
    cut -d' ' -f1 "$room/rows" | $demangle | sed 's/^void //' | paste -d'|' "$room/rows" - | sort -t'|' -k2,2 -s
done >"$room/all"

printf '%-72s %7s' kernel shared
for arch in $archs; do printf ' %10s' "sm_$arch"; done
echo
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

# ptxas runs wgmma one after the other, with no more than a line of information, where it cannot tell that registers are left alone
# meanwhile.
for told in "$objects"/kernels/*/*.cu.told; do
    sed -n "s/^ptxas info *: (C[0-9]*) Potential Performance Loss: \(.*\) in the function '\(.*\)'.*/\2 \1/p" "$told"
done | $demangle | sort -u >"$room/losses"
while read -r loss; do
    echo "check-cuda: ${loss}: wait for the products (wgmma_wait) before their registers are touched, and make no more of them than fit"
    touch "$room/failed"
done <"$room/losses"

# ---- main loops --------------------------------------------------------------------------------------------------------
# Reads cuobjdump -sass; a line a function: NAME TENSOR OTHERS SETMAXNREG. The main loop is, of the loops that hold no smaller
# one with as much to say, the one with the most instructions of tensor cores, then with the fewest others (a jump back out of code
# that waits, placed behind the loop, looks like a loop too); where there are none of tensor cores, the longest. Where there are
# instructions of warpgroups, only those count: what such a kernel does by mma is for rare cases.
main_loops='
    function finish(   k, j, inner, t, n) {
        if (name == "") return
        most = most_t = 0
        if (group[count]) for (k = 0; k <= count; k++) tensor[k] = group[k]
        for (k = 1; k <= loops; k++) holds[k] = tensor[last[k]] - tensor[first[k] - 1]
        for (k = 1; k <= loops; k++) {
            inner = 1
            for (j = 1; j <= loops; j++)
                if (first[j] >= first[k] && last[j] <= last[k] && last[j] - first[j] < last[k] - first[k] && (holds[j] || !holds[k]))
                    inner = 0
            n = last[k] - first[k] + 1 - holds[k]
            if (inner && (holds[k] > most_t || (holds[k] == most_t && (most_t ? n < most : n > most)))) { most_t = holds[k]; most = n }
        }
        print name, most_t, most, registers + 0
        split("", at); split("", tensor); split("", group)
        loops = count = registers = 0
    }
    /Function :/ { finish(); name = $NF; next }
    name != "" && match($0, /\/\*[0-9a-f]+\*\/ +/) && /;/ {
        address = substr($0, RSTART + 2)
        sub(/\*.*/, "", address)
        text = substr($0, RSTART + RLENGTH)
        sub(/ *;.*/, "", text)
        sub(/^@!?U?P[0-9T]+ +/, "", text)
        at[address] = ++count
        tensor[count] = tensor[count - 1] + (text ~ /^([HIDBQO]G?MMA|UTC[A-Z]*MMA)/)
        group[count] = group[count - 1] + (text ~ /^[HIBQO]GMMA/)
        if (text ~ /^USETMAXREG/) registers = 1
        if (text ~ /^BRA/ && match(text, /0x[0-9a-f]+$/)) { # backwards: a loop
            to = substr(text, RSTART + 2)
            while (length(to) < 4) to = "0" to
            if (to in at && at[to] < count) { first[++loops] = at[to]; last[loops] = count }
        }
    }
    END { finish() }'

# cuobjdump: named, in the path, of the toolkit, or as `tools/deps.sh sass` brings it. It finds nvdisasm beside itself.
cuobjdump=${CUOBJDUMP:-$(command -v cuobjdump)}
nvcc=$(command -v nvcc)
for place in "${CUDA_HOME-}/bin" "${CUDA_PATH-}/bin" "${nvcc%/*}" /usr/local/cuda/bin build/sass/nvidia/*/bin; do
    [ -n "$cuobjdump" ] || [ ! -x "$place/cuobjdump" ] || cuobjdump=$place/cuobjdump
done
skipped=
if [ -z "$cuobjdump" ] || [ "$demangle" = cat ]; then
    skipped="; SKIP the hot kernels' main loops: no cuobjdump (tools/deps.sh sass brings it), or no c++filt"
else
    for arch in $archs; do
        for object in "$objects"/kernels/*/*.cu.o; do
            "$cuobjdump" -sass -arch "sm_$arch" "$object" 2>/dev/null | awk "$main_loops"
        done >"$room/loops"
        cut -d' ' -f1 "$room/loops" | $demangle | sed 's/^void //' | paste -d'|' "$room/loops" - | sed "s/^[^ ]*/$arch/"
    done >"$room/machine"
    : >"$room/launches"
    if [ -s "${LAUNCHES-}" ]; then
        cut -d' ' -f1 "$LAUNCHES" | $demangle | sed 's/^void //' >"$room/names"
        cut -d' ' -f2- "$LAUNCHES" | paste -d'|' "$room/names" - | sort -u >"$room/launches"
    fi
    # The table: KERNEL | THREADS DYNAMIC_SHARED | ARCH TENSOR/OTHERS:BLOCKS[+setmaxnreg] | ... A generation that a row does not name has
    # no such kernel, and is not asked for it.
    awk -F'|' -v archs="$archs" -v update="${UPDATE-}" -v new="$room/table" '
        function trim(x) { sub(/^ +/, "", x); sub(/ +$/, "", x); return x }
        function least(a, b) { return a < b ? a : b }
        # By the multiprocessor: warps, blocks, 64 Ki registers in portions of 256 a warp, shared memory with 1 KiB a block.
        function blocks(arch, threads, regs, shared,   major, warps, most, room) {
            major = int(arch / 10)
            warps = int((threads + 31) / 32)
            most = least(int((arch + 0 == 89 || major == 12 ? 48 : 64) / warps), arch + 0 == 89 || major == 12 ? 24 : 32)
            most = least(most, int(int(65536 / (int((regs * 32 + 255) / 256) * 256)) / warps))
            room = arch + 0 == 80 ? 164 : major == 8 || major == 12 ? 100 : 228
            if (shared > (room - 1) * 1024) return 0
            return least(most, int(room * 1024 / (shared + 1024)))
        }
        function bad(text) { print "check-cuda: " text; failed = 1 }
        BEGIN { n = split(archs, a, " ") }
        FILENAME ~ /\/all$/ { split($1, f, " "); regs[$2, f[2]] = f[3]; spilled[$2, f[2]] = f[4] + f[5]; fixed[$2, f[2]] = f[6]; next }
        FILENAME ~ /\/machine$/ { split($1, f, " "); tensor[$2, f[1]] = f[2]; others[$2, f[1]] = f[3]; dynamic[$2, f[1]] = f[4]; next }
        FILENAME ~ /\/launches$/ { launched[$1] = launched[$1] " (" $2 ")"; next }
        /^#/ || !NF { if (update) print >new; next }
        {
            name = trim($1)
            split($2, l, " ")
            launch = l[1] " " l[2]
            if (name in launched && !index(launched[name], "(" launch ")"))
                bad(name " is launched with threads and shared memory" launched[name] ", the table says (" launch ")")
            line = sprintf("%-76s | %4d %6d", name, l[1], l[2])
            for (i = 1; i <= n; i++) {
                arch = a[i]
                named = 0
                for (k = 3; k <= NF; k++) { split(trim($k), was, /[ \/:+]+/); named = named || was[1] == arch }
                if (!named) continue
                if (!((name, arch) in tensor)) { bad("there is no kernel " name " for sm_" arch); continue }
                if (!((name, arch) in regs)) { bad("ptxas said nothing of " name " for sm_" arch); continue }
                t = tensor[name, arch]; o = others[name, arch]; r = dynamic[name, arch]
                fit = blocks(arch, l[1], regs[name, arch], fixed[name, arch] + l[2])
                made = t "/" o ":" fit (r ? "+setmaxnreg" : "")
                line = line sprintf(" | %-4s %-10s", arch, made)
                if (!shown++)
                    printf "\n%-76s %6s %5s %6s %9s %6s %6s %6s %6s  %s\n", "hot kernel", "arch", "regs", "spills", "shared", "blocks", "tensor",
                        "others", "share", "setmaxnreg"
                printf "%-76s %6s %5d %6d %9d %6d %6d %6d %5.1f%%  %s\n", name != before ? name : "", arch, regs[name, arch], spilled[name, arch],
                    fixed[name, arch] + l[2], fit, t, o,
                    100 * t / (t + o), r ? "yes" : "no"
                before = name
                for (k = 3; k <= NF && !update; k++) {
                    split(trim($k), was, /[ \/:+]+/)
                    if (was[1] != arch) continue
                    if (t * (was[2] + was[3]) < 0.98 * was[2] * (t + o))
                        bad(name " on sm_" arch ": " t " of " t + o " instructions are the tensor cores'"'"', the table has " was[2] " of " was[2] + was[3])
                    if (fit < was[4]) bad(name " on sm_" arch ": " fit " blocks fit a multiprocessor, the table has " was[4])
                    if (was[5] == "setmaxnreg" && !r) bad(name " on sm_" arch ": ptxas has left setmaxnreg out")
                }
            }
            if (update) print line >new
        }
        END { exit failed }' "$room/all" "$room/machine" "$room/launches" "$table" || touch "$room/failed"
    [ -z "${UPDATE-}" ] || cp "$room/table" "$table"
fi

if [ -e "$room/failed" ] || [ "$kernels" -eq 0 ]; then
    echo "check-cuda: failed"
    exit 1
fi
echo "check-cuda: $kernels kernels for$(for arch in $archs; do printf ' sm_%s' "$arch"; done): none spills$skipped"
