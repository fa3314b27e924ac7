// Vectors of float lanes (vf_...), as many as the instruction set's registers have, and rows of either dtype by such
// vectors. Written once for every instruction set, by GCC's vector extension.
//
// Wider vectors than registers would do too, but slowly: gcc 12 compares and converts them a lane at a time.
// Multiply-adds are fused only by vf_fma (the build sets -ffp-contract=off), so that two copies of the same inlined
// code give the same bits.
#pragma once
#include "isa.h"
#include "tensor.h"
#include <math.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#if defined(ISA_TWIN)
#include "twin.h"
#endif

#if defined(ISA_avx512)
#define LANES 16
#elif defined(ISA_avx2)
#define LANES 8
#else
#define LANES 4
#endif

// For functions with arguments that are constants at every call (a dtype, a number of rows): the compiler then makes a
// loop of its own for each call.
#define ALWAYS_INLINE static inline __attribute__((always_inline))
// For loops over registers, which have no addresses: their indices must become constants.
#if defined(ISA_TWIN)
#define UNROLL // twins' steps are calls: unrolling would only bloat the code
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef float vf __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * LANES), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * LANES), may_alias));
typedef uint64_t vul __attribute__((vector_size(4 * LANES), may_alias));
typedef uint16_t vh __attribute__((vector_size(2 * LANES), may_alias));
typedef double vd __attribute__((vector_size(4 * LANES), may_alias)); // half as many lanes
typedef int64_t vl __attribute__((vector_size(4 * LANES), may_alias));
typedef float v2f __attribute__((vector_size(8), may_alias));
typedef float v4f __attribute__((vector_size(16), may_alias));
typedef float v8f __attribute__((vector_size(32), may_alias));

#define LIST(...) __VA_ARGS__
// The numbers of the lanes: of the lower and the upper half, and of all.
#if LANES == 16
#define LOW_LANES  LIST(0, 1, 2, 3, 4, 5, 6, 7)
#define HIGH_LANES LIST(8, 9, 10, 11, 12, 13, 14, 15)
typedef v8f vf_half;
#elif LANES == 8
#define LOW_LANES  LIST(0, 1, 2, 3)
#define HIGH_LANES LIST(4, 5, 6, 7)
typedef v4f vf_half;
#else
#define LOW_LANES  LIST(0, 1)
#define HIGH_LANES LIST(2, 3)
typedef v2f vf_half;
#endif
static inline vi vi_lanes(void) { return (vi){LOW_LANES, HIGH_LANES}; }

static inline vf vf_set(float x) { return x - (vf){0}; }
static inline vf vf_load(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void vf_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
// Lanes of 16 bits widened to 32; and the lower 16 bits of lanes of 32.
static inline vu vu_widen(vh h) {
#if defined(__AVX512F__)
    return (vu)_mm512_cvtepu16_epi32((__m256i)h); // one conversion, where gcc makes two halves
#else
    return __builtin_convertvector(h, vu);
#endif
}
static inline vh vu_narrow(vu u) { return __builtin_convertvector(u, vh); }
static inline vf vf_load_bf16(const uint16_t *p) {
    vh h;
    memcpy(&h, p, sizeof h);
    return (vf)(vu_widen(h) << 16);
}
// Stores rounded to nearest even, as f32_to_bf16; NaN stays NaN. (The instruction for it would turn denormals into 0.)
static inline void vf_store_bf16(uint16_t *p, vf x) {
    vu u = (vu)x, r = u + 0x7fff + ((u >> 16) & 1);
#if defined(__AVX512F__)
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
    r = (vu)_mm512_mask_or_epi32((__m512i)r, nan, (__m512i)u, _mm512_set1_epi32(0x400000));
#else
    vu nan = (vu)(x != x);
    r = (r & ~nan) | ((u | 0x400000) & nan);
#endif
    vh h = vu_narrow(r >> 16);
    memcpy(p, &h, sizeof h);
}
// a * b + c, rounded once where the machine has FMA.
static inline vf vf_fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(ISA_TWIN)
    twin_fma((float *)&a, (const float *)&a, (const float *)&b, (const float *)&c, LANES);
    return a;
#else
    return a * b + c;
#endif
}
// a > b ? a : b, so b where either is NaN; and likewise the minimum.
static inline vf vf_max(vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vi m = a > b;
    return (vf)(((vi)a & m) | ((vi)b & ~m));
#endif
}
static inline vf vf_min(vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    vi m = a < b;
    return (vf)(((vi)a & m) | ((vi)b & ~m));
#endif
}
// The square root, rounded correctly.
static inline vf vf_sqrt(vf x) {
#if defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}
// The halves.
static inline vf_half vf_low(vf x) { return __builtin_shufflevector(x, x, LOW_LANES); }
static inline vf_half vf_high(vf x) { return __builtin_shufflevector(x, x, HIGH_LANES); }
static inline vf vf_join(vf_half low, vf_half high) {
    return __builtin_shufflevector(low, high, LOW_LANES, HIGH_LANES);
}
static inline vd vd_of(vf_half x) { return __builtin_convertvector(x, vd); }
static inline vf_half vd_round(vd x) { return __builtin_convertvector(x, vf_half); }
// The sum of the lanes, by a fixed tree: halves, quarters, ...; and of f64 lanes.
static inline float vf_sum(vf x) {
#if LANES == 16
    v8f a = vf_low(x) + vf_high(x);
    v4f b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
#elif LANES == 8
    v4f b = vf_low(x) + vf_high(x);
#else
    v4f b = x;
#endif
    return (b[0] + b[2]) + (b[1] + b[3]);
}
static inline double vd_sum(vd x) {
    double s[LANES / 2];
    memcpy(s, &x, sizeof s);
    for (int n = LANES / 4; n > 0; n /= 2)
        for (int i = 0; i < n; i++) s[i] += s[i + n];
    return s[0];
}
// Whether any lane of a comparison holds.
static inline bool vi_any(vi mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
    return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#else
    uint64_t part[sizeof mask / 8], all = 0;
    memcpy(part, &mask, sizeof part);
    for (size_t i = 0; i < sizeof mask / 8; i++) all |= part[i];
    return all != 0;
#endif
}
// The largest lane.
static inline float vf_max_lane(vf x) {
#if LANES == 16
    x = vf_max(x, __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    x = vf_max(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
#elif LANES == 8
    x = vf_max(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
#endif
    float a = x[0] > x[2] ? x[0] : x[2], b = x[1] > x[3] ? x[1] : x[3];
    return a > b ? a : b;
}
// One step of transposing x[n, n] of vectors: exchanges the off-diagonal squares of side h. `lo` and `hi` pick the
// lanes of two rows that become the upper and the lower one.
#define EXCHANGE_SQUARES(Vector, x, n, h, lo, hi)                                                                      \
    UNROLL for (int i = 0; i < n; i++) if (!(i & h)) {                                                                 \
        Vector a = x[i], b = x[i + h];                                                                                 \
        x[i] = __builtin_shufflevector(a, b, lo);                                                                      \
        x[i + h] = __builtin_shufflevector(a, b, hi);                                                                  \
    }
// Transposes x[LANES, LANES].
ALWAYS_INLINE void vf_transpose(vf x[LANES]) {
#if LANES == 16
    EXCHANGE_SQUARES(vf, x, LANES, 8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
                     LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    EXCHANGE_SQUARES(vf, x, LANES, 4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
                     LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    EXCHANGE_SQUARES(vf, x, LANES, 2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
                     LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    EXCHANGE_SQUARES(vf, x, LANES, 1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
                     LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#elif LANES == 8
    EXCHANGE_SQUARES(vf, x, 8, 4, LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15))
    EXCHANGE_SQUARES(vf, x, 8, 2, LIST(0, 1, 8, 9, 4, 5, 12, 13), LIST(2, 3, 10, 11, 6, 7, 14, 15))
    EXCHANGE_SQUARES(vf, x, 8, 1, LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15))
#else
    EXCHANGE_SQUARES(vf, x, 4, 2, LIST(0, 1, 4, 5), LIST(2, 3, 6, 7))
    EXCHANGE_SQUARES(vf, x, 4, 1, LIST(0, 4, 2, 6), LIST(1, 5, 3, 7))
#endif
}
// e^x, within 2 ulp; below -87.3 it is 0 (so is e^-inf), above 88.8 it is inf. Cody-Waite reduction, degree-6
// polynomial.
static inline vf vf_exp(vf x) {
    vf lo = vf_set(-87.33654f), hi = vf_set(89.0f);
    vf c = vf_min(hi, vf_max(lo, x)); // NaN stays NaN
    vf magic = vf_set(12582912.0f);   // 1.5 * 2^23: adding and subtracting it rounds to an integer
    vf n = vf_fma(c, vf_set(1.44269504f), magic) - magic;
    vf r = vf_fma(n, vf_set(-0.693359375f), c);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.3888889e-3f);
    p = vf_fma(p, r, vf_set(8.3333333e-3f));
    p = vf_fma(p, r, vf_set(4.1666667e-2f));
    p = vf_fma(p, r, vf_set(1.6666667e-1f));
    p = vf_fma(p, r, vf_set(0.5f));
    p = vf_fma(p * r, r, r) + 1.0f;
#if defined(__AVX512F__)
    __mmask16 above = _mm512_cmp_ps_mask((__m512)x, (__m512)lo, _CMP_NLT_UQ);
    return (vf)_mm512_maskz_scalef_ps(above, (__m512)p, (__m512)n);
#else
    vi e = __builtin_convertvector(n, vi), half = e >> 1; // 2^n in two factors, so that neither overflows
    p = p * (vf)((half + 127) << 23) * (vf)((e - half + 127) << 23);
    return (vf)((vi)p & ~(x < lo));
#endif
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
#define VF_SQRT_HALF 0x3f3504f3 // the bits of sqrt(1/2), from which vf_log counts exponent and mantissa
// log(x) for normal positive x, within 2 ulp.
static inline vf vf_log(vf x) {
    vi u = (vi)x - VF_SQRT_HALF;
    return vf_log_reduced((vf)((u & 0x7fffff) + VF_SQRT_HALF) - 1.0f, __builtin_convertvector(u >> 23, vf));
}
// Loads the first n < LANES elements; the other lanes are `pad`.
static inline vf vf_load_part(const float *p, int n, float pad) {
    float a[LANES];
    for (int i = 0; i < LANES; i++) a[i] = i < n ? p[i] : pad;
    return vf_load(a);
}

// LANES elements, from i on, of a row of either dtype, as f32.
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
// row_load where only n elements are left: the other lanes are 0. (row_store_part leaves what lies past them alone.)
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

// Runs the statements for i = 0, LANES, ... below `end`, with n the elements to handle: first for whole vectors, where
// n = LANES is a constant that makes row_load_part a plain load, then once for what is left.
#define FOR_LANES(i, n, end, ...)                                                                                      \
    do {                                                                                                               \
        int64_t i = 0;                                                                                                 \
        for (; i + LANES <= (end); i += LANES) {                                                                       \
            const int64_t n = LANES;                                                                                   \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
        if (i < (end)) {                                                                                               \
            const int64_t n = (end)-i;                                                                                 \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    } while (0)
// As FOR_LANES, for statements that add to sum[part] of PARTS vectors, sixteen lanes whatever the registers hold: sums
// over fewer lanes would be longer, and so less exact, and wait for one another.
#define PARTS (16 / LANES)
#define FOR_PARTS(i, n, part, end, ...)                                                                                \
    do {                                                                                                               \
        int64_t i = 0;                                                                                                 \
        while (i + PARTS * LANES <= (end)) {                                                                           \
            const int64_t n = LANES;                                                                                   \
            UNROLL for (int part = 0; part < PARTS; part++, i += LANES) { __VA_ARGS__ }                                \
        }                                                                                                              \
        for (; i < (end); i += LANES) {                                                                                \
            const int64_t n = (end)-i < LANES ? (end)-i : LANES;                                                       \
            const int part = 0;                                                                                        \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    } while (0)
static inline float parts_sum(const vf *sum) {
    vf all = sum[0];
    for (int part = 1; part < PARTS; part++) all += sum[part];
    return vf_sum(all);
}
