#!/bin/sh
# gcc 12.2 (Debian 12: gcc-12 12.2.0-14+deb12u1), _tile_loadconfig.
#
# Behaviour: the intrinsic is an asm statement whose operand is the first byte of the 64-byte configuration. So the compiler
# believes that the other 63 bytes are not read, and with -O2 leaves out the stores that fill them.
# One expects: the tile configuration in memory is what the program wrote, as clang's intrinsic has it.
# Seen: of a structure with eight rows counts of 16 and eight widths of 64, neither number is stored anywhere.
# What helps: an empty asm statement with the address and a "memory" clobber between the stores and the intrinsic.
set -eu
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cd "$room"

version=12.2.0-14+deb12u1
for p in cpp-12=$version libgcc-12-dev=$version libisl23 libmpc3 libmpfr6 libgmp10; do
    apt-get download -qq "$p" >/dev/null 2>&1
done
for deb in ./*.deb; do dpkg -x "$deb" root; done
gcc=root/usr/lib/gcc/x86_64-linux-gnu/12
export LD_LIBRARY_PATH="$room/root/usr/lib/x86_64-linux-gnu"

write() { # FILE BARRIER
    cat >"$1" <<C
#include <stdint.h>
#include <amxtileintrin.h>
void configure(void) {
    struct { uint8_t palette, start, reserved[14]; uint16_t width[16]; uint8_t rows[16]; } c = {0};
    c.palette = 1;
    for (int i = 0; i < 8; i++) c.width[i] = 64, c.rows[i] = 16;
    $2
    _tile_loadconfig(&c);
}
C
}
# The header insists on being included by immintrin.h.
compile() {
    "$gcc/cc1" -quiet -O2 -mamx-tile -ffreestanding -D_IMMINTRIN_H_INCLUDED -isystem "$gcc/include" "$1" -o "$1.s"
}
write plain.c ''
write barrier.c '__asm__ volatile("" : : "r"(&c) : "memory");'
compile plain.c
compile barrier.c

stores() { grep -cE 'mov.*(rsp|rbp)' "$1" || true; }
echo "gcc $version, -O2: $(stores plain.c.s) stores before ldtilecfg; with a barrier $(stores barrier.c.s)"
grep -q ldtilecfg plain.c.s
if [ "$(stores plain.c.s)" -ge "$(stores barrier.c.s)" ]; then
    echo "changed: the stores are there now"
    exit 1
fi
echo "as described: the stores of widths and rows are left out"
