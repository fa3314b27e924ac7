// RMSNorm of a row in groups of E elements, for the op rmsnorm and for products that norm their rows themselves
// (norm_matmul): the same bits.
//
// A row is cut into strips of WARP groups, a group for each lane of a warp. The squares of a lane's group are added by
// fmaf from 0 upwards, the lanes by warp_sum, the strips in ascending order. Strips from STRIPS on continue the sums of
// the lanes of strip 0, 1, ...
#pragma once
#include "memory.cuh"

#define STRIPS 32

// x + y, rounded as it is stored: the norm must see what later ops will read.
template <int E, typename T>
static __device__ __forceinline__ Group<T, E> group_sum(const Group<T, E> &x, const Group<T, E> &y) {
    float f[E], a[E];
    Group<T, E> sum;
    group_floats<E>(f, x), group_floats<E>(a, y);
#pragma unroll
    for (int j = 0; j < E; j++) f[j] += a[j];
    group_round<E>(&sum, f);
    return sum;
}
// sum + the squares of x
template <int E, typename T> static __device__ __forceinline__ float group_squares(float sum, const Group<T, E> &x) {
    float f[E];
    group_floats<E>(f, x);
#pragma unroll
    for (int j = 0; j < E; j++) sum = fmaf(f[j], f[j], sum);
    return sum;
}
// 1 / sqrt(mean(x^2) + eps) of a row of D elements, whose squares are added up.
static __device__ __forceinline__ float row_rstd(float squares, int D, float eps) {
    return 1.0f / sqrtf(squares / (float)D + eps);
}
// x rstd w, rounded
template <int E, typename T, typename W>
static __device__ __forceinline__ Group<T, E> group_normed(const Group<T, E> &x, float rstd, const Group<W, E> &w) {
    float f[E], scale[E];
    Group<T, E> out;
    group_floats<E>(f, x), group_floats<E>(scale, w);
#pragma unroll
    for (int j = 0; j < E; j++) f[j] = f[j] * rstd * scale[j];
    group_round<E>(&out, f);
    return out;
}
