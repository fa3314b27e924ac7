// C twins of the instructions that plain C cannot express, because they round differently: the fused multiply-add,
// VDPBF16PS and TDPBF16PS. Each is exact to the bit (but for the payload of a NaN). They follow the operation sections
// of Intel's Software Developer's Manual; tests/test_twins.c compares them with the hardware where that exists. They
// work on four lanes at a time, which every machine has.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef float Twin4 __attribute__((vector_size(16), may_alias));
typedef int32_t Twin4i __attribute__((vector_size(16), may_alias));
typedef double Twin2d __attribute__((vector_size(16)));
typedef int64_t Twin2l __attribute__((vector_size(16), may_alias));

static inline Twin4 twin_load(const void *p) {
    Twin4 x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline Twin4i twin_pairs(const void *p) { return (Twin4i)twin_load(p); }

// a * b + c in f64, rounded to odd (a result that is not exact gets an odd last bit), so that rounding it again to f32
// is correct (Boldo and Melquiond 2008). The product of two f32 is exact in f64.
static inline Twin2d twin_odd_sum(Twin2d a, Twin2d b, Twin2d c) {
    Twin2d p = a * b, s = p + c, t = s - p, left = (p - (s - t)) + (c - t);
    Twin2l inexact = (left > 0) | (left < 0), down = (left > 0) ^ (s > 0), u = (Twin2l)s;
    return (Twin2d)(u + (inexact & ((u & 1) - 1) & (down | 1)));
}
// a * b + c, rounded once.
static inline Twin4 twin_fma_soft(Twin4 a, Twin4 b, Twin4 c) {
    Twin2d low = twin_odd_sum((Twin2d){a[0], a[1]}, (Twin2d){b[0], b[1]}, (Twin2d){c[0], c[1]});
    Twin2d high = twin_odd_sum((Twin2d){a[2], a[3]}, (Twin2d){b[2], b[3]}, (Twin2d){c[2], c[3]});
    return (Twin4){(float)low[0], (float)low[1], (float)high[0], (float)high[1]};
}

#if defined(__x86_64__)
__attribute__((target("fma"))) static void twin_fma_hard(float *r, const float *a, const float *b, const float *c,
                                                         int n) {
    for (int i = 0; i < n; i += 4)
        _mm_storeu_ps(r + i, _mm_fmadd_ps(_mm_loadu_ps(a + i), _mm_loadu_ps(b + i), _mm_loadu_ps(c + i)));
}
#endif
// r[n] = a[n] * b[n] + c[n], rounded once, for n a multiple of 4. Not inlined: an op full of them would take gcc
// seconds.
static __attribute__((noinline, unused)) void twin_fma(float *r, const float *a, const float *b, const float *c,
                                                       int n) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("fma")) {
        twin_fma_hard(r, a, b, c, n);
        return;
    }
    for (int i = 0; i < n; i += 4) {
        Twin4 x = twin_fma_soft(twin_load(a + i), twin_load(b + i), twin_load(c + i));
        memcpy(r + i, &x, sizeof x);
    }
#else
    for (int i = 0; i < n; i++) r[i] = __builtin_fmaf(a[i], b[i], c[i]);
#endif
}

// --- bf16: denormals count as zeros of their sign, in operands and results, whatever the thread's floating-point modes
// say ---

#define TWIN_LEAST 0x800000 // the bits of the least normal f32

static inline Twin4 twin_flush(Twin4 x) {
    Twin4i u = (Twin4i)x, tiny = (u & 0x7fffffff) < TWIN_LEAST;
    return (Twin4)(u & (~tiny | INT32_MIN));
}
// The first elements (those lower in memory) of four pairs, as f32; twin_second has the others.
static inline Twin4 twin_first(Twin4i pairs) { return twin_flush((Twin4)(pairs << 16)); }
static inline Twin4 twin_second(Twin4i pairs) { return twin_flush((Twin4)(pairs & (int32_t)0xffff0000)); }

// twin_flush for sums still in f64: a sum that will round to the least normal number is no denormal.
static inline Twin2d twin_flush_wide(Twin2d x) {
    const double least = 0x1p-126 - 0x1p-151;
    Twin2l tiny = (x < least) & (x > -least);
    return (Twin2d)((Twin2l)x & (~tiny | INT64_MIN));
}
// twin_bf16 where a product leaves f32's range.
static Twin4 twin_bf16_far(Twin4 a, Twin4 b, Twin4 c) {
    Twin2d low = twin_odd_sum((Twin2d){a[0], a[1]}, (Twin2d){b[0], b[1]}, (Twin2d){c[0], c[1]});
    Twin2d high = twin_odd_sum((Twin2d){a[2], a[3]}, (Twin2d){b[2], b[3]}, (Twin2d){c[2], c[3]});
    low = twin_flush_wide(low), high = twin_flush_wide(high);
    return (Twin4){(float)low[0], (float)low[1], (float)high[0], (float)high[1]};
}
// a * b + c, rounded once, of bf16 values a and b; none of the three is a denormal. A product has 16 significant bits:
// within f32's range it is exact, and so is any sum with it that is a denormal.
static inline Twin4 twin_bf16(Twin4 a, Twin4 b, Twin4 c) {
    Twin4 p = a * b;
    Twin4i u = (Twin4i)p & 0x7fffffff, far = ((u < TWIN_LEAST) & (a != 0) & (b != 0)) | (u >= 0x7f800000);
    Twin2l any = (Twin2l)far;
    if (__builtin_expect((any[0] | any[1]) != 0, 0)) return twin_bf16_far(a, b, c);
    return twin_flush(p + c);
}

// Four lanes of VDPBF16PS: two chained multiply-adds for a pair, that of the second elements first.
static inline Twin4 twin_dpbf16(Twin4 acc, Twin4i a, Twin4i b) {
    acc = twin_bf16(twin_second(a), twin_second(b), twin_flush(acc));
    return twin_bf16(twin_first(a), twin_first(b), acc);
}

// TDPBF16PS: c[16, 16] += a[16, 16 pairs] b[16 pairs, 16]. One chain of multiply-adds, starting at 0, over the pairs'
// first elements and one over their second elements; the two are added, then their sum is added to c.
static inline void twin_tdpbf16(float c[16][16], const uint32_t a[16][16], const uint32_t b[16][16]) {
    for (int n = 0; n < 16; n += 4) {
        Twin4 of_first[16], of_second[16];
        for (int k = 0; k < 16; k++) {
            of_first[k] = twin_first(twin_pairs(&b[k][n]));
            of_second[k] = twin_second(twin_pairs(&b[k][n]));
        }
        for (int m = 0; m < 16; m++) {
            Twin4 first = {0}, second = {0};
            for (int k = 0; k < 16; k++) {
                Twin4i x = (int32_t)a[m][k] - (Twin4i){0};
                first = twin_bf16(twin_first(x), of_first[k], first);
                second = twin_bf16(twin_second(x), of_second[k], second);
            }
            Twin4 sum = twin_flush(twin_flush(twin_load(&c[m][n])) + twin_flush(first + second));
            memcpy(&c[m][n], &sum, sizeof sum);
        }
    }
}
