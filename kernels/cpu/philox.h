// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), a counter-based random generator:
// four 32-bit numbers that are a pure function of a 128-bit counter and a 64-bit key. The same numbers as Random123's,
// and as cuRAND's, where the counter is {offset / 4 (64 bits), subsequence (64 bits)} and the key is the seed.
#pragma once
#include <stdint.h>

#if defined(__CUDACC__)
#define PHILOX_INLINE static __host__ __device__ __forceinline__
#else
#define PHILOX_INLINE static inline
#endif

#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u
#define PHILOX_W1 0xBB67AE85u

typedef struct {
    uint32_t v[4];
} Philox;

PHILOX_INLINE Philox philox4x32(Philox counter, uint64_t key) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t a = counter.v[0], b = counter.v[1], c = counter.v[2], d = counter.v[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)PHILOX_M0 * a, q = (uint64_t)PHILOX_M1 * c;
        a = (uint32_t)(q >> 32) ^ b ^ k0;
        b = (uint32_t)q;
        c = (uint32_t)(p >> 32) ^ d ^ k1;
        d = (uint32_t)p;
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    Philox out = {{a, b, c, d}};
    return out;
}

// The random bits of the four vocabulary entries token, token + 16, token + 32 and token + 48 in the draw of sequence
// `key` at position `pos`; token % 64 must be below 16. One counter serves tokens that are 16 apart, so that sixteen
// vector lanes hold neighbouring tokens.
PHILOX_INLINE Philox philox_quad(uint64_t seed, int64_t key, int32_t pos, uint32_t token) {
    Philox counter = {{token / 64 * 16 + token % 16, (uint32_t)pos, (uint32_t)key, (uint32_t)((uint64_t)key >> 32)}};
    return philox4x32(counter, seed);
}
// The 32 random bits of vocabulary entry `token`.
PHILOX_INLINE uint32_t philox_token(uint64_t seed, int64_t key, int32_t pos, uint32_t token) {
    return philox_quad(seed, key, pos, token).v[token / 16 % 4];
}
