// Which of Hopper's tiles computes a product, and in how many pieces: an estimate of its time, and the choice by it.
// The bits are the same whatever is chosen.
//
// A block, of which an SM has one, works on items: a tile of 128 tokens by W weights over all of K, or with `split`
// over one chunk of K; the item of a tile that ends last then adds its chunks up. All blocks begin together, so the
// time is that of the SM with the most items. An item takes W weights and 16 more (of copying its tokens, of filling
// and draining the pipeline) for each of its chunks; to store a chunk's sums and add them takes 16 more.
//
// Blocks, waves of them, and the tile (weights x tokens; +: a chunk of K each), on 132 SMs. B up to 64 is left to the
// portable kernel, several of whose blocks share an SM: reading the weights is the limit there, and half of a tile of
// 128 tokens would be empty.
//                  B = 8              B = 64             B = 256             B = 256, without tiles of 160, 96, 64 and +
//   0.5B  qkv        72  0.5  16 x 8    72  0.5  32 x 32   72  0.5  64 x 64    72  0.5  64 x 64
//         o          56  0.4  16 x 8    56  0.4  32 x 32  224  1.7  32 x 32   224  1.7  32 x 32
//         gate_up   152  1.2  64 x 8   152  1.2  64 x 64  122  1   160 x 128  102  1   192 x 128
//         down      280  2.1+ 16 x 8    70  0.5+ 64 x 64  100  1+   96 x 128  280  2.1+ 64 x 64
//   1.5B  qkv       256  1.9+ 16 x 8   256  1.9+ 32 x 32  128  1+   64 x 128  256  1.9+ 64 x 64
//         o         192  1.5+ 16 x 8   192  1.5+ 32 x 32   96  1+   64 x 128  192  1.5+ 64 x 64
//         gate_up   280  2.1  64 x 8   280  2.1  64 x 64  224  2   160 x 128  188  2   192 x 128
//         down      216  1.6+ 64 x 8   216  1.6+ 64 x 64  108  1+  256 x 128  216  1.6+ 128 x 128
//   7B    qkv       288  2.2+ 64 x 8   288  2.2+ 64 x 64  232  2+  160 x 128   72  1   128 x 128
//         o         224  1.7+ 64 x 8   224  1.7+ 64 x 64  112  1+  256 x 128  224  1.7+ 128 x 128
//         gate_up   592  4.5  64 x 8   592  4.5  64 x 64  396  3   192 x 128  396  3   192 x 128
//         down     1064  8.1+ 64 x 8  1064  8.1+ 64 x 64  722  5.5+ 192 x 128 1064  8.1+ 128 x 128
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define HOPPER_X 128 // tokens of a tile

typedef struct {
    int W;      // weights of a tile; 0: no tile gives the card enough to do
    bool split; // an item has one chunk of K
} HopperChoice;

static inline int64_t hopper_tiles(int W, int64_t M, int64_t N) {
    return (M + HOPPER_X - 1) / HOPPER_X * ((N + W - 1) / W);
}
// Bytes of scratch for the sums of a product that is split.
static inline int64_t hopper_sums(int W, int64_t M, int64_t N, int64_t chunks) {
    return hopper_tiles(W, M, N) * chunks * W * HOPPER_X * 4;
}
// The estimate, in weights times chunks that the busiest of `sms` SMs goes through.
static inline int64_t hopper_cost(HopperChoice c, int64_t M, int64_t N, int64_t chunks, int64_t sms) {
    int64_t items = hopper_tiles(c.W, M, N) * (c.split ? chunks : 1), waves = (items + sms - 1) / sms;
    return waves * (c.split ? c.W + 32 : chunks * (c.W + 16));
}
// The best choice for y[M,N] with K in that many chunks, `scratch` bytes and `counters` for counting the items of a
// tile. A tile that holds sums beside its accumulators has 192 weights at most. It is split only where there are fewer
// tiles than SMs, and chosen at all where at least half of the SMs have something to do.
static inline HopperChoice hopper_choose(int64_t M, int64_t N, int64_t chunks, int64_t sms, int64_t scratch,
                                         int64_t counters) {
    static const int one[] = {256, 192, 160, 96, 64, 0}, several[] = {192, 160, 128, 0};
    HopperChoice best = {0, false};
    int64_t least = INT64_MAX;
    for (int split = 0; split <= (chunks > 1); split++)
        for (const int *W = chunks > 1 && !split ? several : one; *W; W++) {
            HopperChoice c = {*W, split != 0};
            int64_t tiles = hopper_tiles(*W, M, N), items = tiles * (split ? chunks : 1);
            if (2 * items < sms) continue;
            if (split && (tiles >= sms || 2 * tiles > counters || hopper_sums(*W, M, N, chunks) > scratch)) continue;
            int64_t cost = hopper_cost(c, M, N, chunks, sms);
            if (cost < least) least = cost, best = c;
        }
    return best;
}
