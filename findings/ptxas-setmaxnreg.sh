#!/bin/sh
# ptxas 13.0 (nvidia-cuda-nvcc 13.0.88), setmaxnreg on sm_90a.
#
# Behaviour: in a kernel whose register count at entry is not fixed (no .maxnreg, no .minnctapersm), ptxas leaves every
# setmaxnreg out of the machine code, prints one line of information and ends with exit code 0, -Werror or not.
# One expects: an instruction of the program is assembled, or the program is refused.
# Seen: "Potential Performance Loss: 'setmaxnreg' ignored"; the same instruction behind a launch bound with its second
# number is kept. A producer and consumer kernel then runs, without the registers it was written for.
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cd "$room"

python3 -m venv venv
venv/bin/pip install -q --no-deps nvidia-cuda-nvcc==13.0.88
ptxas=$(find venv -name ptxas -type f | head -n 1)

kernel() { # FILE DIRECTIVES
    cat >"$1" <<PTX
.version 8.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u64 p) $2 {
    .reg .u64 %a;
    .reg .u32 %r;
    ld.param.u64 %a, [p];
    setmaxnreg.inc.sync.aligned.u32 232;
    mov.u32 %r, 1;
    st.global.u32 [%a], %r;
    ret;
}
PTX
}
kernel plain.ptx ''
kernel bounded.ptx '.maxntid 384,1,1 .minnctapersm 1'
"$ptxas" --version | tail -n 1
for file in plain bounded; do
    "$ptxas" -Werror -arch sm_90a "$file.ptx" -o "$file.cubin" >"$file.log" 2>&1 || {
        echo "changed: $file.ptx is refused"
        cat "$file.log"
        exit 1
    }
    echo "$file.ptx: exit code 0, $(grep -c "'setmaxnreg' ignored" "$file.log" || true) lines about setmaxnreg"
done
if ! grep -q "'setmaxnreg' ignored" plain.log || grep -q "'setmaxnreg' ignored" bounded.log; then
    echo "changed: not as described"
    exit 1
fi
echo "as described: left out without launch bounds, kept with them"
