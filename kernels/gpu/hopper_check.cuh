// What the checks of Hopper's kernels have in common: pseudo-random tensors in scratch, and how far two results are
// apart. A check may wait for the device; it runs while that is opened, in milliseconds.
#pragma once
#include "cuda.cuh"

// Fills x[rows, width] with pseudo-random bf16: of size 1/2 to 2 in rows 0, 3, 6 .., in the others of sizes 2^-spread
// to 2^(spread - 1).
static __global__ void hopper_draw_kernel(Bf16 *x, int64_t rows, int64_t width, int spread, uint32_t seed) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * width;
         i += (int64_t)gridDim.x * blockDim.x) {
        uint32_t h = (uint32_t)i * 2654435761u ^ seed;
        for (int k = 0; k < 2; k++) h = (h ^ h >> 15) * 0x85ebca6bu, h ^= h >> 13;
        uint32_t exponent = i / width % 3 ? 127 - spread + h % (2 * spread) : 126 + h % 2;
        x[i] = from_float<Bf16>(__uint_as_float((h & 0x807f0000u) | exponent << 23));
    }
}
static __global__ void hopper_compare_kernel(const uint32_t *a, const uint32_t *b, int64_t n, unsigned *differ) {
    unsigned mine = 0;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
        mine += a[i] != b[i];
    if (mine) atomicAdd(differ, mine);
}

// A tensor in scratch, which the caller rewinds.
static inline Tensor hopper_take(Device *d, DType dtype, int64_t rows, int64_t width) {
    Tensor t = tensor2(NULL, dtype, rows, width);
    t.data = arena_take(&d->scratch, tensor_bytes(t));
    return t;
}
static inline Tensor hopper_draw(Device *d, int64_t rows, int64_t width, int spread, uint32_t seed) {
    Tensor t = hopper_take(d, BF16, rows, width);
    LAUNCH(d, hopper_draw_kernel, grid_for(d, rows * width, 256), 256, 0, data_of<Bf16>(t), rows, width, spread, seed);
    return t;
}
// Whether two results of a whole number of words have the same bits; false where the device has failed.
static inline bool hopper_equal(Device *d, Tensor a, Tensor b) {
    const int64_t words = (int64_t)tensor_bytes(a) / 4;
    unsigned *differ = ((CudaDevice *)d->backend)->arrived, count = 1; // 0 between ops, and here again in the end
    LAUNCH(d, hopper_compare_kernel, grid_for(d, words, 256), 256, 0, data_of<uint32_t>(a), data_of<uint32_t>(b), words,
           differ);
    d->copy(d, &count, differ, sizeof count);
    cuda_failed(d, cudaMemsetAsync(differ, 0, sizeof *differ, cuda_stream(d)), "checking Hopper's kernels");
    return !d->error[0] && !count;
}

// Whether the build has this kernel's code for the card, and the card the shared memory that it asks for.
static inline HopperState hopper_fits(Device *d, const void *kernel, size_t shared_bytes) {
    cudaFuncAttributes code;
    if (cudaFuncGetAttributes(&code, kernel) != cudaSuccess) {
        (void)cudaGetLastError();
        return HOPPER_NO_CODE;
    }
    return ((CudaDevice *)d->backend)->shared < shared_bytes ? HOPPER_NO_ROOM : HOPPER_USED;
}
