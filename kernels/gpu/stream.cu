// The stream that ops run on, and the recording of failures: the first one stays in d->error until a caller looks at
// it.
#include "cuda.cuh"
#include <stdio.h>

cudaStream_t cuda_stream(Device *d) { return ((CudaDevice *)d->backend)->stream; }
int cuda_sm_count(Device *d) { return ((CudaDevice *)d->backend)->sm_count; }
bool cuda_overlaps(Device *d) { return ((CudaDevice *)d->backend)->overlaps; }
bool cuda_may_read_early(Device *d, Tensor x) {
    const Tensor all = ((CudaDevice *)d->backend)->constant;
    if (!cuda_overlaps(d) || !present(all)) return false;
    uintptr_t begin = (uintptr_t)all.data, at = (uintptr_t)x.data;
    return at >= begin && at + tensor_bytes(x) <= begin + tensor_bytes(all);
}

// What to do about the failures a user can meet.
static const char *advice(cudaError_t status) {
    switch (status) {
    case cudaErrorMemoryAllocation: return "; grpo plan CONFIG shows what a run needs";
    case cudaErrorNoKernelImageForDevice: return "; build for this card: make CUDA_ARCH=native";
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure: return "; a bug in grpo.c: please report it with the output of grpo doctor";
    default: return "";
    }
}

bool cuda_failed(Device *d, cudaError_t status, const char *what) {
    if (status == cudaSuccess) return false;
    if (d->error[0]) return true;
    // A kernel's fault is reported by a later call, so the name in `what` may not be that of the culprit.
    bool late = status == cudaErrorIllegalAddress || status == cudaErrorLaunchFailure;
    snprintf(d->error, sizeof d->error, "%s%s: %s%s", what, late ? ", or work before it" : "",
             cudaGetErrorString(status), advice(status));
    d->error_code = status == cudaErrorMemoryAllocation ? EXIT_MEMORY : EXIT_COMM;
    return true;
}
