// RMSNorm (Zhang & Sennrich 2019) after a residual addition:
//
//   sum = x + delta        y = sum * rstd * w        rstd = 1 / sqrt(mean(sum^2) + eps)
//
// and backward, with g = dy * w:   dx = dres + rstd * (g - sum * rstd^2 * mean(g * sum)),   dw += sum_t dy * sum * rstd.
// A row's mean is taken over four groups of sixteen lanes, added in a fixed order.
#include "parallel.h"
#include "simd.h"

#define GROUPS 4
#define STEP   (GROUPS * LANES) // elements the four groups cover together

static inline float groups_sum(const vf s[GROUPS]) { return vf_sum((s[0] + s[1]) + (s[2] + s[3])); }

ALWAYS_INLINE float norm_row(void *y, void *sum, const void *x, const void *delta, DType t, const void *w, DType tw,
                             int64_t D, float eps) {
    vf ss[GROUPS] = {0};
    for (int64_t i = 0; i < D; i += STEP)
        for (int g = 0; g < GROUPS; g++) {
            int64_t j = i + g * LANES;
            if (j >= D) break;
            vf v = row_load_part(x, t, j, D - j);
            if (delta) {
                // Stored, then read back: the norm must see what the residual stream will hold.
                row_store_part(sum, t, j, D - j, v + row_load_part(delta, t, j, D - j));
                v = row_load_part(sum, t, j, D - j);
            }
            ss[g] = vf_fma(v, v, ss[g]);
        }
    float rstd = 1.0f / sqrtf(groups_sum(ss) / (float)D + eps);
    const void *in = delta ? sum : x;
    for (int64_t i = 0; i < D; i += LANES)
        row_store_part(y, t, i, D - i, row_load_part(in, t, i, D - i) * vf_set(rstd) * row_load_part(w, tw, i, D - i));
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
    vf dot[GROUPS] = {0};
    for (int64_t i = 0; i < D; i += STEP)
        for (int g = 0; g < GROUPS; g++) {
            int64_t j = i + g * LANES;
            if (j >= D) break;
            vf gx = row_load_part(dy, t, j, D - j) * row_load_part(x, t, j, D - j);
            dot[g] = vf_fma(gx, row_load_part(w, tw, j, D - j), dot[g]);
        }
    float c = groups_sum(dot) / (float)D * rstd * rstd;
    for (int64_t i = 0; i < D; i += LANES) {
        vf g = row_load_part(dy, t, i, D - i), v = row_load_part(x, t, i, D - i);
        vf out = vf_set(rstd) * (g * row_load_part(w, tw, i, D - i) - v * vf_set(c));
        if (dres) out += row_load_part(dres, t, i, D - i);
        row_store_part(dw, F32, i, D - i, vf_fma(g, v * vf_set(rstd), row_load_part(dw, F32, i, D - i)));
        row_store_part(dx, t, i, D - i, out);
    }
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
