// RMSNorm of one row, forward and backward: shared by rmsnorm (the residual stream) and qk_norm (single heads).
#pragma once
#include "simd.h"
#include <math.h>

// y[D] = RMSNorm(x) * w; y may be x. Where delta is not NULL, the norm is of x + delta, which is stored in `sum` too.
// Returns rstd, the reciprocal of the root mean square.
ALWAYS_INLINE float norm_row(void *y, void *sum, const void *x, const void *delta, DType t, const void *w, DType tw,
                             int64_t D, float eps) {
    vf ss[PARTS] = {0};
    FOR_PARTS(i, n, part, D, {
        vf v = row_load_part(x, t, i, n);
        if (delta) {
            // Stored, then read back: the norm must see what the residual stream will hold.
            row_store_part(sum, t, i, n, v + row_load_part(delta, t, i, n));
            v = row_load_part(sum, t, i, n);
        }
        ss[part] = vf_fma(v, v, ss[part]);
    });
    float rstd = 1.0f / sqrtf(parts_sum(ss) / (float)D + eps);
    const void *in = delta ? sum : x;
    FOR_LANES(i, n, D,
              { row_store_part(y, t, i, n, row_load_part(in, t, i, n) * vf_set(rstd) * row_load_part(w, tw, i, n)); });
    return rstd;
}

// dx[D] = the gradient through the norm of x, plus dres where that is not NULL; dw[D] += in f32. dx may be dres or dy.
ALWAYS_INLINE void norm_row_bwd(void *dx, float *dw, const void *dres, const void *dy, const void *x, DType t,
                                float rstd, const void *w, DType tw, int64_t D) {
    vf dot[PARTS] = {0};
    FOR_PARTS(i, n, part, D, {
        vf gx = row_load_part(dy, t, i, n) * row_load_part(x, t, i, n);
        dot[part] = vf_fma(gx, row_load_part(w, tw, i, n), dot[part]);
    });
    float c = parts_sum(dot) / (float)D * rstd * rstd;
    FOR_LANES(i, n, D, {
        vf g = row_load_part(dy, t, i, n), v = row_load_part(x, t, i, n);
        vf out = vf_set(rstd) * (g * row_load_part(w, tw, i, n) - v * vf_set(c));
        if (dres) out += row_load_part(dres, t, i, n);
        row_store_part(dw, F32, i, n, vf_fma(g, v * vf_set(rstd), row_load_part(dw, F32, i, n)));
        row_store_part(dx, t, i, n, out);
    });
}
