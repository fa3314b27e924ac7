// Sixteen float lanes, written once for every instruction set.
//
// GCC's vector extension splits a 64-byte vector where registers are narrower. Multiply-adds are fused only by vf_fma
// (the build sets -ffp-contract=off), so that two copies of the same inlined code give the same bits.
#pragma once
#include "tensor.h"
#include <math.h>
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#define LANES 16

// For functions with arguments that are constants at every call (a dtype, a block's rows): each call becomes its own loop.
#define ALWAYS_INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(64), may_alias));
typedef int32_t vi __attribute__((vector_size(64), may_alias));
typedef uint32_t vu __attribute__((vector_size(64), may_alias));
typedef uint16_t vh __attribute__((vector_size(32), may_alias));

static inline vf vf_set(float x) { return x - (vf){0}; }
static inline vf vf_load(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void vf_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
static inline vf vf_load_bf16(const uint16_t *p) {
    vh h;
    memcpy(&h, p, sizeof h);
    return (vf)(__builtin_convertvector(h, vu) << 16);
}
// Rounds to nearest even, as f32_to_bf16; NaN stays NaN.
static inline void vf_store_bf16(uint16_t *p, vf x) {
    vu u = (vu)x, nan = (vu)(x != x);
    u = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    u = (u & ~nan) | ((((vu)x >> 16) | 0x40) & nan);
    vh h = __builtin_convertvector(u, vh);
    memcpy(p, &h, sizeof h);
}
// a * b + c, rounded once where the machine has FMA.
static inline vf vf_fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    vf r;
    for (int i = 0; i < 2; i++)
        ((__m256 *)&r)[i] = _mm256_fmadd_ps(((__m256 *)&a)[i], ((__m256 *)&b)[i], ((__m256 *)&c)[i]);
    return r;
#else
    return a * b + c;
#endif
}
static inline vf vf_max(vf a, vf b) {
    vi m = a > b;
    return (vf)(((vi)a & m) | ((vi)b & ~m));
}
// Sum and maximum over lanes by a fixed tree: halves, quarters, ...
static inline float vf_sum(vf x) {
    float a[LANES];
    vf_store(a, x);
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) a[i] += a[i + n];
    return a[0];
}
static inline float vf_max_lane(vf x) {
    float a[LANES];
    vf_store(a, x);
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) a[i] = a[i] > a[i + n] ? a[i] : a[i + n];
    return a[0];
}
// e^x, within 2 ulp; below -87.3 it is 0 (so is e^-inf), above 88.7 it is inf. Cody-Waite reduction, degree-6 polynomial.
static inline vf vf_exp(vf x) {
    vf lo = vf_set(-87.33654f), hi = vf_set(88.72283f);
    vi under = x<lo, over = x> hi, nan = x != x;
    vf c = vf_max(x, lo);
    vi big = c > hi;
    c = (vf)(((vi)c & ~big) | ((vi)hi & big));
    vf magic = vf_set(12582912.0f); // 1.5 * 2^23: adding and subtracting it rounds to an integer
    vf n = vf_fma(c, vf_set(1.44269504f), magic) - magic;
    vf r = vf_fma(n, vf_set(-0.693359375f), c);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.3888889e-3f);
    p = vf_fma(p, r, vf_set(8.3333333e-3f));
    p = vf_fma(p, r, vf_set(4.1666667e-2f));
    p = vf_fma(p, r, vf_set(1.6666667e-1f));
    p = vf_fma(p, r, vf_set(0.5f));
    p = vf_fma(p * r, r, r) + 1.0f;
    vi e = __builtin_convertvector(n, vi);
    vi half = e >> 1; // 2^n in two factors, so that neither overflows
    p = p * (vf)((half + 127) << 23) * (vf)((e - half + 127) << 23);
    p = (vf)((vi)p & ~under);
    p = (vf)(((vi)p & ~over) | ((vi)vf_set(INFINITY) & over));
    return (vf)(((vi)p & ~nan) | ((vi)x & nan));
}
// log(m) + e log(2) for m = 1 + f, f in [sqrt(1/2) - 1, sqrt(2) - 1]; Cephes' degree-9 polynomial.
static inline vf vf_log_reduced(vf f, vf e) {
    vf p = vf_set(7.0376836292e-2f);
    p = vf_fma(p, f, vf_set(-1.1514610310e-1f));
    p = vf_fma(p, f, vf_set(1.1676998740e-1f));
    p = vf_fma(p, f, vf_set(-1.2420140846e-1f));
    p = vf_fma(p, f, vf_set(1.4249322787e-1f));
    p = vf_fma(p, f, vf_set(-1.6668057665e-1f));
    p = vf_fma(p, f, vf_set(2.0000714765e-1f));
    p = vf_fma(p, f, vf_set(-2.4999993993e-1f));
    p = vf_fma(p, f, vf_set(3.3333331174e-1f));
    vf f2 = f * f;
    p = vf_fma(p * f, f2, e * -2.12194440e-4f);
    p = vf_fma(f2, vf_set(-0.5f), p);
    return vf_fma(e, vf_set(0.693359375f), p + f);
}
// log(x) for normal positive x, within 2 ulp.
static inline vf vf_log(vf x) {
    vi u = (vi)x - 0x3f3504f3; // exponent and mantissa as if sqrt(1/2) were 1
    vf e = __builtin_convertvector(u >> 23, vf);
    vf m = (vf)((u & 0x7fffff) + 0x3f3504f3);
    return vf_log_reduced(m - 1.0f, e);
}
// The first n < LANES elements, the rest filled with `pad`.
static inline vf vf_load_part(const float *p, int n, float pad) {
    float a[LANES];
    for (int i = 0; i < LANES; i++) a[i] = i < n ? p[i] : pad;
    return vf_load(a);
}

// A row of either storage type, sixteen elements at a time.
static inline vf row_load(const void *p, DType t, int64_t i) {
    return t == F32 ? vf_load((const float *)p + i) : vf_load_bf16((const uint16_t *)p + i);
}
static inline void row_store(void *p, DType t, int64_t i, vf x) {
    if (t == F32) vf_store((float *)p + i, x);
    else vf_store_bf16((uint16_t *)p + i, x);
}
static inline float elem_load(const void *p, DType t, int64_t i) {
    return t == F32 ? ((const float *)p)[i] : bf16_to_f32(((const uint16_t *)p)[i]);
}
static inline void elem_store(void *p, DType t, int64_t i, float x) {
    if (t == F32) ((float *)p)[i] = x;
    else ((uint16_t *)p)[i] = f32_to_bf16(x);
}
// The first n <= LANES elements at i; lanes past them are 0, and are not stored.
static inline vf row_load_part(const void *p, DType t, int64_t i, int64_t n) {
    if (n >= LANES) return row_load(p, t, i);
    float a[LANES] = {0};
    for (int64_t j = 0; j < n; j++) a[j] = elem_load(p, t, i + j);
    return vf_load(a);
}
static inline void row_store_part(void *p, DType t, int64_t i, int64_t n, vf x) {
    if (n >= LANES) {
        row_store(p, t, i, x);
        return;
    }
    float a[LANES];
    vf_store(a, x);
    for (int64_t j = 0; j < n; j++) elem_store(p, t, i + j, a[j]);
}
