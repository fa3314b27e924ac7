// The CUDA device's own state: device/cuda.cu opens it; stream.cu and product.cu stand on it.
#pragma once
#include "common.cuh"
#include <cublasLt.h>
#include <nvtx3/nvToolsExt.h>

#define BLOCK_COUNTERS 4096

typedef struct MatmulPlans MatmulPlans;

struct CudaDevice {
    cudaStream_t stream;  // ops and copies, in the order asked for
    cudaStream_t fetches; // copies to the host beside them
    cudaEvent_t asked;    // what a fetch waits for
    int sm_count;
    bool overlaps; // kernels may start early: the card can, and the build's code for it waits
    size_t memory; // bytes
    size_t shared; // bytes of shared memory a block may have
    cublasLtHandle_t blas;
    MatmulPlans *plans;
    bool hopper;       // products of many tokens go by wgmma: the card has it, and it gives the portable kernel's bits
    unsigned *arrived; // [BLOCK_COUNTERS] on the device, 0 between ops: blocks of one tile count themselves here
};

// product.cu; false after filling d->error.
bool product_open(Device *d);
void product_close(Device *d);
// c[m,n] = or += a[m,k] b[k,n], f32 accumulated; a_t: a lies as [k,m]; b_t: b lies as [n,k]. a and b have one dtype, c any.
// For gradients: the same bits in every run, but a row's depend on the shape. Takes what scratch is left as workspace.
void cuda_product(Device *d, Tensor c, bool add, Tensor a, bool a_t, Tensor b, bool b_t);

// matmul_hopper.cu. Looks whether own->hopper may be; false after filling d->error.
bool hopper_open(Device *d, int compute_capability);
// matmul by wgmma; false where it takes no part: then nothing has happened.
bool hopper_matmul(Device *d, Tensor y, Tensor x, Tensor w);
