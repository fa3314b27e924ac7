// The backward of matmul: dx[M,K] = dy[M,N] w[N,K] and dw[N,K] += dy^T x, on Hopper by matmul_bwd_hopper.cu where that
// is expected to be faster, else by gpu/product.cu.
//
// cuBLASLt's fused epilogues are of no use here: the only bias of a Qwen2 layer is added before RoPE, and rope_bwd sums
// its gradient on the way; and the library has none for SwiGLU.
//
// Floor: 2 M N K FLOP each way on the tensor cores.
#include "cuda.cuh"

void gradient_product(Device *d, Tensor c, bool add, Tensor a, bool a_t, Tensor b) {
    if (!hopper_product(d, c, add, a, a_t, b)) cuda_product(d, c, add, a, a_t, b, false);
}

void cuda_matmul_bwd(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w) {
    Tensor dy2 = tensor2(dy.data, dy.dtype, dy.dim[0], tensor_width(dy));
    if (present(dx)) gradient_product(d, dx, false, dy2, false, w);
    if (present(dw)) gradient_product(d, dw, true, dy2, true, x);
}
