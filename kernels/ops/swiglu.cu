// SwiGLU (Shazeer 2020):  h = silu(g) * u,  silu(g) = g * s,  s = 1 / (1 + e^-g);   gu[T,2F] holds g, then u.
// Backward:  dg = dh * u * s * (1 + g * (1 - s)),   du = dh * g * s.
//
// A thread owns 16 bytes of g and of u, and strides by the grid, which is one wave. Bytes moved for an element of h in
// bf16: g, u and h (6), backward g, u, dh, dg and du (10); the floor is those bytes over the bandwidth.
//
// An SM of an H200 moves 18 bytes a clock and issues instructions of 128 threads, so that 8 elements leave room for 340
// instructions, backward 570. sm_90a has 150 and 217, in 32 registers, so that 64 and 96 KB of loads are under way in
// an SM: 93 % of a copy is expected of both, what f32 reaches with half the arithmetic for a byte, less a little.
#include "memory.cuh"
#include "swiglu.cuh"

#define THREADS 256

// Calls f(t, i) for this thread's groups of T_ rows of F elements. It divides once, for the first, and then steps.
template <int E, typename Fn> static __device__ __forceinline__ void for_row_groups(int T_, int F, Fn f) {
    int groups = (F + E - 1) / E, first = (int)(blockIdx.x * THREADS + threadIdx.x);
    int step = (int)(gridDim.x * THREADS), rows = step / groups, rest = step % groups;
    int t = first / groups, k = first % groups;
    while (t < T_) {
        f((int64_t)t, k * E);
        t += rows;
        k += rest;
        if (k >= groups) k -= groups, t++;
    }
}

template <typename T, bool plain>
static __global__ void __launch_bounds__(THREADS) swiglu_kernel(T *h, const T *gu, int T_, int F, bool whole) {
    constexpr int E = GroupOf<T>::E;
    wait_for_earlier();
    for_row_groups<E>(T_, F, [=](int64_t t, int i) {
        const T *from = gu + t * 2 * F + i;
        Group<T, E> g = group_load<E, plain>(from, F - i, whole), u = group_load<E, plain>(from + F, F - i, whole);
        float x[E], y[E];
        group_floats<E>(x, g), group_floats<E>(y, u);
#pragma unroll
        for (int j = 0; j < E; j++) x[j] = gated(x[j], y[j]);
        group_round<E>(&g, x);
        group_store<E, plain>(h + t * F + i, F - i, whole, g);
    });
}

template <typename T, bool plain>
static __global__ void __launch_bounds__(THREADS)
    swiglu_bwd_kernel(T *dgu, const T *dh, const T *gu, int T_, int F, bool whole) {
    constexpr int E = GroupOf<T>::E;
    wait_for_earlier();
    for_row_groups<E>(T_, F, [=](int64_t t, int i) {
        const T *from = gu + t * 2 * F + i;
        T *to = dgu + t * 2 * F + i;
        Group<T, E> g = group_load<E, plain>(from, F - i, whole), u = group_load<E, plain>(from + F, F - i, whole);
        Group<T, E> dy = group_load<E, plain>(dh + t * F + i, F - i, whole);
        float x[E], y[E], d[E];
        group_floats<E>(x, g), group_floats<E>(y, u), group_floats<E>(d, dy);
#pragma unroll
        for (int j = 0; j < E; j++) {
            float s = sigmoid(x[j]), up = y[j];
            y[j] = d[j] * x[j] * s;
            x[j] = d[j] * up * s * (1.0f + x[j] * (1.0f - s));
        }
        group_round<E>(&g, x), group_round<E>(&u, y);
        group_store<E, plain>(to, F - i, whole, g);
        group_store<E, plain>(to + F, F - i, whole, u);
    });
}

template <typename T> static bool rows_whole(Tensor half, Tensor gu, Tensor dgu) {
    constexpr int E = GroupOf<T>::E;
    int64_t F = tensor_width(half);
    return in_groups<E>(data_of<T>(half), F) && in_groups<E>(data_of<T>(gu), F) && in_groups<E>(data_of<T>(dgu), F);
}

template <typename T> static int64_t blocks_of(Tensor half) {
    constexpr int E = GroupOf<T>::E;
    return blocks_for((tensor_width(half) + E - 1) / E * half.dim[0], THREADS);
}

void cuda_swiglu(Device *d, Tensor h, Tensor gu) {
    DISPATCH(h.dtype, T, {
        bool whole = rows_whole<T>(h, gu, NONE);
        auto swiglu = whole ? swiglu_kernel<T, true> : swiglu_kernel<T, false>;
        LAUNCH_EARLY(d, swiglu, resident_grid(d, swiglu, THREADS, 0, blocks_of<T>(h)), THREADS, 0, data_of<T>(h),
                     data_of<T>(gu), (int)h.dim[0], (int)tensor_width(h), whole);
    });
}

void cuda_swiglu_bwd(Device *d, Tensor dgu, Tensor dh, Tensor gu) {
    DISPATCH(dh.dtype, T, {
        bool whole = rows_whole<T>(dh, gu, dgu);
        auto swiglu_bwd = whole ? swiglu_bwd_kernel<T, true> : swiglu_bwd_kernel<T, false>;
        LAUNCH_EARLY(d, swiglu_bwd, resident_grid(d, swiglu_bwd, THREADS, 0, blocks_of<T>(dh)), THREADS, 0,
                     data_of<T>(dgu), data_of<T>(dh), data_of<T>(gu), (int)dh.dim[0], (int)tensor_width(dh), whole);
    });
}
