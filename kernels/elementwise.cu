// fill, cast, lerp: one read, one write an element. Memory-bound: the floor is the bytes moved over the bandwidth.
#include "common.cuh"

#define THREADS 256
#define EACH    4 // elements a thread and turn, THREADS apart: neighbours stay neighbours in memory

// Runs f(i) for i in 0..n, spread over the grid.
template <typename F> static __device__ __forceinline__ void for_each(int64_t n, F f) {
    int64_t step = (int64_t)gridDim.x * THREADS * EACH;
    for (int64_t first = (int64_t)blockIdx.x * THREADS * EACH + threadIdx.x; first < n; first += step)
#pragma unroll
        for (int k = 0; k < EACH; k++)
            if (first + k * THREADS < n) f(first + k * THREADS);
}

template <typename T> static __global__ void fill_kernel(T *x, float value, int64_t n) {
    for_each(n, [=](int64_t i) { x[i] = from_float<T>(value); });
}
template <typename T, typename U> static __global__ void cast_kernel(T *y, const U *x, int64_t n) {
    for_each(n, [=](int64_t i) { y[i] = from_float<T>(to_float(x[i])); });
}
template <typename T, typename U> static __global__ void lerp_kernel(T *y, const U *x, float alpha, int64_t n) {
    for_each(n, [=](int64_t i) {
        float old = to_float(y[i]);
        y[i] = from_float<T>(fmaf(alpha, to_float(x[i]) - old, old));
    });
}

void cuda_fill(Device *d, Tensor x, float value) {
    int64_t n = tensor_numel(x);
    DISPATCH(x.dtype, T,
             LAUNCH(d, fill_kernel<T>, grid_for(d, n, THREADS * EACH), THREADS, 0, data_of<T>(x), value, n));
}
void cuda_cast(Device *d, Tensor y, Tensor x) {
    int64_t n = tensor_numel(y);
    DISPATCH2(
        y.dtype, T, x.dtype, U,
        LAUNCH(d, (cast_kernel<T, U>), grid_for(d, n, THREADS * EACH), THREADS, 0, data_of<T>(y), data_of<U>(x), n));
}
void cuda_lerp(Device *d, Tensor y, Tensor x, float alpha) {
    int64_t n = tensor_numel(y);
    DISPATCH2(y.dtype, T, x.dtype, U,
              LAUNCH(d, (lerp_kernel<T, U>), grid_for(d, n, THREADS * EACH), THREADS, 0, data_of<T>(y), data_of<U>(x),
                     alpha, n));
}
