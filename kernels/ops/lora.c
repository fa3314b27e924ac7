// Low-rank adapters (Hu et al. 2021) beside a product that is not trained: y = W x + scale B (A x), f32 but for x and
// y.
//
//   lora_down   z[T,R] = scale x w^T            z = A x; and dz = scale B^T dy, of every projection with its own B
//   lora_up     y = base + scale z w            y = W x + scale B z, rounded once; and dx += A^T dz
//   lora_grad   dw += scale z^T x               dA, dB
//
// w is A [r,K], or B turned: [r,N]; so each of the three reads rows. A sum over the columns runs in the lanes of one
// vector, then over the lanes; one over r is a chain; one over tokens is a chain in chunks of 128, which are added in
// order. So what a row gets depends on that row alone, whatever is computed beside it.
#include "parallel.h"
#include "simd.h"

enum { DOWN_TOKENS = 4, DOWN_ROWS = 4, UP_TOKENS = 8, UP_COLUMNS = 512, GRAD_ROWS = 8, CHUNK = 128 };

// A projection's place: its first column, its first column of z, its first element of w.
typedef struct {
    int64_t column, low, element;
} ProjectionAt;
static ProjectionAt projection_next(ProjectionAt at, const LowRank *p, int k) {
    at.column += p->width[k];
    if (p->low[k]) at.low += p->rank, at.element += p->rank * p->width[k];
    return at;
}

// z[m,n] of m tokens and n rows of w; strides of x's and z's rows.
ALWAYS_INLINE void down_tile(float *z, int64_t z_row, const void *x, int64_t x_at, int64_t x_row, DType t,
                             const float *w, int64_t K, float scale, int m, int n) {
    vf sum[DOWN_TOKENS][DOWN_ROWS] = {0};
    FOR_LANES(k, lanes, K, {
        vf v[DOWN_ROWS];
        for (int j = 0; j < n; j++) v[j] = row_load_part(w, F32, j * K + k, lanes);
        for (int i = 0; i < m; i++) {
            vf token = row_load_part(x, t, x_at + i * x_row + k, lanes);
            for (int j = 0; j < n; j++) sum[i][j] = vf_fma(token, v[j], sum[i][j]);
        }
    });
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) z[i * z_row + j] = scale * vf_sum(sum[i][j]);
}
// Computes a tile of m tokens and n rows of w, which may be fewer than a whole one has.
ALWAYS_INLINE void down_some(float *z, int64_t z_row, const void *x, int64_t x_at, int64_t x_row, DType t,
                             const float *w, int64_t K, float scale, int m, int n) {
    if (m == DOWN_TOKENS && n == DOWN_ROWS) down_tile(z, z_row, x, x_at, x_row, t, w, K, scale, DOWN_TOKENS, DOWN_ROWS);
    else if (n == DOWN_ROWS)
        for (int i = 0; i < m; i++)
            down_tile(z + i * z_row, z_row, x, x_at + i * x_row, x_row, t, w, K, scale, 1, DOWN_ROWS);
    else
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                down_tile(z + i * z_row + j, z_row, x, x_at + i * x_row, x_row, t, w + j * K, K, scale, 1, 1);
}
// Tiles of tokens and rows are divided among the threads, so that all of them read of w where one token is decoded.
ALWAYS_INLINE void down_projection(Tensor z, Tensor x, DType t, const float *w, ProjectionAt at, int64_t K,
                                   const LowRank *p) {
    int64_t T = x.dim[0], x_row = tensor_width(x), z_row = tensor_width(z);
    int64_t across = (p->rank + DOWN_ROWS - 1) / DOWN_ROWS, tiles = (T + DOWN_TOKENS - 1) / DOWN_TOKENS * across;
#pragma omp parallel for schedule(static) if (T * K * p->rank >= PARALLEL_MIN)
    for (int64_t tile = 0; tile < tiles; tile++) {
        int64_t i = tile / across * DOWN_TOKENS, j = tile % across * DOWN_ROWS;
        int m = T - i < DOWN_TOKENS ? (int)(T - i) : DOWN_TOKENS,
            n = p->rank - j < DOWN_ROWS ? (int)(p->rank - j) : DOWN_ROWS;
        down_some(f32(z) + i * z_row + at.low + j, z_row, x.data, i * x_row + at.column, x_row, t, w + j * K, K,
                  p->scale, m, n);
    }
}

void cpu_lora_down(Device *d, Tensor z, Tensor x, Tensor w, LowRank p) {
    ProjectionAt at = {0};
    for (int k = 0; k < p.n; at = projection_next(at, &p, k++)) {
        if (!p.low[k]) continue;
        if (x.dtype == F32) down_projection(z, x, F32, f32(w) + at.element, at, p.width[k], &p);
        else down_projection(z, x, BF16, f32(w) + at.element, at, p.width[k], &p);
    }
}

// y[m,n] = base + scale z[m,r] w[r,n], of w's rows N long; `at` is the first token's first element of y and base.
ALWAYS_INLINE void up_tile(void *y, DType t, const void *base, DType tb, int64_t at, int64_t row, const float *z,
                           int64_t z_row, const float *w, int64_t N, int64_t n, int r, float scale, int m) {
    FOR_LANES(i, lanes, n, {
        vf sum[UP_TOKENS] = {0};
        for (int j = 0; j < r; j++) {
            vf v = row_load_part(w, F32, j * N + i, lanes);
            for (int k = 0; k < m; k++) sum[k] = vf_fma(vf_set(z[k * z_row + j]), v, sum[k]);
        }
        for (int k = 0; k < m; k++)
            row_store_part(y, t, at + k * row + i, lanes,
                           vf_fma(sum[k], vf_set(scale), row_load_part(base, tb, at + k * row + i, lanes)));
    });
}
ALWAYS_INLINE void up_projection(Tensor y, DType t, Tensor base, DType tb, Tensor z, const float *w, ProjectionAt at,
                                 int64_t N, int r, float scale) {
    int64_t T = y.dim[0], row = tensor_width(y), z_row = tensor_width(z);
    int64_t across = (N + UP_COLUMNS - 1) / UP_COLUMNS, tiles = (T + UP_TOKENS - 1) / UP_TOKENS * across;
#pragma omp parallel for schedule(static) if (T * N * (r + 1) >= PARALLEL_MIN)
    for (int64_t tile = 0; tile < tiles; tile++) {
        int64_t i = tile / across * UP_TOKENS, c = tile % across * UP_COLUMNS,
                n = N - c < UP_COLUMNS ? N - c : UP_COLUMNS;
        const float *low = f32(z) + i * z_row + at.low;
        if (i + UP_TOKENS <= T)
            up_tile(y.data, t, base.data, tb, i * row + at.column + c, row, low, z_row, w + c, N, n, r, scale,
                    UP_TOKENS);
        else
            for (int64_t k = i; k < T; k++)
                up_tile(y.data, t, base.data, tb, k * row + at.column + c, row, low + (k - i) * z_row, z_row, w + c, N,
                        n, r, scale, 1);
    }
}

void cpu_lora_up(Device *d, Tensor y, Tensor base, Tensor z, Tensor w, LowRank p) {
    ProjectionAt at = {0};
    for (int k = 0; k < p.n; at = projection_next(at, &p, k++)) {
        int r = p.low[k] ? p.rank : 0; // 0: base, rounded
        const float *rows = f32(w) + at.element;
        if (y.dtype == F32) up_projection(y, F32, base, F32, z, rows, at, p.width[k], r, p.scale);
        else if (base.dtype == F32) up_projection(y, BF16, base, F32, z, rows, at, p.width[k], r, p.scale);
        else up_projection(y, BF16, base, BF16, z, rows, at, p.width[k], r, p.scale);
    }
}

// n rows of dw at one vector of columns: what T tokens add.
ALWAYS_INLINE void grad_tile(float *dw, int64_t N, const float *z, int64_t z_row, const void *x, DType t, int64_t x_at,
                             int64_t x_row, int64_t T, float scale, int n, int64_t lanes) {
    for (int64_t first = 0; first < T; first += CHUNK) {
        vf sum[GRAD_ROWS] = {0};
        for (int64_t i = first; i < T && i < first + CHUNK; i++) {
            vf v = row_load_part(x, t, x_at + i * x_row, lanes);
            for (int j = 0; j < n; j++) sum[j] = vf_fma(vf_set(z[i * z_row + j]), v, sum[j]);
        }
        for (int j = 0; j < n; j++)
            row_store_part(dw, F32, j * N, lanes, vf_fma(sum[j], vf_set(scale), row_load_part(dw, F32, j * N, lanes)));
    }
}
ALWAYS_INLINE void grad_columns(float *dw, int64_t N, const float *z, int64_t z_row, const void *x, DType t,
                                int64_t x_at, int64_t x_row, int64_t T, int r, float scale, int64_t lanes) {
    int j = 0;
    for (; j + GRAD_ROWS <= r; j += GRAD_ROWS)
        grad_tile(dw + j * N, N, z + j, z_row, x, t, x_at, x_row, T, scale, GRAD_ROWS, lanes);
    for (; j < r; j++) grad_tile(dw + j * N, N, z + j, z_row, x, t, x_at, x_row, T, scale, 1, lanes);
}
ALWAYS_INLINE void grad_projection(float *dw, Tensor z, Tensor x, DType t, ProjectionAt at, int64_t N,
                                   const LowRank *p) {
    int64_t T = x.dim[0], x_row = tensor_width(x), z_row = tensor_width(z);
    const float *low = f32(z) + at.low;
#pragma omp parallel for schedule(static) if (T * N * p->rank >= PARALLEL_MIN)
    for (int64_t i = 0; i < N; i += LANES) {
        if (i + LANES <= N)
            grad_columns(dw + i, N, low, z_row, x.data, t, at.column + i, x_row, T, p->rank, p->scale, LANES);
        else grad_columns(dw + i, N, low, z_row, x.data, t, at.column + i, x_row, T, p->rank, p->scale, N - i);
    }
}

void cpu_lora_grad(Device *d, Tensor dw, Tensor z, Tensor x, LowRank p) {
    ProjectionAt at = {0};
    for (int k = 0; k < p.n; at = projection_next(at, &p, k++)) {
        if (!p.low[k]) continue;
        if (x.dtype == F32) grad_projection(f32(dw) + at.element, z, x, F32, at, p.width[k], &p);
        else grad_projection(f32(dw) + at.element, z, x, BF16, at, p.width[k], &p);
    }
}
