// norm_matmul as the ops that it is made of, for both devices.
#pragma once
#include "ops.h"

static inline void norm_matmul_parts(Device *d, Tensor y, Tensor h, Norm n, Tensor w) {
    d->rmsnorm(d, n.y, n.sum, n.rstd, n.x, n.delta, n.w, n.eps);
    if (present(h)) d->matmul_swiglu(d, h, y, n.y, w);
    else d->matmul(d, y, n.y, w);
}
