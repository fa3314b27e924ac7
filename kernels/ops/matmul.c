// matmul: y[M,N] = x[M,K] w[N,K]^T; with swiglu behind it; and backward: dx = dy w, dw += dy^T x.
#include "dot.h"
#include "matmul_swiglu.h"
#include "norm_matmul.h"

void cpu_matmul(Device *d, Tensor y, Tensor x, Tensor w) {
    dot_all(&d->scratch, rows_of(y), false, rows_of(x), x.dim[0], rows_of(w), w.dim[0], tensor_width(x));
}

void cpu_matmul_swiglu(Device *d, Tensor h, Tensor gu, Tensor x, Tensor w) {
    matmul_swiglu_parts(d, h, gu, x, w, cpu_matmul, cpu_swiglu);
}

void cpu_norm_matmul(Device *d, Tensor y, Tensor h, Norm n, Tensor w) { norm_matmul_parts(d, y, h, n, w); }

void cpu_matmul_bwd(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w) {
    int64_t M = dy.dim[0], N = tensor_width(dy), K = tensor_width(x);
    if (present(dx)) dot_all(&d->scratch, rows_of(dx), false, rows_of(dy), M, columns_of(rows_of(w)), K, N);
    if (present(dw)) dot_all(&d->scratch, rows_of(dw), true, columns_of(rows_of(dy)), N, columns_of(rows_of(x)), K, M);
}
