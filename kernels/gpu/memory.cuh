// For kernels bound by memory: groups of neighbouring elements that move in one instruction.
//
// A kernel gives every thread groups of E elements, E chosen so that a group of its widest type is 16 bytes. Which thread
// owns which elements never depends on where the memory lies: where it cannot be read in groups the same thread reads the
// same elements one by one, and every result has the same bits.
#pragma once
#include "common.cuh"

// E for storage types T...
template <typename... T> struct GroupOf {
    static constexpr size_t widest() {
        size_t sizes[] = {sizeof(T)...}, most = 0;
        for (size_t s : sizes) most = s > most ? s : most;
        return most;
    }
    static constexpr int E = 16 / (int)widest();
};

template <typename T, int E> struct alignas(E * sizeof(T) < 16 ? E * sizeof(T) : 16) Group { T x[E]; };

// Whether rows of `width` elements that begin at p can be read in groups of E; true where there is no p.
template <int E, typename T> static bool in_groups(const T *p, int64_t width) {
    return (uintptr_t)p % alignof(Group<T, E>) == 0 && width % E == 0;
}

// The group at p, of which `left` elements exist; others are 0. `whole`: in_groups holds, or held for the array's start
// and p is a multiple of E from there. `plain`: known when compiled, and that `left` is none or a multiple of E.
template <int E, bool plain = false, typename T>
static __device__ __forceinline__ Group<T, E> group_load(const T *p, int64_t left, bool whole) {
    if (plain ? left > 0 : whole && left >= E) return *(const Group<T, E> *)p;
    Group<T, E> g = {};
#pragma unroll
    for (int j = 0; !plain && j < E; j++)
        if (j < left) g.x[j] = p[j];
    return g;
}
template <int E, bool plain = false, typename T>
static __device__ __forceinline__ void group_store(T *p, int64_t left, bool whole, Group<T, E> g) {
    if (plain ? left > 0 : whole && left >= E) {
        *(Group<T, E> *)p = g;
        return;
    }
#pragma unroll
    for (int j = 0; !plain && j < E; j++)
        if (j < left) p[j] = g.x[j];
}

// out[n] += the sum over blocks of part[blocks, n] f32, in an order that `blocks` alone fixes; out is f32 or bf16, rounded
// once (reduce.cu).
void cuda_add_column_sums(Device *d, Tensor out, const float *part, int64_t blocks, int64_t n);
