// The state of the CUDA device (d->backend), which device/cuda.cu opens, and the parts that are opened with it:
// stream.cu, product.cu, ops/matmul_hopper.cu.
#pragma once
#include "common.cuh"
#include <cublasLt.h>
#include <nvtx3/nvToolsExt.h>

#define BLOCK_COUNTERS 4096

typedef struct MatmulPlans MatmulPlans;

struct CudaDevice {
    cudaStream_t stream;  // ops and copies, in the order of the calls
    cudaStream_t fetches; // copies to the host that run beside them
    cudaEvent_t asked;    // the point in `stream` that a fetch waits for
    int sm_count;
    bool overlaps; // whether kernels may start early (LAUNCH_EARLY): the card can, and the code was compiled to wait
    size_t memory; // bytes
    size_t shared; // bytes of shared memory a block may have
    cublasLtHandle_t blas;
    MatmulPlans *plans;
    bool hopper;       // whether products of many tokens use wgmma: its bits are the portable kernel's
    unsigned *arrived; // [BLOCK_COUNTERS] on the device, 0 between ops: blocks of a tile that are done
};

// Open and close cuBLASLt and the counters (product.cu). False after filling d->error.
bool product_open(Device *d);
void product_close(Device *d);
// c[m,n] = (or +=, with `add`) a[m,k] b[k,n], accumulated in f32; with a_t, a is stored as [k,m], with b_t, b as [n,k].
// a and b have the same dtype, c any. For gradients only: the bits are the same in every run, but those of a row depend
// on the shape. Uses the scratch that is left as workspace.
void cuda_product(Device *d, Tensor c, bool add, Tensor a, bool a_t, Tensor b, bool b_t);

// Finds out whether this card may use wgmma, and sets `hopper` (matmul_hopper.cu). False after filling d->error.
bool hopper_open(Device *d, int compute_capability);
// The op matmul by wgmma. False, and nothing done, where it does not apply: the caller then takes the portable kernel.
bool hopper_matmul(Device *d, Tensor y, Tensor x, Tensor w);
