// How tensor cores add products, by a model of how they round.
#pragma once
#include "machine.h"

namespace ptx {

// How one unit (mma.sync or wgmma) adds: each product by itself in ascending k, rounded to nearest; or `group` products
// and the sum so far at once, each cut off (not rounded) `extra` bits behind the 24 of the largest, and the result cut
// off too.
struct Adds {
    int group = 0; // 0: ascending
    int extra = 0;
};
// bytes: of an element (a group is so many bytes: 16 elements of 2 bytes are 8 of 4).
Adds unit_of(Units model, bool wgmma, int bytes);

// c[M][N] += a[M][K] b[K][N], all contiguous.
void multiply(Adds adds, int M, int N, int K, const float *a, const float *b, float *c);

} // namespace ptx
