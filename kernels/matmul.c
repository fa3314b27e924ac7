// y[M,N] = x[M,K] w[N,K]^T, and its backward.
//
// Both operands of the forward product are K-contiguous, so nothing is packed: a tile of 16 outputs keeps 16 vector
// accumulators over K, and one 16 x 16 transposing tree turns them into 16 numbers. A row more or less in the tile
// changes nothing for the others, which is the numerics contract for free. The backward products read one operand
// along the other axis; it is transposed into scratch first, block by block, and then they are the same product.
#include "matmul.h"
#include "error.h"
#include "simd.h"

#define TILE_ROWS 4   // of a
#define TILE      16  // outputs: TILE_ROWS x 4, or 2 x 8, or 1 x 16
#define BLOCK_M   128 // a task is BLOCK_M x BLOCK_N outputs: a chunk of its b rows stays in the second-level cache
#define BLOCK_N   96
#define SMALL     ((int64_t)1 << 17) // multiply-adds below which waking the other threads costs more than it gives

// acc += the products of one vector's worth of elements (16 f32, or 32 bf16).
#if defined(__AVX512BF16__)
#define STEP_BF16 32
typedef __m512bh Bf16Vec;
static inline Bf16Vec load_bf16(const uint16_t *p) { return (Bf16Vec)_mm512_loadu_si512(p); }
static inline Bf16Vec load_bf16_part(const uint16_t *p, int n) {
    return (Bf16Vec)_mm512_maskz_loadu_epi16((__mmask32)((1ull << n) - 1), p);
}
static inline vf step_bf16(vf acc, Bf16Vec a, Bf16Vec b) { return (vf)_mm512_dpbf16_ps((__m512)acc, a, b); }
#else
#define STEP_BF16 16
typedef vf Bf16Vec;
static inline Bf16Vec load_bf16(const uint16_t *p) { return vf_load_bf16(p); }
static inline Bf16Vec load_bf16_part(const uint16_t *p, int n) {
    uint16_t h[LANES] = {0};
    memcpy(h, p, (size_t)n * 2);
    return vf_load_bf16(h);
}
static inline vf step_bf16(vf acc, Bf16Vec a, Bf16Vec b) { return vf_fma(a, b, acc); }
#endif
#define STEP_F32 LANES

// Lane j of the result is the sum of v[j]'s lanes, by the tree of vf_sum: halves, quarters, ...
static inline vf sum_lanes(const vf v[TILE]) {
    float out[TILE];
    for (int j = 0; j < TILE; j++) out[j] = vf_sum(v[j]);
    return vf_load(out);
}

// One chunk of K for MR rows of a and NR rows of b; acc[MR][NR].
#define DEFINE_TILE(name, Elem, Vec, STEP, load, load_part, step)                                                      \
    static inline __attribute__((always_inline)) void name(vf *acc, int MR, int NR, const Elem *const *a,              \
                                                           const Elem *const *b, int64_t K) {                          \
        int64_t k = 0;                                                                                                 \
        for (; k + STEP <= K; k += STEP) {                                                                             \
            Vec x[TILE_ROWS];                                                                                          \
            _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++) x[i] = load(a[i] + k);                               \
            _Pragma("GCC unroll 16") for (int j = 0; j < NR; j++) {                                                    \
                Vec w = load(b[j] + k);                                                                                \
                _Pragma("GCC unroll 16") for (int i = 0; i < MR; i++) acc[i * NR + j] =                                \
                    step(acc[i * NR + j], x[i], w);                                                                    \
            }                                                                                                          \
        }                                                                                                              \
        if (k < K)                                                                                                     \
            for (int j = 0; j < NR; j++)                                                                               \
                for (int i = 0; i < MR; i++)                                                                           \
                    acc[i * NR + j] =                                                                                  \
                        step(acc[i * NR + j], load_part(a[i] + k, (int)(K - k)), load_part(b[j] + k, (int)(K - k)));   \
    }

static inline vf load_f32_part(const float *p, int n) { return vf_load_part(p, n, 0); }
static inline vf step_f32(vf acc, vf a, vf b) { return vf_fma(a, b, acc); }

DEFINE_TILE(tile_f32, float, vf, STEP_F32, vf_load, load_f32_part, step_f32)
DEFINE_TILE(tile_bf16, uint16_t, Bf16Vec, STEP_BF16, load_bf16, load_bf16_part, step_bf16)

// MR rows of a against 16 / MR rows of b, four at a time. Rows past the end repeat the last one; they are not stored.
static inline __attribute__((always_inline)) void tile(float *c, int64_t stride, bool add, int MR, Rows a, int64_t m,
                                                       Rows b, int64_t n, int64_t K) {
    int NR = TILE / MR;
    vf acc[TILE] = {0};
    for (int g = 0; g < NR; g += 4) {
        const void *pa[TILE_ROWS], *pb[4];
        for (int i = 0; i < MR; i++) pa[i] = rows_at(a, i < m ? i : m - 1).data;
        for (int j = 0; j < 4; j++) pb[j] = rows_at(b, g + j < n ? g + j : n - 1).data;
        vf part[TILE] = {0};
        if (a.dtype == F32) tile_f32(part, MR, 4, (const float *const *)pa, (const float *const *)pb, K);
        else tile_bf16(part, MR, 4, (const uint16_t *const *)pa, (const uint16_t *const *)pb, K);
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < 4; j++) acc[i * NR + g + j] = part[i * 4 + j];
    }
    float out[TILE];
    vf_store(out, sum_lanes(acc));
    for (int i = 0; i < MR && i < m; i++)
        for (int j = 0; j < NR && j < n; j++) {
            float *y = c + i * stride + j;
            *y = add ? *y + out[i * NR + j] : out[i * NR + j];
        }
}

void dot_block(float *c, int64_t stride, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    int64_t chunk = DOT_CHUNK / (int64_t)dtype_size(a.dtype);
    for (int64_t i = 0; K == 0 && i < m; i++) memset(c + i * stride, 0, (size_t)n * sizeof(float));
    for (int64_t k = 0; k < K; k += chunk) {
        int64_t len = K - k < chunk ? K - k : chunk;
        size_t skip = (size_t)k * dtype_size(a.dtype);
        for (int64_t i = 0; i < m;) {
            int64_t left = m - i, MR = left >= 3 ? 4 : left;
            Rows ai = rows_at(a, i);
            ai.data = (const char *)ai.data + skip;
            for (int64_t j = 0; j < n; j += TILE / MR) {
                Rows bj = rows_at(b, j);
                bj.data = (const char *)bj.data + skip;
                float *y = c + i * stride + j;
                if (MR == 4) tile(y, stride, k > 0, 4, ai, left, bj, n - j, len);
                else if (MR == 2) tile(y, stride, k > 0, 2, ai, left, bj, n - j, len);
                else tile(y, stride, k > 0, 1, ai, left, bj, n - j, len);
            }
            i += MR;
        }
    }
}

// c[m,n] = or += block[m,BLOCK_N]
static void store_block(Rows c, bool add, const float *block, int64_t m, int64_t n) {
    for (int64_t i = 0; i < m; i++) {
        void *row = (void *)rows_at(c, i).data;
        const float *b = block + i * BLOCK_N;
        for (int64_t j = 0; j < n; j++) elem_store(row, c.dtype, j, add ? elem_load(row, c.dtype, j) + b[j] : b[j]);
    }
}

void dot_all(Rows c, bool add, Rows a, int64_t m, Rows b, int64_t n, int64_t K) {
    if (a.dtype != b.dtype) die("product of %s and %s", dtype_name(a.dtype), dtype_name(b.dtype));
#pragma omp parallel for collapse(2) schedule(dynamic) if (m * n * K > SMALL)
    for (int64_t j = 0; j < n; j += BLOCK_N)
        for (int64_t i = 0; i < m; i += BLOCK_M) {
            int64_t bm = m - i < BLOCK_M ? m - i : BLOCK_M, bn = n - j < BLOCK_N ? n - j : BLOCK_N;
            float block[BLOCK_M * BLOCK_N];
            dot_block(block, BLOCK_N, rows_at(a, i), bm, rows_at(b, j), bn, K);
            Rows corner = rows_at(c, i);
            corner.data = (const char *)corner.data + (size_t)j * dtype_size(c.dtype);
            store_block(corner, add, block, bm, bn);
        }
}

void transpose_all(Rows dst, Rows src, int64_t rows, int64_t cols) {
    size_t size = dtype_size(src.dtype);
#pragma omp parallel for collapse(2) if (rows * cols > SMALL)
    for (int64_t j0 = 0; j0 < cols; j0 += 32)
        for (int64_t i0 = 0; i0 < rows; i0 += 32)
            for (int64_t j = j0; j < j0 + 32 && j < cols; j++)
                for (int64_t i = i0; i < i0 + 32 && i < rows; i++)
                    memcpy((char *)rows_at(dst, j).data + (size_t)i * size,
                           (const char *)rows_at(src, i).data + (size_t)j * size, size);
}

void cpu_matmul(Device *d, Tensor y, Tensor x, Tensor w) {
    dot_all(rows_of(y), false, rows_of(x), x.dim[0], rows_of(w), w.dim[0], tensor_width(x));
}

static Rows take_rows(Arena *a, DType t, int64_t n, int64_t width) {
    return (Rows){arena_take(a, (size_t)(n * width) * dtype_size(t)), t, width};
}
// Columns [j, ...) of a matrix.
static Rows cols_at(Rows r, int64_t j) {
    r.data = (const char *)r.data + (size_t)j * dtype_size(r.dtype);
    return r;
}
// The largest count of rows of `bytes` each that fits in `budget`: at least 1, at most n.
static int64_t rows_that_fit(size_t budget, size_t bytes, int64_t n) {
    int64_t fit = (int64_t)(budget / (bytes ? bytes : 1));
    return fit < 1 ? 1 : fit < n ? fit : n;
}

// dx[M,K] = dy[M,N] (w[N,K]^T)^T, a block of w's columns at a time.
static void grad_x(Device *d, Tensor dx, Tensor dy, Tensor w) {
    int64_t M = dy.dim[0], N = w.dim[0], K = tensor_width(w);
    int64_t block = rows_that_fit(DEVICE_SCRATCH / 2, (size_t)N * dtype_size(w.dtype), K);
    for (int64_t k = 0; k < K; k += block) {
        int64_t len = K - k < block ? K - k : block;
        size_t mark = arena_mark(&d->scratch);
        Rows wt = take_rows(&d->scratch, w.dtype, len, N);
        transpose_all(wt, cols_at(rows_of(w), k), N, len);
        dot_all(cols_at(rows_of(dx), k), false, rows_of(dy), M, wt, len, N);
        arena_rewind(&d->scratch, mark);
    }
}

// dw[N,K] += dy[M,N]^T x[M,K], a block of dw's rows and of tokens at a time; a dw of bf16 is rounded once.
static void grad_w(Device *d, Tensor dw, Tensor dy, Tensor x) {
    int64_t M = dy.dim[0], N = tensor_width(dy), K = tensor_width(x);
    size_t size = dtype_size(x.dtype), quarter = DEVICE_SCRATCH / 4;
    int64_t tokens = rows_that_fit(quarter, (size_t)K * size, M);
    int64_t block = rows_that_fit(quarter, (size_t)tokens * size, N);
    bool sum_apart = dw.dtype != F32 && tokens < M;
    if (sum_apart) block = rows_that_fit(quarter, (size_t)K * sizeof(float), block);
    for (int64_t n = 0; n < N; n += block) {
        int64_t bn = N - n < block ? N - n : block;
        size_t mark = arena_mark(&d->scratch);
        Rows to = rows_at(rows_of(dw), n);
        Rows sum = sum_apart ? take_rows(&d->scratch, F32, bn, K) : to;
        for (int64_t t = 0; t < M; t += tokens) {
            int64_t bt = M - t < tokens ? M - t : tokens;
            size_t inner = arena_mark(&d->scratch);
            Rows xt = take_rows(&d->scratch, x.dtype, K, bt), dyt = take_rows(&d->scratch, dy.dtype, bn, bt);
            transpose_all(xt, rows_at(rows_of(x), t), bt, K);
            transpose_all(dyt, cols_at(rows_at(rows_of(dy), t), n), bt, bn);
            dot_all(sum, t > 0 || !sum_apart, dyt, bn, xt, K, bt);
            arena_rewind(&d->scratch, inner);
        }
        for (int64_t i = 0; sum_apart && i < bn; i++) {
            const float *s = rows_at(sum, i).data;
            uint16_t *g = (uint16_t *)rows_at(to, i).data;
            for (int64_t k = 0; k < K; k++) g[k] = f32_to_bf16(bf16_to_f32(g[k]) + s[k]);
        }
        arena_rewind(&d->scratch, mark);
    }
}

void cpu_matmul_bwd(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w) {
    if (present(dx)) grad_x(d, dx, dy, w);
    if (present(dw)) grad_w(d, dw, dy, x);
}
