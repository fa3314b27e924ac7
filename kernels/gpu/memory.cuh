// Groups of neighbouring elements that one instruction loads or stores, for kernels limited by memory.
//
// A kernel gives every thread groups of E elements, with E such that a group of its widest type is 16 bytes. Which
// thread owns which elements does not depend on the alignment: where an array cannot be read in groups, the same thread
// reads the same elements one by one, and every result has the same bits.
#pragma once
#include "common.cuh"

// GroupOf<T...>::E: elements in a group, for a kernel with arrays of the storage types T...
template <typename... T> struct GroupOf {
    static constexpr size_t widest() {
        size_t sizes[] = {sizeof(T)...}, most = 0;
        for (size_t s : sizes) most = s > most ? s : most;
        return most;
    }
    static constexpr int E = 16 / (int)widest();
};

template <typename T, int E> struct alignas(E * sizeof(T) < 16 ? E * sizeof(T) : 16) Group { T x[E]; };

// Whether rows of `width` elements that begin at p can be read in groups of E; true for p = NULL.
template <int E, typename T> static bool in_groups(const T *p, int64_t width) {
    return (uintptr_t)p % alignof(Group<T, E>) == 0 && width % E == 0;
}

// Loads the group at p, of which `left` elements exist; the others are 0. whole: in_groups holds for p, or for the
// start of its array and p is a multiple of E elements from there. plain (at compile time): `whole` holds, and all of
// the group exists. Where speed counts a kernel has a plain variant: behind a branch for each load, nvcc takes bf16
// groups apart as soon as each has arrived, and a thread waits for one load after the other.
template <int E, bool plain = false, typename T>
static __device__ __forceinline__ Group<T, E> group_load(const T *p, int64_t left, bool whole) {
    if constexpr (plain) return *(const Group<T, E> *)p;
    else {
        if (whole && left >= E) return *(const Group<T, E> *)p;
        Group<T, E> g = {};
#pragma unroll
        for (int j = 0; j < E; j++)
            if (j < left) g.x[j] = p[j];
        return g;
    }
}
template <int E, bool plain = false, typename T>
static __device__ __forceinline__ void group_store(T *p, int64_t left, bool whole, Group<T, E> g) {
    if (plain || (whole && left >= E)) *(Group<T, E> *)p = g;
    else
#pragma unroll
        for (int j = 0; j < E; j++)
            if (j < left) p[j] = g.x[j];
}

// The elements of a group as floats, and floats rounded to a group. bf16 goes in pairs, a register each: half the
// instructions of one by one.
template <int E> static __device__ __forceinline__ void group_floats(float *x, const Group<float, E> &g) {
#pragma unroll
    for (int j = 0; j < E; j++) x[j] = g.x[j];
}
template <int E> static __device__ __forceinline__ void group_floats(float *x, const Group<Bf16, E> &g) {
#pragma unroll
    for (int j = 0; j < E; j += 2) {
        uint32_t pair;
        memcpy(&pair, &g.x[j], sizeof pair);
        x[j] = __uint_as_float(pair << 16), x[j + 1] = __uint_as_float(pair & 0xffff0000u);
    }
}
template <int E> static __device__ __forceinline__ void group_round(Group<float, E> *g, const float *x) {
#pragma unroll
    for (int j = 0; j < E; j++) g->x[j] = x[j];
}
template <int E> static __device__ __forceinline__ void group_round(Group<Bf16, E> *g, const float *x) {
#pragma unroll
    for (int j = 0; j < E; j += 2) {
        __nv_bfloat162 pair = __floats2bfloat162_rn(x[j], x[j + 1]);
        memcpy(&g->x[j], &pair, sizeof pair);
    }
}

// out[n] += the sum over blocks of partial[blocks, n], in f32, in an order that depends on `blocks` alone; out is f32
// or bf16, rounded once (reduce.cu).
void cuda_add_column_sums(Device *d, Tensor out, const float *partial, int64_t blocks, int64_t n);
