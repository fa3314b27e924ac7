// matmul_swiglu as the two ops that it is made of, for both devices.
#pragma once
#include "ops.h"

// Where gu is absent, its rows are computed in scratch, as many at a time as half of what is left there can hold.
static inline void matmul_swiglu_parts(Device *d, Tensor h, Tensor gu, Tensor x, Tensor w,
                                       void (*matmul)(Device *, Tensor, Tensor, Tensor),
                                       void (*swiglu)(Device *, Tensor, Tensor)) {
    const int64_t T = h.dim[0], N = w.dim[0];
    const bool kept = present(gu);
    size_t mark = arena_mark(&d->scratch), row = (size_t)N * dtype_size(h.dtype);
    int64_t most = T;
    if (!kept && T && N) {
        const int64_t fit = (int64_t)((d->scratch.cap - d->scratch.used) / 2 / row);
        if (most > fit) most = fit ? fit : 1;
        gu = tensor2(arena_take(&d->scratch, (size_t)most * row), h.dtype, most, N);
    }
    for (int64_t at = 0, n; at < T; at += n) {
        n = T - at < most ? T - at : most;
        Tensor part = tensor_rows(gu, kept ? at : 0, n);
        matmul(d, part, tensor_rows(x, at, n), w);
        swiglu(d, tensor_rows(h, at, n), part);
    }
    arena_rewind(&d->scratch, mark);
}
