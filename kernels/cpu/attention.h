// The inner loops of attention, shared by the ops attention (packed sequences) and decode (one query over the cache),
// so that both give a token the same bits.
//
// A query row goes through its keys in chunks of 64 counted from position 0, with an online softmax (Milakov &
// Gimelshein 2018; Dao et al. 2022) combined in ascending order. Within a chunk every score is one chain of
// multiply-adds over the head size, and every output element one chain over the keys, both in ascending order. So a
// row's bits do not depend on how many rows are computed beside it, and a key that a row may not see is never read.
#pragma once
#include "simd.h"

#define CHUNK 64 // keys
// Query rows whose accumulators, two vectors each, fit the registers; of half as many rows they are four.
#if defined(ISA_avx512)
#define BLOCK_ROWS 8
#else
#define BLOCK_ROWS 6
#endif
#define VECTORS_OF(rows) ((rows) > BLOCK_ROWS / 2 ? 2 : 4)

// The floats that a row of d floats takes up: whole vectors, the rest zero.
static inline int64_t padded(int64_t d) { return (d + LANES - 1) / LANES * LANES; }

#define CASE(n, ...)                                                                                                   \
    case n: __VA_ARGS__; break;
// Runs a statement with `rows` as a constant from 1 to BLOCK_ROWS.
#define FOR_CONST_ROWS(rows, F)                                                                                        \
    switch (rows) {                                                                                                    \
        CASE(1, F(1))                                                                                                  \
        CASE(2, F(2)) CASE(3, F(3)) CASE(4, F(4)) CASE(5, F(5)) MORE_ROWS(F) default : F(BLOCK_ROWS);                  \
    }
#if BLOCK_ROWS == 8
#define MORE_ROWS(F) CASE(6, F(6)) CASE(7, F(7))
#else
#define MORE_ROWS(F)
#endif

// s[rows, CHUNK] = a[rows, lda] bt[d, CHUNK], for `w` vectors of columns from j on.
ALWAYS_INLINE void scores_columns(float *s, const float *a, int64_t lda, const float *bt, int64_t d, int64_t j,
                                  const int rows, const int w) {
    vf acc[BLOCK_ROWS][4] = {0};
    for (int64_t i = 0; i < d; i++) {
        vf b[4];
        for (int v = 0; v < w; v++) b[v] = vf_load(bt + i * CHUNK + j + v * LANES);
        for (int r = 0; r < rows; r++) {
            vf x = vf_set(a[r * lda + i]);
            for (int v = 0; v < w; v++) acc[r][v] = vf_fma(x, b[v], acc[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < w; v++) vf_store(s + r * CHUNK + j + v * LANES, acc[r][v]);
}
// The same for the first `keys` columns, rounded up to whole vectors.
ALWAYS_INLINE void scores_const(float *s, const float *a, int64_t lda, const float *bt, int64_t d, int64_t keys,
                                const int rows) {
    const int w = VECTORS_OF(rows);
    int64_t j = 0;
    for (; j + (w - 1) * LANES < keys; j += w * LANES) scores_columns(s, a, lda, bt, d, j, rows, w);
    for (; j < keys; j += LANES) scores_columns(s, a, lda, bt, d, j, rows, 1);
}

// c[rows, ldc] += sum over k < n of a[r * ar + k * ak] b[k, ldb], for `w` vectors of columns.
ALWAYS_INLINE void products_const(float *c, int64_t ldc, const float *a, int64_t ar, int64_t ak, const float *b,
                                  int64_t ldb, int64_t n, const int rows, const int w) {
    vf acc[BLOCK_ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < w; v++) acc[r][v] = vf_load(c + r * ldc + v * LANES);
    for (int64_t k = 0; k < n; k++) {
        vf y[4];
        for (int v = 0; v < w; v++) y[v] = vf_load(b + k * ldb + v * LANES);
        for (int r = 0; r < rows; r++) {
            vf x = vf_set(a[r * ar + k * ak]);
            for (int v = 0; v < w; v++) acc[r][v] = vf_fma(x, y[v], acc[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < w; v++) vf_store(c + r * ldc + v * LANES, acc[r][v]);
}
ALWAYS_INLINE void products_columns(float *c, int64_t ldc, const float *a, int64_t ar, int64_t ak, const float *b,
                                    int64_t n, const int rows) {
    const int w = VECTORS_OF(rows);
    int64_t i = 0;
    for (; i + w * LANES <= ldc; i += w * LANES) products_const(c + i, ldc, a, ar, ak, b + i, ldc, n, rows, w);
    for (; w > 2 && i + 2 * LANES <= ldc; i += 2 * LANES) products_const(c + i, ldc, a, ar, ak, b + i, ldc, n, rows, 2);
    for (; i < ldc; i += LANES) products_const(c + i, ldc, a, ar, ak, b + i, ldc, n, rows, 1);
}

// scores_const for a row count known only at run time, at most BLOCK_ROWS.
static inline void scores(float *s, const float *a, int64_t lda, const float *bt, int64_t d, int64_t keys, int rows) {
#define SCORES(n) scores_const(s, a, lda, bt, d, keys, n)
    FOR_CONST_ROWS(rows, SCORES);
#undef SCORES
}

// c[rows, ld] += sum over k < n of a[r * ar + k * ak] b[k, ld]
static inline void products(float *c, int64_t ld, const float *a, int64_t ar, int64_t ak, const float *b, int64_t n,
                            int rows) {
#define PRODUCTS(m) products_columns(c, ld, a, ar, ak, b, n, m)
    FOR_CONST_ROWS(rows, PRODUCTS);
#undef PRODUCTS
}

// x[r] = LANES elements at i of row[r], for the first n <= LANES rows; the others are 0.
ALWAYS_INLINE void load_square(vf x[LANES], const void *const *row, int64_t n, DType t, int64_t i, int64_t left) {
    for (int64_t r = 0; r < LANES; r++) x[r] = r < n ? row_load_part(row[r], t, i, left) : vf_set(0);
}

// bt[d, CHUNK] = the transpose of n <= CHUNK rows of d elements, converted to f32; columns past n are 0.
ALWAYS_INLINE void pack_transposed_as(float *bt, const void *const *row, int64_t n, DType t, int64_t d) {
    for (int64_t j = 0; j < n; j += LANES)
        FOR_LANES(i, left, d, {
            vf x[LANES];
            if (n - j >= LANES) load_square(x, row + j, LANES, t, i, left);
            else load_square(x, row + j, n - j, t, i, left);
            vf_transpose(x);
            for (int64_t c = 0; c < LANES; c++)
                if (c < left) vf_store(bt + (i + c) * CHUNK + j, x[c]);
        });
}
// pack_transposed_as for bf16 and d a multiple of 32: pairs of bf16 are transposed as if they were f32, which halves
// the work.
ALWAYS_INLINE void pack_transposed_pairs(float *bt, const void *const *row, int64_t n, int64_t d) {
    for (int64_t j = 0; j < n; j += LANES)
        for (int64_t i = 0; i < d; i += 2 * LANES) {
            vf x[LANES];
            if (n - j >= LANES) load_square(x, row + j, LANES, F32, i / 2, LANES);
            else load_square(x, row + j, n - j, F32, i / 2, LANES);
            vf_transpose(x);
            for (int64_t c = 0; c < LANES; c++) {
                vf_store(bt + (i + 2 * c) * CHUNK + j, (vf)((vu)x[c] << 16));
                vf_store(bt + (i + 2 * c + 1) * CHUNK + j, (vf)((vu)x[c] & 0xffff0000));
            }
        }
}
static inline void pack_transposed(float *bt, const void *const *row, int64_t n, DType t, int64_t d) {
    if (n <= CHUNK - LANES) memset(bt, 0, (size_t)(d * CHUNK) * sizeof *bt);
    if (t == F32) pack_transposed_as(bt, row, n, F32, d);
    else if (d % (2 * LANES) == 0) pack_transposed_pairs(bt, row, n, d);
    else pack_transposed_as(bt, row, n, BF16, d);
}
// b[n, padded(d)] = n rows of d elements, converted to f32.
static inline void pack_rows(float *b, const void *const *row, int64_t n, DType t, int64_t d) {
    for (int64_t j = 0; j < n; j++, b += padded(d)) {
        if (t == F32) FOR_LANES(i, left, d, vf_store(b + i, row_load_part(row[j], F32, i, left)););
        else FOR_LANES(i, left, d, vf_store(b + i, row_load_part(row[j], BF16, i, left)););
    }
}

// The running state of query rows on their way through the keys. One row is one (token, head).
typedef struct {
    float *q; // [rows, dp] scaled by 1/sqrt(d)
    float *o; // [rows, dp] the output so far, not yet divided by l
    float *m; // [rows] largest score so far
    float *l; // [rows] sum of e^(score - m)
} Queries;

static inline size_t queries_floats(int64_t rows, int64_t dp) { return (size_t)(rows * (2 * dp + 2)); }
static inline Queries queries_at(float *p, int64_t rows, int64_t dp) {
    return (Queries){p, p + rows * dp, p + 2 * rows * dp, p + 2 * rows * dp + rows};
}

// Turns one row's scores s[CHUNK] into e^(s - m), 0 for keys from n on, and updates m and l. Returns the factor by
// which the row's output so far has to be scaled.
static inline float softmax_step(float *s, int64_t n, float *m, float *l) {
    const vi lane = vi_lanes();
    vf x[CHUNK / LANES], top = vf_set(*m), p[CHUNK / LANES] = {0};
    for (int64_t v = 0; v * LANES < n; v++) {
        vi seen = lane < (int32_t)(n - v * LANES);
        x[v] = (vf)(((vi)vf_load(s + v * LANES) & seen) | ((vi)vf_set(-INFINITY) & ~seen));
        top = vf_max(top, x[v]);
    }
    float max = vf_max_lane(top), past = vf_exp(vf_set(*m - max))[0];
    for (int64_t v = 0; v * LANES < n; v++) {
        p[v] = vf_exp(x[v] - max);
        vf_store(s + v * LANES, p[v]);
    }
    for (int left = CHUNK / LANES / 2; left > 0; left /= 2)
        for (int v = 0; v < left; v++) p[v] = p[2 * v] + p[2 * v + 1];
    *l = *l * past + vf_sum(p[0]);
    *m = max;
    return past;
}

// Takes `rows` <= BLOCK_ROWS queries, from row `first` on, through one chunk of keys kt[d, CHUNK] and values v[CHUNK,
// dp]. Row r may see the first n[r] keys of it, at least one; n ascends.
static inline void attend(Queries q, int64_t first, int rows, const int64_t *n, const float *kt, const float *v,
                          int64_t d) {
    int64_t dp = padded(d);
    float s[BLOCK_ROWS * CHUNK] __attribute__((aligned(64)));
    float *o = q.o + first * dp;
    scores(s, q.q + first * dp, dp, kt, d, n[rows - 1], rows);
    for (int r = 0; r < rows; r++) {
        float past = softmax_step(s + r * CHUNK, n[r], q.m + first + r, q.l + first + r);
        for (int64_t i = 0; i < dp; i += LANES) vf_store(o + r * dp + i, vf_load(o + r * dp + i) * past);
    }
    products(o, dp, s, CHUNK, 1, v, n[0], rows);
    for (int r = 1; r < rows; r++)
        if (n[r] > n[0]) products(o + r * dp, dp, s + r * CHUNK + n[0], CHUNK, 1, v + n[0] * dp, n[r] - n[0], 1);
}

// Starts a query row: q = x[d] * scale, no key seen yet.
static inline void query_start(Queries q, int64_t r, const void *x, DType t, int64_t d, float scale) {
    int64_t dp = padded(d);
    for (int64_t i = 0; i < dp; i += LANES) {
        vf_store(q.q + r * dp + i, row_load_part(x, t, i, d - i) * scale);
        vf_store(q.o + r * dp + i, vf_set(0));
    }
    q.m[r] = -INFINITY;
    q.l[r] = 0;
}
// Writes a query row's result, y[d] = o / l.
static inline void query_finish(Queries q, int64_t r, void *y, DType t, int64_t d) {
    vf inv = vf_set(1.0f / q.l[r]);
    for (int64_t i = 0; i < d; i += LANES) row_store_part(y, t, i, d - i, vf_load(q.o + r * padded(d) + i) * inv);
}
