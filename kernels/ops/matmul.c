// y[M,N] = x[M,K] w[N,K]^T, and its backward.
//
// The forward product's operands are K-contiguous as they lie. The backward products contract along the other axis: the
// operands are transposed into scratch first, block by block, and then they are the same dot products.
#include "dot.h"
#include "simd.h"

void cpu_matmul(Device *d, Tensor y, Tensor x, Tensor w) {
    dot_all(rows_of(y), false, rows_of(x), x.dim[0], rows_of(w), w.dim[0], tensor_width(x));
}

// The largest count of rows of `bytes` each that fits in `budget`: at least 1, at most n.
static int64_t rows_that_fit(size_t budget, size_t bytes, int64_t n) {
    int64_t fit = (int64_t)(budget / (bytes ? bytes : 1));
    return fit < 1 ? 1 : fit < n ? fit : n;
}

// dx[M,K] = dy[M,N] (w[N,K]^T)^T, a block of w's columns at a time.
static void grad_x(Device *d, Tensor dx, Tensor dy, Tensor w) {
    int64_t M = dy.dim[0], N = w.dim[0], K = tensor_width(w);
    int64_t block = rows_that_fit(DEVICE_SCRATCH / 2, rows_bytes(w.dtype, 1, N), K);
    for (int64_t k = 0; k < K; k += block) {
        int64_t len = K - k < block ? K - k : block;
        size_t mark = arena_mark(&d->scratch);
        Rows wt = rows_take(&d->scratch, w.dtype, len, N);
        transpose_all(wt, cols_at(rows_of(w), k), N, len);
        dot_all(cols_at(rows_of(dx), k), false, rows_of(dy), M, wt, len, N);
        arena_rewind(&d->scratch, mark);
    }
}

// dw[N,K] += dy[M,N]^T x[M,K], a block of dw's rows and of tokens at a time; a dw of bf16 is rounded once.
static void grad_w(Device *d, Tensor dw, Tensor dy, Tensor x) {
    int64_t M = dy.dim[0], N = tensor_width(dy), K = tensor_width(x);
    size_t quarter = DEVICE_SCRATCH / 4;
    int64_t tokens = rows_that_fit(quarter / 2, rows_bytes(x.dtype, 1, K), M);
    int64_t block = rows_that_fit(quarter, rows_bytes(dy.dtype, 1, tokens), N);
    bool sum_apart = dw.dtype != F32 && tokens < M;
    if (sum_apart) block = rows_that_fit(quarter, rows_bytes(F32, 1, K), block);
    for (int64_t n = 0; n < N; n += block) {
        int64_t bn = N - n < block ? N - n : block;
        size_t mark = arena_mark(&d->scratch);
        Rows to = rows_at(rows_of(dw), n);
        Rows sum = sum_apart ? rows_take(&d->scratch, F32, bn, K) : to;
        for (int64_t t = 0; t < M; t += tokens) {
            int64_t bt = M - t < tokens ? M - t : tokens;
            size_t inner = arena_mark(&d->scratch);
            Rows xt = rows_take(&d->scratch, x.dtype, K, bt), dyt = rows_take(&d->scratch, dy.dtype, bn, bt);
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
