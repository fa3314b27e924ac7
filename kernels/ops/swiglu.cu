// SwiGLU (Shazeer 2020):  h = silu(g) * u,  silu(g) = g * s,  s = 1 / (1 + e^-g);   gu[T,2F] holds g, then u.
// Backward:  dg = dh * u * s * (1 + g * (1 - s)),   du = dh * g * s.
//
// A thread owns 16 bytes of g and of u, and strides by the grid. Bytes moved for an element of h in bf16: g, u and h
// (6), backward g, u, dh, dg and du (10).
#include "memory.cuh"

#define THREADS 256

// expf errs by 1 ulp, __fdividef by 2. Where e^-g overflows the quotient is 0.
static __device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

// Calls f(t, i) for this thread's groups of T_ rows of F elements. It divides once, for the first, and then steps.
template <int E, typename Fn> static __device__ __forceinline__ void for_row_groups(int64_t T_, int64_t F, Fn f) {
    int64_t groups = (F + E - 1) / E, first = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t step = (int64_t)gridDim.x * THREADS, rows = step / groups, rest = step % groups;
    int64_t t = first / groups, k = first % groups;
    while (t < T_) {
        f(t, k * E);
        t += rows;
        k += rest;
        if (k >= groups) k -= groups, t++;
    }
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) swiglu_kernel(T *h, const T *gu, int64_t T_, int64_t F, bool whole) {
    constexpr int E = GroupOf<T>::E;
    wait_for_earlier();
    for_row_groups<E>(T_, F, [=](int64_t t, int64_t i) {
        const T *row = gu + t * 2 * F;
        Group<T, E> g = group_load<E>(row + i, F - i, whole), u = group_load<E>(row + F + i, F - i, whole);
#pragma unroll
        for (int j = 0; j < E; j++) {
            float x = to_float(g.x[j]);
            g.x[j] = from_float<T>(x * sigmoid(x) * to_float(u.x[j]));
        }
        group_store<E>(h + t * F + i, F - i, whole, g);
    });
}

template <typename T>
static __global__ void __launch_bounds__(THREADS)
    swiglu_bwd_kernel(T *dgu, const T *dh, const T *gu, int64_t T_, int64_t F, bool whole) {
    constexpr int E = GroupOf<T>::E;
    for_row_groups<E>(T_, F, [=](int64_t t, int64_t i) {
        const T *row = gu + t * 2 * F;
        T *out = dgu + t * 2 * F;
        Group<T, E> g = group_load<E>(row + i, F - i, whole), u = group_load<E>(row + F + i, F - i, whole);
        Group<T, E> dy = group_load<E>(dh + t * F + i, F - i, whole);
#pragma unroll
        for (int j = 0; j < E; j++) {
            float x = to_float(g.x[j]), s = sigmoid(x), d = to_float(dy.x[j]);
            g.x[j] = from_float<T>(d * to_float(u.x[j]) * s * (1.0f + x * (1.0f - s)));
            u.x[j] = from_float<T>(d * x * s);
        }
        group_store<E>(out + i, F - i, whole, g);
        group_store<E>(out + F + i, F - i, whole, u);
    });
}

template <typename T> static bool rows_whole(Tensor half, Tensor gu, Tensor dgu) {
    constexpr int E = GroupOf<T>::E;
    int64_t F = tensor_width(half);
    return in_groups<E>(data_of<T>(half), F) && in_groups<E>(data_of<T>(gu), F) && in_groups<E>(data_of<T>(dgu), F);
}

void cuda_swiglu(Device *d, Tensor h, Tensor gu) {
    int64_t T_ = h.dim[0], F = tensor_width(h);
    DISPATCH(h.dtype, T,
             LAUNCH_EARLY(d, swiglu_kernel<T>, grid_for(d, (F + GroupOf<T>::E - 1) / GroupOf<T>::E * T_, THREADS),
                          THREADS, 0, data_of<T>(h), data_of<T>(gu), T_, F, rows_whole<T>(h, gu, NONE)));
}

void cuda_swiglu_bwd(Device *d, Tensor dgu, Tensor dh, Tensor gu) {
    int64_t T_ = dh.dim[0], F = tensor_width(dh);
    DISPATCH(dh.dtype, T,
             LAUNCH(d, swiglu_bwd_kernel<T>, grid_for(d, (F + GroupOf<T>::E - 1) / GroupOf<T>::E * T_, THREADS),
                    THREADS, 0, data_of<T>(dgu), data_of<T>(dh), data_of<T>(gu), T_, F, rows_whole<T>(dh, gu, dgu)));
}
