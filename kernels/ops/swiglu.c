// SwiGLU (Shazeer 2020):  h = silu(g) * u,  silu(g) = g * s,  s = 1 / (1 + e^-g);   gu[T,2F] holds g, then u.
// Backward:  dg = dh * u * s * (1 + g * (1 - s)),   du = dh * g * s.
#include "parallel.h"
#include "simd.h"

static inline vf sigmoid(vf x) { return 1.0f / (1.0f + vf_exp(-x)); }

ALWAYS_INLINE void swiglu_row(void *h, const void *gu, DType t, int64_t F) {
    FOR_LANES(i, n, F, {
        vf g = row_load_part(gu, t, i, n), u = row_load_part(gu, t, F + i, n);
        row_store_part(h, t, i, n, g * sigmoid(g) * u);
    });
}

void cpu_swiglu(Device *d, Tensor h, Tensor gu) {
    int64_t T = h.dim[0], F = tensor_width(h);
#pragma omp parallel for schedule(static) if (T * F >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        void *out = tensor_rows(h, t, 1).data, *in = tensor_rows(gu, t, 1).data;
        if (h.dtype == F32) swiglu_row(out, in, F32, F);
        else swiglu_row(out, in, BF16, F);
    }
}

ALWAYS_INLINE void swiglu_row_bwd(void *dgu, const void *dh, const void *gu, DType t, int64_t F) {
    FOR_LANES(i, n, F, {
        vf g = row_load_part(gu, t, i, n), u = row_load_part(gu, t, F + i, n);
        vf dy = row_load_part(dh, t, i, n), s = sigmoid(g);
        row_store_part(dgu, t, i, n, dy * u * s * (1.0f + g * (1.0f - s)));
        row_store_part(dgu, t, F + i, n, dy * g * s);
    });
}

void cpu_swiglu_bwd(Device *d, Tensor dgu, Tensor dh, Tensor gu) {
    int64_t T = dh.dim[0], F = tensor_width(dh);
#pragma omp parallel for schedule(static) if (T * F >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        void *out = tensor_rows(dgu, t, 1).data, *dy = tensor_rows(dh, t, 1).data, *in = tensor_rows(gu, t, 1).data;
        if (dh.dtype == F32) swiglu_row_bwd(out, dy, in, F32, F);
        else swiglu_row_bwd(out, dy, in, BF16, F);
    }
}
