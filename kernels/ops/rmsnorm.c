// RMSNorm (Zhang & Sennrich 2019) after a residual addition:
//
//   sum = x + delta        y = sum * rstd * w        rstd = 1 / sqrt(mean(sum^2) + eps)
//
// and backward, with g = dy * w:
//   dx = dres + rstd * (g - sum * rstd^2 * mean(g * sum)),   dw += sum_t dy * sum * rstd
#include "norm.h"
#include "parallel.h"

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

void cpu_rmsnorm_bwd(Device *d, Tensor dx, Tensor dw, Tensor dres, Tensor dy, Tensor sum, Tensor rstd, Tensor w) {
    int64_t T = dy.dim[0], D = tensor_width(dy), rows = sum_block_rows(T), blocks = (T + rows - 1) / rows;
    size_t bytes = (size_t)D * dtype_size(dy.dtype), mark = arena_mark(&d->scratch);
    float *partial = arena_take(&d->scratch, (size_t)(blocks * D) * sizeof *partial); // [blocks, D] of dw
#pragma omp parallel for schedule(static) if (T * D >= PARALLEL_MIN)
    for (int64_t b = 0; b < blocks; b++) {
        float *acc = partial + b * D;
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
    if (present(dw)) add_column_sums(dw, partial, blocks, D);
    arena_rewind(&d->scratch, mark);
}
