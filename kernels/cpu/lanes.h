// Rows of two operands multiplied vector by vector along K, with sums spread over the lanes of vf; and the tree that
// makes one sum of each. The order of a sum is dot.h's.
#pragma once
#include "dot.h"
#include "unit.h"

#define TILE      16 // sums that sum_lanes makes at once: a tile of 4 x 4 outputs, 2 x 8 or 1 x 16
#define TILE_ROWS 4  // rows of a in a tile, at most

// --- Loads, and the step that multiplies a vector of a and one of b into an accumulator, for each dtype ---

#if defined(ISA_avx512)
#define GROUP          4 // rows of b at a time: TILE_ROWS x GROUP accumulators live in registers
#define MANY_REGISTERS true
#else
#define GROUP          2
#define MANY_REGISTERS false
#endif
static inline vf load_f32(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    KEEP(x);
    return x;
}
// The first n < LANES elements, then zeros.
static inline vf load_f32_part(const float *p, int64_t n) {
    vf x = {0};
    for (int64_t i = 0; i < n; i++) x[i] = p[i];
    return x;
}
#if defined(ISA_avx512_bf16)
#define WIDTH_BF16 32
typedef vf BfVec; // LANES pairs of bf16
static inline BfVec load_bf16(const uint16_t *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline BfVec load_bf16_part(const uint16_t *p, int64_t n) {
#if defined(__AVX512BF16__)
    return (BfVec)_mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p);
#else
    vf x = {0};
    memcpy(&x, p, (size_t)n * sizeof *p);
    return x;
#endif
}
static inline vf step_bf16(vf acc, BfVec a, BfVec b) { return step_pair(acc, a, b); }
typedef uint16_t RowElem; // of the rows of a that lanes_bf16 reads
static inline BfVec load_row(const RowElem *p) { return load_bf16(p); }
static inline BfVec load_row_part(const RowElem *p, int64_t n) { return load_bf16_part(p, n); }
#define WIDEN false
#else
#define WIDTH_BF16 (2 * LANES)
typedef struct {
    vf even, odd; // elements, widened
} BfVec;
static inline BfVec load_bf16(const uint16_t *p) {
    vu u;
    memcpy(&u, p, sizeof u);
    KEEP(u);
    return (BfVec){(vf)(u << 16), (vf)(u & 0xffff0000u)};
}
static inline BfVec load_bf16_part(const uint16_t *p, int64_t n) {
    uint16_t h[WIDTH_BF16] = {0};
    for (int64_t i = 0; i < n; i++) h[i] = p[i];
    return load_bf16(h);
}
static inline vf step_bf16(vf acc, BfVec a, BfVec b) { return step_f32(step_f32(acc, a.even, b.even), a.odd, b.odd); }
// Widening takes as many instructions as half the multiply-adds of a tile. So rows of a are widened once (wide_rows),
// not once for every tile.
typedef float RowElem;
static inline BfVec load_row(const RowElem *p) {
    vf x[2];
    memcpy(&x[0], p, sizeof x[0]);
    memcpy(&x[1], p + LANES, sizeof x[1]);
    if (MANY_REGISTERS) {
        KEEP(x[0]);
        KEEP(x[1]);
    }
    return (BfVec){x[0], x[1]};
}
static inline BfVec load_row_part(const RowElem *p, int64_t n) { return load_row(p); } // padded
#define WIDEN      true
#endif

// The first n elements, or as many as there is room for.
static inline BfVec load_bf16_most(const uint16_t *p, int64_t n) {
    return n < WIDTH_BF16 ? load_bf16_part(p, n) : load_bf16(p);
}

// Defines a function: acc[MR,NR] += the products of MR rows of a and NR rows of b over len elements, still spread over
// lanes; the tail is padded with zeros. Meanwhile other rows are prefetched: of the first NF <= NR of `next`, whose
// elements have `size` bytes, into the second-level cache, len elements or, where `half` is 1, half of them; and of
// `near`, unless it is NULL, a line for every step into the first.
#define DEFINE_LANES(name, ElemA, Elem, Loaded, STEP, load_a, load_a_part, load, load_part, step)                      \
    ALWAYS_INLINE void name(vf *acc, int MR, int NR, const ElemA *const *a, const Elem *const *b, int64_t len,         \
                            const int NF, const void *const *next, int64_t size, int half, const ElemA *near) {        \
        int64_t k = 0;                                                                                                 \
        for (; k + STEP <= len; k += STEP) {                                                                           \
            Loaded x[TILE_ROWS];                                                                                       \
            UNROLL for (int i = 0; i < MR; i++) x[i] = load_a(a[i] + k);                                               \
            UNROLL for (int j = 0; j < NR; j++) {                                                                      \
                Loaded y = load(b[j] + k);                                                                             \
                if (j < NF) __builtin_prefetch((const char *)next[j] + (k * size >> half), 0, 2);                      \
                if (j == 0 && near) __builtin_prefetch(near + k, 0, 3);                                                \
                UNROLL for (int i = 0; i < MR; i++) acc[i * NR + j] = step(acc[i * NR + j], x[i], y);                  \
            }                                                                                                          \
        }                                                                                                              \
        if (k < len) {                                                                                                 \
            Loaded x[TILE_ROWS];                                                                                       \
            UNROLL for (int i = 0; i < MR; i++) x[i] = load_a_part(a[i] + k, len - k);                                 \
            UNROLL for (int j = 0; j < NR; j++) {                                                                      \
                Loaded y = load_part(b[j] + k, len - k);                                                               \
                UNROLL for (int i = 0; i < MR; i++) acc[i * NR + j] = step(acc[i * NR + j], x[i], y);                  \
            }                                                                                                          \
        }                                                                                                              \
    }
DEFINE_LANES(lanes_f32, float, float, vf, LANES, load_f32, load_f32_part, load_f32, load_f32_part, step_f32)
DEFINE_LANES(lanes_bf16, RowElem, uint16_t, BfVec, WIDTH_BF16, load_row, load_row_part, load_bf16, load_bf16_part,
             step_bf16)

ALWAYS_INLINE void lanes(vf *acc, DType t, int MR, int NR, const void *const *a, const void *const *b, int64_t len,
                         const int NF, const void *const *next, int64_t size, int half, const void *near) {
    if (t == F32)
        lanes_f32(acc, MR, NR, (const float *const *)a, (const float *const *)b, len, NF, next, size, half, near);
    else
        lanes_bf16(acc, MR, NR, (const RowElem *const *)a, (const uint16_t *const *)b, len, NF, next, size, half, near);
}

// Rows of a as `lanes` reads them: m rows of len elements, widened in `to`, rows of `stride` floats, where the
// instruction set has none for pairs of bf16, and else as they are. Of each step of a vector the even elements come
// first: in this order multiply-adds of f32 make the sums of lanes_bf16.
#define WIDE_STRIDE (DOT_CHUNK / 2 + 16) // floats of a chunk; rows do not begin in one set of the first-level cache
#if WIDEN
static inline Rows wide_rows(float *to, int64_t stride, DType t, Rows a, int64_t m, int64_t len) {
    if (t == F32) return a;
    for (int64_t i = 0; i < m; i++) {
        const uint16_t *row = rows_at(a, i).data;
        for (int64_t k = 0; k < len; k += WIDTH_BF16) {
            BfVec x = load_bf16_most(row + k, len - k);
            memcpy(to + i * stride + k, &x, sizeof x);
        }
    }
    return (Rows){to, F32, stride, false, NULL, 0};
}
#else
static inline Rows wide_rows(float *to, int64_t stride, DType t, Rows a, int64_t m, int64_t len) { return a; }
#endif
// Floats that the copy of so many rows takes.
#define WIDE_FLOATS(rows) (WIDEN ? (rows)*WIDE_STRIDE : 1)
// Rows of b are widened too where they are no longer than this: of longer ones there would be no room for a tile's in
// the first-level cache.
#define WIDE_LEN   (DOT_CHUNK / 4)
#define WIDE_WIDTH (WIDE_LEN + 16) // floats from one such row to the next

// --- Sixteen sums over lanes at once ---

// A fold adds the upper to the lower half of the lanes that are left of a, and of b, and puts both results in one
// vector.
#define PICK(...) __builtin_shufflevector(a, b, __VA_ARGS__)
#if LANES == 16
static inline vf fold8(vf a, vf b) {
    return PICK(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           PICK(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
static inline vf fold4(vf a, vf b) {
    return PICK(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           PICK(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
static inline vf fold2(vf a, vf b) {
    return PICK(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
           PICK(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
static inline vf fold1(vf a, vf b) {
    return PICK(0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +
           PICK(1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
}
// The folds of v[0], v[4], ... until four lanes are left of each.
ALWAYS_INLINE vf quarter(const vf *v) { return fold4(fold8(v[0], v[4]), fold8(v[8], v[12])); }
#elif LANES == 8
static inline vf fold4(vf a, vf b) { return PICK(0, 1, 2, 3, 8, 9, 10, 11) + PICK(4, 5, 6, 7, 12, 13, 14, 15); }
static inline vf fold2(vf a, vf b) { return PICK(0, 1, 8, 9, 4, 5, 12, 13) + PICK(2, 3, 10, 11, 6, 7, 14, 15); }
static inline vf fold1(vf a, vf b) { return PICK(0, 2, 8, 10, 4, 6, 12, 14) + PICK(1, 3, 9, 11, 5, 7, 13, 15); }
ALWAYS_INLINE vf quarter(const vf *v) { return fold4(v[0], v[4]); }
#else
static inline vf fold2(vf a, vf b) { return PICK(0, 1, 4, 5) + PICK(2, 3, 6, 7); }
static inline vf fold1(vf a, vf b) { return PICK(0, 2, 4, 6) + PICK(1, 3, 5, 7); }
ALWAYS_INLINE vf quarter(const vf *v) { return v[0]; }
#endif
// out[j] = the sum of v[j]'s lanes for n vectors, a multiple of LANES, by a tree (halves, quarters, ...).
ALWAYS_INLINE void sum_lanes(float *out, const vf *v, const int n) {
    UNROLL for (int j = 0; j < n; j += LANES, v += LANES) {
        vf sum = fold1(fold2(quarter(v), quarter(v + 1)), fold2(quarter(v + 2), quarter(v + 3)));
        vf_store(out + j, sum);
    }
}
