// Gumbel-max draws on the GPU: of the logits that a thread holds, the one with the largest z + Gumbel number.
//
// A Gumbel number takes two logarithms and a polynomial, some 22 instructions, and all but a few numbers lose by far.
// So each logit is first given an upper bound of its score, by one logarithm. Only the quad with the largest bound is
// computed, as every score of it is needed to know its best; where that exceeds all other quads' bounds, which it
// mostly does, no other can win. Else all are computed: the result is the same one, to the bit.
#pragma once
#include "philox.h"
#include "ptx.cuh"

// What the draws of a pass depend on beside the logits.
typedef struct {
    const int64_t *key; // [n]
    const int32_t *pos; // [n]
    uint64_t seed;
    bool greedy;
} Draw;

typedef struct {
    float score, z; // z + G, or z alone where greedy
    int32_t id;
} Candidate;

// A Gumbel number from random bits: -log(-log(1 - u)) for u = (bits + 1/2) / 2^32. The exponential -log(1 - u) keeps
// its relative precision where u is small, which is where the winners are: so even the rarest token is drawn at its own
// rate. There it is Cephes' polynomial of logf; elsewhere the hardware's logarithm, which errs by some 2^-22.
static __device__ __forceinline__ float gumbel(uint32_t bits) {
    float u = ((float)bits + 0.5f) * 0x1p-32f, f = -u;
    float p = 7.0376836292e-2f;
    p = fmaf(p, f, -1.1514610310e-1f);
    p = fmaf(p, f, 1.1676998740e-1f);
    p = fmaf(p, f, -1.2420140846e-1f);
    p = fmaf(p, f, 1.4249322787e-1f);
    p = fmaf(p, f, -1.6668057665e-1f);
    p = fmaf(p, f, 2.0000714765e-1f);
    p = fmaf(p, f, -2.4999993993e-1f);
    p = fmaf(p, f, 3.3333331174e-1f);
    float f2 = f * f, small = f + fmaf(f2, -0.5f, p * f * f2);
    return -__logf(-(u > 0.29f ? __logf(fmaxf(1 - u, 0x1p-25f)) : small));
}

// At least gumbel(bits), as -log(1 - u) >= u + u^2 / 2. The margin of 2^-12 covers the rounding of either: the
// exponential is right to a part in 2^19, and the logarithms, of size 33 at most, to 2^-22 of that. For u below 1/32 it
// is at most 6e-4 above.
static __device__ __forceinline__ float gumbel_above(uint32_t bits) {
    float b = (float)bits + 0.5f; // 2^32 u
    return fmaf(log2_approx(fmaf(b * 0x1p-33f, b, b)), -0.69314718f, 22.180710f + 0x1p-12f);
}

// Whether a candidate beats another: the lowest id wins a tie, and NaN never wins.
static __device__ __forceinline__ bool beats(float score, int32_t id, float other, int32_t other_id) {
    return score > other || (score == other && id < other_id);
}
static __device__ __forceinline__ void take_better(Candidate *best, Candidate c) {
    if (beats(c.score, c.id, best->score, best->id)) *best = c;
}

// The best candidate of QUADS quads of logits, for the draw of sequence `key` at position `pos`. z(k, i) is the logit
// of token `first` + id_of(k) + 16 i, and the ids are counted from `first`. Where nothing has a score above -inf, it is
// id 0 with z(0, 0).
//
// A score is z + G, its bound z + gumbel_above, both rounded once, and rounding keeps their order: so a quad whose
// bounds are all less than a score has no score that is as large.
template <int QUADS, int UNROLL, typename Ids, typename Logits>
static __device__ __forceinline__ Candidate draw_best(const Draw &draw, int64_t key, int32_t pos, int32_t first,
                                                      Ids id_of, Logits z) {
    Candidate best = {-INFINITY, z(0, 0), 0};
    auto bits_of = [&](int k) { return philox_quad(draw.seed, key, pos, (uint32_t)(first + id_of(k))); };
    auto compute = [&](int k) {
        Philox bits = {};
        if (!draw.greedy) bits = bits_of(k);
#pragma unroll
        for (int i = 0; i < 4; i++)
            take_better(&best, {z(k, i) + (draw.greedy ? 0 : gumbel(bits.v[i])), z(k, i), id_of(k) + 16 * i});
    };
    if (!draw.greedy) {
        float most = -INFINITY, second = -INFINITY; // the largest bound, and the largest of the other quads
        int at = 0;
#pragma unroll UNROLL
        for (int k = 0; k < QUADS; k++) {
            Philox bits = bits_of(k);
            float bound = -INFINITY; // NaN bounds nothing, and never wins
#pragma unroll
            for (int i = 0; i < 4; i++) bound = fmaxf(bound, z(k, i) + gumbel_above(bits.v[i]));
            second = fmaxf(second, fminf(most, bound));
            if (bound > most) most = bound, at = k;
        }
        compute(at);
        if (second < best.score) return best;
    }
#pragma unroll 1
    for (int k = 0; k < QUADS; k++) compute(k);
    return best;
}
