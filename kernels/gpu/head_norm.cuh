// RMSNorm of one head by a warp, for the op qk_norm and for decode, which norms its own rows: the same bits.
#pragma once
#include "common.cuh"

// 1 / sqrt(mean(x^2) + eps) of d elements, of whose squares each lane has summed every 32nd, by fmaf from 0 upwards.
static __device__ __forceinline__ float head_rstd(float squares, int d, float eps) {
    return 1.0f / sqrtf(warp_sum(squares) / (float)d + eps);
}
template <typename T, typename W> static __device__ __forceinline__ T head_normed(T x, float rstd, W w) {
    return from_float<T>(to_float(x) * rstd * to_float(w));
}
