// fill, cast and lerp: ops that are one pass over memory.
//
//   fill  x = value                  writes x
//   cast  y = x                      reads x, writes y
//   lerp  y = alpha x + (1 - alpha) y   reads x and y, writes y: x itself at 1, which y + alpha (x - y) need not be
//
// A thread owns TURNS groups of 16 bytes (of the wider type) in each turn of a grid-stride loop, and issues all their
// loads before the first store. Memory-bound: the floor is the bytes over the bandwidth. Expected on an H200: 95 % of a
// copy, what f32 reaches. An SM has 32 KB or more of loads under way, and issues fewer than 2 instructions a byte.
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

template <typename T, typename U, bool plain>
static __global__ void __launch_bounds__(THREADS) cast_kernel(T *y, const U *x, int64_t n, bool whole) {
    constexpr int E = GroupOf<T, U>::E;
    for_groups<E, Group<U, E>>(
        n, [=](int64_t i, int64_t left) { return group_load<E, plain>(x + i, left, whole); },
        [=](int64_t i, int64_t left, Group<U, E> a) {
            float f[E];
            Group<T, E> b;
            group_floats<E>(f, a), group_round<E>(&b, f);
            group_store<E, plain>(y + i, left, whole, b);
        });
}

template <typename T, typename U, int E> struct Both {
    Group<T, E> y;
    Group<U, E> x;
};
template <typename T, typename U, bool plain>
static __global__ void __launch_bounds__(THREADS) lerp_kernel(T *y, const U *x, float alpha, int64_t n, bool whole) {
    constexpr int E = GroupOf<T, U>::E;
    for_groups<E, Both<T, U, E>>(
        n,
        [=](int64_t i, int64_t left) {
            return Both<T, U, E>{group_load<E, plain>((const T *)y + i, left, whole),
                                 group_load<E, plain>(x + i, left, whole)};
        },
        [=](int64_t i, int64_t left, Both<T, U, E> a) {
            float f[E], g[E];
            group_floats<E>(f, a.y), group_floats<E>(g, a.x);
#pragma unroll
            for (int j = 0; j < E; j++) f[j] = fmaf(alpha, g[j], (1 - alpha) * f[j]);
            group_round<E>(&a.y, f);
            group_store<E, plain>(y + i, left, whole, a.y);
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
        bool whole = in_groups<E>(to, 0) && in_groups<E>(from, 0);
        auto cast = whole && n % E == 0 ? cast_kernel<T, U, true> : cast_kernel<T, U, false>;
        LAUNCH(d, cast, resident_grid(d, cast, THREADS, 0, blocks_for(n, THREADS * E * TURNS)), THREADS, 0, to, from, n,
               whole);
    });
}

void cuda_lerp(Device *d, Tensor y, Tensor x, float alpha) {
    int64_t n = tensor_numel(y);
    DISPATCH2(y.dtype, T, x.dtype, U, {
        constexpr int E = (GroupOf<T, U>::E);
        T *to = data_of<T>(y);
        U *from = data_of<U>(x);
        bool whole = in_groups<E>(to, 0) && in_groups<E>(from, 0);
        auto lerp = whole && n % E == 0 ? lerp_kernel<T, U, true> : lerp_kernel<T, U, false>;
        LAUNCH(d, lerp, resident_grid(d, lerp, THREADS, 0, blocks_for(n, THREADS * E * TURNS)), THREADS, 0, to, from,
               alpha, n, whole);
    });
}
