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

#if defined(ISA_TWIN)
#define UNROLL // twins' steps are calls: unrolling would only bloat the code
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
// Keeps x in a register: gcc would load it anew for every use, and the loads would then limit the speed.
#if defined(__AVX512F__)
#define KEEP(x) __asm__("" : "+v"(x))
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

// Transposes x[WIDTH, WIDTH]: at each step the off-diagonal squares of side h change places.
#define SQUARES(h, lo, hi)                                                                                             \
    UNROLL for (int i = 0; i < WIDTH; i++) if (!(i & h)) {                                                             \
        Vec a = x[i], b = x[i + h];                                                                                    \
        x[i] = __builtin_shufflevector(a, b, lo);                                                                      \
        x[i + h] = __builtin_shufflevector(a, b, hi);                                                                  \
    }
#define LIST(...) __VA_ARGS__
ALWAYS_INLINE void transpose_square(Vec x[WIDTH]) {
#if WIDTH == 16
    SQUARES(8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
            LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    SQUARES(4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
            LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    SQUARES(2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
            LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    SQUARES(1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
            LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#elif WIDTH == 8
    SQUARES(4, LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15))
    SQUARES(2, LIST(0, 1, 8, 9, 4, 5, 12, 13), LIST(2, 3, 10, 11, 6, 7, 14, 15))
    SQUARES(1, LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15))
#else
    SQUARES(2, LIST(0, 1, 4, 5), LIST(2, 3, 6, 7))
    SQUARES(1, LIST(0, 4, 2, 6), LIST(1, 5, 3, 7))
#endif
}
#undef LIST
#undef SQUARES

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
