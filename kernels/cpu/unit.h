// The vector register that matrix products work on (Vec), its multiply-adds of f32 and of pairs of bf16, and its
// transposition.
#pragma once
#include "simd.h"

#if defined(ISA_avx512)
#define WIDTH 16
#elif defined(ISA_avx2)
#define WIDTH 8
#else
#define WIDTH 4
#endif

typedef float Vec __attribute__((vector_size(4 * WIDTH), may_alias));
typedef uint32_t VecU __attribute__((vector_size(4 * WIDTH), may_alias));

// Keeps x in a register: gcc would load it anew for every use, and the loads would then limit the speed.
#if defined(__AVX512F__)
#define KEEP(x) __asm__("" : "+v"(x))
#elif defined(__AVX2__)
#define KEEP(x) __asm__("" : "+x"(x))
#else
#define KEEP(x) ((void)0)
#endif

// step_f32: acc + a * b in each lane. step_pair: the same for WIDTH pairs of bf16, whose bits a and b hold.
#if defined(ISA_TWIN)
static __attribute__((noinline, unused)) Vec step_f32(Vec acc, Vec a, Vec b) {
    twin_fma((float *)&acc, (const float *)&a, (const float *)&b, (const float *)&acc, WIDTH);
    return acc;
}
static __attribute__((noinline, unused)) Vec step_pair(Vec acc, Vec a, Vec b) {
    for (int i = 0; i < WIDTH; i += 4) {
        Twin4 sum = twin_dpbf16(twin_load((float *)&acc + i), twin_pairs((float *)&a + i), twin_pairs((float *)&b + i));
        memcpy((float *)&acc + i, &sum, sizeof sum);
    }
    return acc;
}
#else
static inline Vec step_f32(Vec acc, Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)acc);
#elif defined(__FMA__)
    return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)acc);
#else
    return acc + a * b;
#endif
}
static inline Vec step_pair(Vec acc, Vec a, Vec b) {
#if defined(__AVX512BF16__)
    return (Vec)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#else
    return step_f32(acc, a, b); // never called: a unit is one element
#endif
}
#endif

// Transposes x[WIDTH, WIDTH].
ALWAYS_INLINE void transpose_square(Vec x[WIDTH]) {
#if WIDTH == 16
    vf_transpose((vf *)x);
#elif WIDTH == 8
    EXCHANGE_SQUARES(Vec, x, 8, 4, LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15))
    EXCHANGE_SQUARES(Vec, x, 8, 2, LIST(0, 1, 8, 9, 4, 5, 12, 13), LIST(2, 3, 10, 11, 6, 7, 14, 15))
    EXCHANGE_SQUARES(Vec, x, 8, 1, LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15))
#else
    EXCHANGE_SQUARES(Vec, x, 4, 2, LIST(0, 1, 4, 5), LIST(2, 3, 6, 7))
    EXCHANGE_SQUARES(Vec, x, 4, 1, LIST(0, 4, 2, 6), LIST(1, 5, 3, 7))
#endif
}

// half_line widens the first n bf16 of a line in memory; pairs_down makes pairs of them with those of the `next` line,
// or of 0 where that is NULL.
typedef uint16_t Half __attribute__((vector_size(2 * WIDTH), may_alias));
ALWAYS_INLINE VecU half_line(const char *line, int64_t n) {
    Half h = {0};
    memcpy(&h, line, n >= WIDTH ? sizeof h : (size_t)n * 2);
    return __builtin_convertvector(h, VecU);
}
ALWAYS_INLINE VecU pairs_down(const char *line, const char *next, int64_t n) {
    VecU none = {0};
    return half_line(line, n) | (next ? half_line(next, n) << 16 : none);
}

// row[n] of either dtype = (or +=, with `add`) x[n], rounded once.
ALWAYS_INLINE void row_put(void *row, DType t, bool add, const float *x, int64_t n) {
    int64_t j = 0;
    for (; j + LANES <= n; j += LANES) {
        vf sum = vf_load(x + j);
        if (add) sum += row_load(row, t, j);
        row_store(row, t, j, sum);
    }
    for (; j < n; j++) elem_store(row, t, j, add ? elem_load(row, t, j) + x[j] : x[j]);
}
