// Philox4x32-10 (philox.h) of LANES counters at once.
#pragma once
#include "philox.h"
#include "simd.h"

typedef struct {
    vu v[4];
} PhiloxVec;

// hi:lo = a * m in each lane, from the 64-bit products of the even lanes and of the odd lanes.
static inline void multiply(vu a, uint64_t m, vu *hi, vu *lo) {
#if defined(__AVX512F__)
    __m512i even = _mm512_mul_epu32((__m512i)a, _mm512_set1_epi64((int64_t)m));
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), _mm512_set1_epi64((int64_t)m));
    *hi = (vu)_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
    *lo = (vu)_mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA);
#else
#if defined(__AVX2__)
    vul even = (vul)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x((int64_t)m));
    vul odd = (vul)_mm256_mul_epu32((__m256i)((vul)a >> 32), _mm256_set1_epi64x((int64_t)m));
#elif LANES == 4 && defined(__SSE2__)
    vul even = (vul)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x((int64_t)m));
    vul odd = (vul)_mm_mul_epu32((__m128i)((vul)a >> 32), _mm_set1_epi64x((int64_t)m));
#else
    vul even = ((vul)a & 0xffffffff) * m, odd = ((vul)a >> 32) * m;
#endif
    *hi = (vu)(even >> 32 | (odd & ~0xffffffffull));
    *lo = (vu)((even & 0xffffffff) | odd << 32);
#endif
}

// philox4x32 in each lane.
static inline PhiloxVec philox_vec(PhiloxVec counter, uint64_t key) {
    vu a = counter.v[0], b = counter.v[1], c = counter.v[2], d = counter.v[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        vu hi0, lo0, hi1, lo1;
        multiply(a, PHILOX_M0, &hi0, &lo0);
        multiply(c, PHILOX_M1, &hi1, &lo1);
        a = hi1 ^ b ^ k0, b = lo1, c = hi0 ^ d ^ k1, d = lo0;
        k0 += PHILOX_W0, k1 += PHILOX_W1;
    }
    return (PhiloxVec){{a, b, c, d}};
}

// philox_token for the 64 tokens from t on, in order; t is a multiple of 64.
typedef struct {
    vu v[64 / LANES];
} PhiloxTokens;
static inline PhiloxTokens philox_tokens(uint64_t seed, int64_t key, int32_t pos, uint32_t t) {
    const vu zero = {0};
    const uint32_t low = (uint32_t)key, high = (uint32_t)((uint64_t)key >> 32);
    PhiloxTokens out;
    for (int part = 0; part < 16 / LANES; part++) { // of the sixteen counters
        vu counter = (vu)vi_lanes() + (t / 4 + (uint32_t)(part * LANES));
        PhiloxVec r = philox_vec((PhiloxVec){{counter, zero + (uint32_t)pos, zero + low, zero + high}}, seed);
        for (int word = 0; word < 4; word++) out.v[word * (16 / LANES) + part] = r.v[word];
    }
    return out;
}
