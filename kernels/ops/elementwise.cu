// fill, cast and lerp: ops that are one pass over memory.
//
//   fill  x = value                  writes x
//   cast  y = x                      reads x, writes y
//   lerp  y = alpha x + (1 - alpha) y   reads x and y, writes y: x itself at 1, which y + alpha (x - y) need not be
//
// A thread owns TURNS groups of 16 bytes (of the wider type) in each turn of a grid-stride loop, and issues all their
// loads before the first store. Memory-bound: the floor is the bytes over the bandwidth.
#include "memory.cuh"

#define THREADS 256
#define TURNS   2 // groups of a thread, a block's width apart, so that neighbouring threads have neighbouring groups

// Goes through this thread's groups of n elements: in each turn a = load(i, left) for all of them, then store(i, left,
// a).
template <int E, typename A, typename Load, typename Store>
static __device__ __forceinline__ void for_groups(int64_t n, Load load, Store store) {
    int64_t step = (int64_t)gridDim.x * THREADS * E * TURNS;
    for (int64_t first = ((int64_t)blockIdx.x * THREADS * TURNS + threadIdx.x) * E; first < n; first += step) {
        A a[TURNS];
#pragma unroll
        for (int k = 0; k < TURNS; k++) {
            int64_t i = first + k * THREADS * E;
            if (i < n) a[k] = load(i, n - i);
        }
#pragma unroll
        for (int k = 0; k < TURNS; k++) {
            int64_t i = first + k * THREADS * E;
            if (i < n) store(i, n - i, a[k]);
        }
    }
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) fill_kernel(T *x, float value, int64_t n, bool whole) {
    constexpr int E = GroupOf<T>::E;
    Group<T, E> g;
#pragma unroll
    for (int j = 0; j < E; j++) g.x[j] = from_float<T>(value);
    for_groups<E, int>(
        n, [](int64_t, int64_t) { return 0; },
        [=](int64_t i, int64_t left, int) { group_store<E>(x + i, left, whole, g); });
}

template <typename T, typename U>
static __global__ void __launch_bounds__(THREADS) cast_kernel(T *y, const U *x, int64_t n, bool whole) {
    constexpr int E = GroupOf<T, U>::E;
    for_groups<E, Group<U, E>>(
        n, [=](int64_t i, int64_t left) { return group_load<E>(x + i, left, whole); },
        [=](int64_t i, int64_t left, Group<U, E> a) {
            Group<T, E> b;
#pragma unroll
            for (int j = 0; j < E; j++) b.x[j] = from_float<T>(to_float(a.x[j]));
            group_store<E>(y + i, left, whole, b);
        });
}

template <typename T, typename U, int E> struct Both {
    Group<T, E> y;
    Group<U, E> x;
};
template <typename T, typename U>
static __global__ void __launch_bounds__(THREADS) lerp_kernel(T *y, const U *x, float alpha, int64_t n, bool whole) {
    constexpr int E = GroupOf<T, U>::E;
    for_groups<E, Both<T, U, E>>(
        n,
        [=](int64_t i, int64_t left) {
            return Both<T, U, E>{group_load<E>((const T *)y + i, left, whole), group_load<E>(x + i, left, whole)};
        },
        [=](int64_t i, int64_t left, Both<T, U, E> a) {
#pragma unroll
            for (int j = 0; j < E; j++) {
                float kept = (1 - alpha) * to_float(a.y.x[j]);
                a.y.x[j] = from_float<T>(fmaf(alpha, to_float(a.x.x[j]), kept));
            }
            group_store<E>(y + i, left, whole, a.y);
        });
}

void cuda_fill(Device *d, Tensor x, float value) {
    int64_t n = tensor_numel(x);
    DISPATCH(x.dtype, T, {
        constexpr int E = GroupOf<T>::E;
        T *p = data_of<T>(x);
        LAUNCH(d, fill_kernel<T>, grid_for(d, n, THREADS * E * TURNS), THREADS, 0, p, value, n, in_groups<E>(p, 0));
    });
}

void cuda_cast(Device *d, Tensor y, Tensor x) {
    int64_t n = tensor_numel(y);
    DISPATCH2(y.dtype, T, x.dtype, U, {
        constexpr int E = (GroupOf<T, U>::E);
        T *to = data_of<T>(y);
        U *from = data_of<U>(x);
        LAUNCH(d, (cast_kernel<T, U>), grid_for(d, n, THREADS * E * TURNS), THREADS, 0, to, from, n,
               in_groups<E>(to, 0) && in_groups<E>(from, 0));
    });
}

void cuda_lerp(Device *d, Tensor y, Tensor x, float alpha) {
    int64_t n = tensor_numel(y);
    DISPATCH2(y.dtype, T, x.dtype, U, {
        constexpr int E = (GroupOf<T, U>::E);
        T *to = data_of<T>(y);
        U *from = data_of<U>(x);
        LAUNCH(d, (lerp_kernel<T, U>), grid_for(d, n, THREADS * E * TURNS), THREADS, 0, to, from, alpha, n,
               in_groups<E>(to, 0) && in_groups<E>(from, 0));
    });
}
