// SwiGLU of one element, for the op itself and for the product that computes it from its own outputs.
#pragma once
#include "ptx.cuh"

// expf errs by 1 ulp, the quotient too. Where e^-g overflows the quotient is 0.
static __device__ __forceinline__ float sigmoid(float x) { return reciprocal_approx(1.0f + expf(-x)); }

// silu(g) * u
static __device__ __forceinline__ float gated(float g, float u) { return g * sigmoid(g) * u; }
