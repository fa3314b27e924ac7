// The CUDA device's own state: cuda.cu opens it, matmul.cu adds cuBLASLt's.
#pragma once
#include "common.cuh"
#include <cublasLt.h>
#include <nvtx3/nvToolsExt.h>

struct CudaDevice {
    cudaStream_t stream;
    int sm_count;
    size_t memory; // bytes
    cublasLtHandle_t blas;
};

// matmul.cu; false after filling d->error.
bool matmul_open(Device *d);
void matmul_close(Device *d);
