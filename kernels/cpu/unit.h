// What matrix products do with vectors: multiply-adds of f32 and of pairs of bf16, and lines of bf16 from memory.
#pragma once
#include "simd.h"

// Keeps x in a register: gcc would load it anew for every use, and the loads would then limit the speed.
#if defined(__AVX512F__)
#define KEEP(x) __asm__("" : "+v"(x))
#elif defined(__AVX2__)
#define KEEP(x) __asm__("" : "+x"(x))
#else
#define KEEP(x) ((void)0)
#endif

// step_f32: acc + a * b in each lane. step_pair: the same for LANES pairs of bf16, whose bits a and b hold.
#if defined(ISA_TWIN)
static __attribute__((noinline, unused)) vf step_f32(vf acc, vf a, vf b) { return vf_fma(a, b, acc); }
static __attribute__((noinline, unused)) vf step_pair(vf acc, vf a, vf b) {
    for (int i = 0; i < LANES; i += 4) {
        Twin4 sum = twin_dpbf16(twin_load((float *)&acc + i), twin_pairs((float *)&a + i), twin_pairs((float *)&b + i));
        memcpy((float *)&acc + i, &sum, sizeof sum);
    }
    return acc;
}
#else
static inline vf step_f32(vf acc, vf a, vf b) { return vf_fma(a, b, acc); }
static inline vf step_pair(vf acc, vf a, vf b) {
#if defined(__AVX512BF16__)
    return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#else
    return step_f32(acc, a, b); // never called: a unit is one element
#endif
}
#endif

// half_line widens the first n bf16 of a line in memory; pairs_down makes pairs of them with those of the `next` line,
// or of 0 where that is NULL.
ALWAYS_INLINE vu half_line(const char *line, int64_t n) {
    vh h = {0};
    memcpy(&h, line, n >= LANES ? sizeof h : (size_t)n * 2);
    return vu_widen(h);
}
ALWAYS_INLINE vu pairs_down(const char *line, const char *next, int64_t n) {
    vu none = {0};
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
