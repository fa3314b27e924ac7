// AdamW (Loshchilov & Hutter 2019), one launch for all the parameters of a slice of the slab:
//
//   p *= 1 - lr * decay;   m += (1 - b1)(g - m);   v = b2 v + (1 - b2) g^2;
//   p -= lr / (1 - b1^step) * m / (sqrt(v) / sqrt(1 - b2^step) + eps)
//
// p is the f32 master where there is one, and w its rounding; else p is w. State in bf16 is rounded stochastically, with
// the bits of the same Philox counters as on the CPU (adamw.c): {element / 2, step} under the key `seed`, so that a slice
// gives what the whole gives. A thread owns a group of elements and goes on by a grid's width. Moved an element: 30 bytes
// with f32 masters, moments and gradients, 14 with bf16 state and gradients.
#include "adamw.h"
#include "memory.cuh"
#include "philox.h"

#define THREADS 256

// Stochastic rounding to bf16: up with the probability of the distance from below. NaN and infinity stay.
static __device__ __forceinline__ Bf16 round_stochastic(float x, uint32_t bits16) {
    uint32_t u = __float_as_uint(x);
    bool finite = (u & 0x7f800000) != 0x7f800000;
    if (finite) u += bits16;
    else if (u & 0x007fffff) u |= 0x00400000; // what is left of a NaN must not be infinity
    return __ushort_as_bfloat16((unsigned short)(u >> 16));
}
template <typename T> static __device__ __forceinline__ T rounded(float x, uint32_t bits16);
template <> __device__ __forceinline__ float rounded<float>(float x, uint32_t) { return x; }
template <> __device__ __forceinline__ Bf16 rounded<Bf16>(float x, uint32_t bits16) {
    return round_stochastic(x, bits16);
}

// w[n], master[n] f32 if `mastered`, m[n], v[n], dw[n]; `first` is the index of element 0 for the random numbers.
template <typename W, bool mastered, typename S, typename G>
static __global__ void __launch_bounds__(THREADS)
    adamw_kernel(W *w, float *master, S *m, S *v, const G *dw, int64_t n, AdamStep s, uint64_t first, uint64_t step,
                 uint64_t seed, bool whole) {
    constexpr int E = mastered ? GroupOf<W, S, G, float>::E : GroupOf<W, S, G>::E;
    constexpr bool noisy = sizeof(S) == 2 || (sizeof(W) == 2 && !mastered);
    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * E; i < n; i += (int64_t)gridDim.x * THREADS * E) {
        int64_t left = n - i;
        Group<G, E> g = group_load<E>(dw + i, left, whole);
        Group<S, E> a = group_load<E>((const S *)m + i, left, whole), b = group_load<E>((const S *)v + i, left, whole);
        Group<W, E> rounding = {};
        Group<float, E> home = {};
        if (mastered) home = group_load<E>((const float *)master + i, left, whole);
        else rounding = group_load<E>((const W *)w + i, left, whole);
        Philox noise = {};
#pragma unroll
        for (int j = 0; j < E; j++) {
            uint64_t element = first + (uint64_t)(i + j), pair = element / 2;
            if (noisy && (j == 0 || element % 2 == 0)) {
                Philox counter = {
                    {(uint32_t)pair, (uint32_t)(pair >> 32), (uint32_t)step, (uint32_t)(step >> 32) | 0x80000000u}};
                noise = philox4x32(counter, seed);
            }
            int half = element % 2 ? 16 : 0;
            float gradient = to_float(g.x[j]) * s.grad_scale, m1 = to_float(a.x[j]), m2 = to_float(b.x[j]);
            float p = mastered ? home.x[j] : to_float(rounding.x[j]);
            m1 = fmaf(gradient - m1, s.new1, m1);
            m2 = fmaf(gradient * gradient, s.new2, m2 * s.beta2);
            p = p * s.keep - s.step_size * (m1 / fmaf(sqrtf(m2), s.inv_bias, s.eps));
            a.x[j] = rounded<S>(m1, noise.v[1] >> half & 0xffff);
            b.x[j] = rounded<S>(m2, noise.v[2] >> half & 0xffff);
            home.x[j] = p;
            rounding.x[j] = mastered ? from_float<W>(p) : rounded<W>(p, noise.v[0] >> half & 0xffff);
        }
        group_store<E>(m + i, left, whole, a);
        group_store<E>(v + i, left, whole, b);
        if (mastered) group_store<E>(master + i, left, whole, home);
        group_store<E>(w + i, left, whole, rounding);
    }
}

template <typename W, bool mastered, typename S, typename G>
static void adamw(Device *d, Tensor w, Tensor master, Tensor m, Tensor v, Tensor dw, const AdamParams *p) {
    constexpr int E = mastered ? GroupOf<W, S, G, float>::E : GroupOf<W, S, G>::E;
    int64_t n = tensor_numel(w);
    bool whole = in_groups<E>(data_of<W>(w), 0) && in_groups<E>(data_of<float>(master), 0) &&
                 in_groups<E>(data_of<S>(m), 0) && in_groups<E>(data_of<S>(v), 0) && in_groups<E>(data_of<G>(dw), 0);
    LAUNCH(d, (adamw_kernel<W, mastered, S, G>), grid_for(d, n, THREADS * E), THREADS, 0, data_of<W>(w),
           data_of<float>(master), data_of<S>(m), data_of<S>(v), data_of<G>(dw), n, adam_step(p),
           (uint64_t)p->first_elem, (uint64_t)p->step, p->seed, whole);
}

void cuda_adamw(Device *d, Tensor w, Tensor master, Tensor m, Tensor v, Tensor dw, AdamParams p) {
    DISPATCH2(w.dtype, W, m.dtype, S, DISPATCH(dw.dtype, G, {
                  if (present(master)) adamw<W, true, S, G>(d, w, master, m, v, dw, &p);
                  else adamw<W, false, S, G>(d, w, NONE, m, v, dw, &p);
              }));
}
