// RMSNorm (Zhang & Sennrich 2019) after a residual addition:
//
//   sum = x + delta        y = sum * rstd * w        rstd = 1 / sqrt(mean(sum^2) + eps)
//
// and backward, with g = dy * w:   dx = dres + rstd * (g - sum * rstd^2 * mean(g * sum)),   dw += sum_t dy * sum * rstd.
#include "parallel.h"
#include "simd.h"

ALWAYS_INLINE float norm_row(void *y, void *sum, const void *x, const void *delta, DType t, const void *w, DType tw,
                             int64_t D, float eps) {
    vf ss = {0};
    FOR_LANES(i, n, D, {
        vf v = row_load_part(x, t, i, n);
        if (delta) {
            // Stored, then read back: the norm must see what the residual stream will hold.
            row_store_part(sum, t, i, n, v + row_load_part(delta, t, i, n));
            v = row_load_part(sum, t, i, n);
        }
        ss = vf_fma(v, v, ss);
    });
    float rstd = 1.0f / sqrtf(vf_sum(ss) / (float)D + eps);
    const void *in = delta ? sum : x;
    FOR_LANES(i, n, D,
              { row_store_part(y, t, i, n, row_load_part(in, t, i, n) * vf_set(rstd) * row_load_part(w, tw, i, n)); });
    return rstd;
}

void cpu_rmsnorm(Device *d, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor delta, Tensor w, float eps) {
    int64_t T = y.dim[0], D = tensor_width(y);
    size_t bytes = (size_t)D * dtype_size(y.dtype);
#pragma omp parallel for schedule(static) if (T * D >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        size_t at = (size_t)t * bytes;
        void *out = (char *)y.data + at, *s = present(delta) ? (char *)sum.data + at : NULL;
        const void *in = (char *)x.data + at, *add = present(delta) ? (char *)delta.data + at : NULL;
        if (y.dtype == F32) f32(rstd)[t] = norm_row(out, s, in, add, F32, w.data, w.dtype, D, eps);
        else f32(rstd)[t] = norm_row(out, s, in, add, BF16, w.data, w.dtype, D, eps);
    }
}

ALWAYS_INLINE void norm_row_bwd(void *dx, float *dw, const void *dres, const void *dy, const void *x, DType t,
                                float rstd, const void *w, DType tw, int64_t D) {
    vf dot = {0};
    FOR_LANES(i, n, D, {
        vf gx = row_load_part(dy, t, i, n) * row_load_part(x, t, i, n);
        dot = vf_fma(gx, row_load_part(w, tw, i, n), dot);
    });
    float c = vf_sum(dot) / (float)D * rstd * rstd;
    FOR_LANES(i, n, D, {
        vf g = row_load_part(dy, t, i, n), v = row_load_part(x, t, i, n);
        vf out = vf_set(rstd) * (g * row_load_part(w, tw, i, n) - v * vf_set(c));
        if (dres) out += row_load_part(dres, t, i, n);
        row_store_part(dw, F32, i, n, vf_fma(g, v * vf_set(rstd), row_load_part(dw, F32, i, n)));
        row_store_part(dx, t, i, n, out);
    });
}

void cpu_rmsnorm_bwd(Device *d, Tensor dx, Tensor dw, Tensor dres, Tensor dy, Tensor sum, Tensor rstd, Tensor w) {
    int64_t T = dy.dim[0], D = tensor_width(dy), rows = sum_block_rows(T), blocks = (T + rows - 1) / rows;
    size_t bytes = (size_t)D * dtype_size(dy.dtype), mark = arena_mark(&d->scratch);
    float *part = arena_take(&d->scratch, (size_t)(blocks * D) * sizeof *part); // [blocks, D] of dw
#pragma omp parallel for schedule(static) if (T * D >= PARALLEL_MIN)
    for (int64_t b = 0; b < blocks; b++) {
        float *acc = part + b * D;
        memset(acc, 0, (size_t)D * sizeof *acc);
        for (int64_t t = b * rows; t < T && t < (b + 1) * rows; t++) {
            size_t at = (size_t)t * bytes;
            void *out = (char *)dx.data + at;
            const void *res = present(dres) ? (char *)dres.data + at : NULL;
            const void *g = (char *)dy.data + at, *x = (char *)sum.data + at;
            if (dy.dtype == F32) norm_row_bwd(out, acc, res, g, x, F32, f32(rstd)[t], w.data, w.dtype, D);
            else norm_row_bwd(out, acc, res, g, x, BF16, f32(rstd)[t], w.data, w.dtype, D);
        }
    }
    add_column_sums(dw, part, blocks, D);
    arena_rewind(&d->scratch, mark);
}
