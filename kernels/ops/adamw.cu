// AdamW (Loshchilov & Hutter 2019), one launch for all the parameters of a slice of the slab:
//
//   p *= 1 - lr * decay;   m += (1 - b1)(g - m);   v = b2 v + (1 - b2) g^2;
//   p -= lr / (1 - b1^step) * m / (sqrt(v) / sqrt(1 - b2^step) + eps)
//
// p is the f32 master copy of the weight where there is one, whole or split (adamw.h), and w is p rounded; else p is w
// itself. State in bf16 is rounded stochastically, with the same Philox bits as on the CPU (adamw.c): they depend on
// the element's index, the step and the seed alone, so that updating slices gives what updating the whole gives. A
// thread owns a group of elements and strides by the grid. Bytes moved for an element: 30 with f32 masters, moments and
// gradients, 28 with split masters, 14 with bf16 state and gradients.
#include "adamw.h"
#include "memory.cuh"
#include "philox.h"

#define THREADS 256

// Rounds to bf16 stochastically: up with a probability that is the distance from the value below. NaN and infinity
// stay.
static __device__ __forceinline__ Bf16 round_stochastic(float x, uint32_t bits16) {
    uint32_t u = __float_as_uint(x);
    bool finite = (u & 0x7f800000) != 0x7f800000;
    if (finite) u += bits16;
    else if (u & 0x007fffff) u |= 0x00400000; // the high half of a NaN could be infinity's
    return __ushort_as_bfloat16((unsigned short)(u >> 16));
}
template <typename T> static __device__ __forceinline__ T rounded(float x, uint32_t bits16);
template <> __device__ __forceinline__ float rounded<float>(float x, uint32_t) { return x; }
template <> __device__ __forceinline__ Bf16 rounded<Bf16>(float x, uint32_t bits16) {
    return round_stochastic(x, bits16);
}

// Where p is stored: in w, in an f32 master, or split into w and the low half of a master.
enum Home { OWN, WHOLE, SPLIT };
template <Home home> struct MasterOf { typedef float T; };
template <> struct MasterOf<SPLIT> { typedef uint16_t T; };

static __device__ __forceinline__ uint32_t bits_of(float x) { return __float_as_uint(x); }
static __device__ __forceinline__ uint32_t bits_of(Bf16 x) { return (uint32_t)__bfloat16_as_ushort(x) << 16; }
// p from w and the low half of a split master; clears the sign of v, which is the bit that was missing (adamw.h).
template <typename W> static __device__ __forceinline__ float joined(W w, uint32_t low, float *v) {
    uint32_t up = __float_as_uint(*v) & 0x80000000u;
    *v = __uint_as_float(__float_as_uint(*v) ^ up);
    return __uint_as_float((bits_of(w) | low) - (up >> 15));
}
// v with its sign set where rounding p to bf16 adds one to its high half.
static __device__ __forceinline__ float signed_by(float v, float p) {
    uint32_t u = __float_as_uint(p), up = ((u + 0x7fffu + (u >> 16 & 1u)) ^ u) >> 16 << 31;
    return __uint_as_float(__float_as_uint(v) | up);
}

// Updates w[n], master[n] (unless OWN), m[n] and v[n] with the gradient dw[n]. `first`: the index of element 0 in the
// whole, for the random numbers.
template <typename W, Home home, typename S, typename G>
static __global__ void __launch_bounds__(THREADS)
    adamw_kernel(W *w, typename MasterOf<home>::T *master, S *m, S *v, const G *dw, int64_t n, AdamStep s,
                 uint64_t first, uint64_t step, uint64_t seed, bool whole) {
    typedef typename MasterOf<home>::T M;
    constexpr int E = home == WHOLE ? GroupOf<W, S, G, float>::E : GroupOf<W, S, G>::E;
    constexpr bool noisy = sizeof(S) == 2 || (sizeof(W) == 2 && home == OWN);
    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * E; i < n; i += (int64_t)gridDim.x * THREADS * E) {
        int64_t left = n - i;
        Group<G, E> g = group_load<E>(dw + i, left, whole);
        Group<S, E> a = group_load<E>((const S *)m + i, left, whole), b = group_load<E>((const S *)v + i, left, whole);
        Group<W, E> rounding = {};
        Group<M, E> kept = {};
        if (home != OWN) kept = group_load<E>((const M *)master + i, left, whole);
        if (home != WHOLE) rounding = group_load<E>((const W *)w + i, left, whole);
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
            float p = home == WHOLE ? (float)kept.x[j] : to_float(rounding.x[j]);
            if (home == SPLIT) p = joined(rounding.x[j], (uint32_t)kept.x[j], &m2);
            m1 = fmaf(gradient - m1, s.new1, m1);
            m2 = fmaf(gradient * gradient, s.new2, m2 * s.beta2);
            p = p * s.keep - s.step_size * (m1 / fmaf(sqrtf(m2), s.inv_bias, s.eps));
            if (home == SPLIT) m2 = signed_by(m2, p);
            a.x[j] = rounded<S>(m1, noise.v[1] >> half & 0xffff);
            b.x[j] = rounded<S>(m2, noise.v[2] >> half & 0xffff);
            kept.x[j] = home == SPLIT ? (M)(__float_as_uint(p) & 0xffff) : (M)p;
            rounding.x[j] = home != OWN ? from_float<W>(p) : rounded<W>(p, noise.v[0] >> half & 0xffff);
        }
        group_store<E>(m + i, left, whole, a);
        group_store<E>(v + i, left, whole, b);
        if (home != OWN) group_store<E>(master + i, left, whole, kept);
        group_store<E>(w + i, left, whole, rounding);
    }
}

template <typename W, Home home, typename S, typename G>
static void adamw(Device *d, Tensor w, Tensor master, Tensor m, Tensor v, Tensor dw, const AdamParams *p) {
    typedef typename MasterOf<home>::T M;
    constexpr int E = home == WHOLE ? GroupOf<W, S, G, float>::E : GroupOf<W, S, G>::E;
    int64_t n = tensor_numel(w);
    bool whole = in_groups<E>(data_of<W>(w), 0) && in_groups<E>(data_of<M>(master), 0) &&
                 in_groups<E>(data_of<S>(m), 0) && in_groups<E>(data_of<S>(v), 0) && in_groups<E>(data_of<G>(dw), 0);
    LAUNCH(d, (adamw_kernel<W, home, S, G>), grid_for(d, n, THREADS * E), THREADS, 0, data_of<W>(w), data_of<M>(master),
           data_of<S>(m), data_of<S>(v), data_of<G>(dw), n, adam_step(p), (uint64_t)p->first_elem, (uint64_t)p->step,
           p->seed, whole);
}

void cuda_adamw(Device *d, Tensor w, Tensor master, Tensor m, Tensor v, Tensor dw, AdamParams p) {
    if (master.dtype == U16) {
        if (w.dtype != BF16 || m.dtype != F32) die("adamw: a split master of %s weights", dtype_name(w.dtype));
        DISPATCH(dw.dtype, G, (adamw<Bf16, SPLIT, float, G>(d, w, master, m, v, dw, &p)));
        return;
    }
    DISPATCH2(w.dtype, W, m.dtype, S, DISPATCH(dw.dtype, G, {
                  if (present(master)) adamw<W, WHOLE, S, G>(d, w, master, m, v, dw, &p);
                  else adamw<W, OWN, S, G>(d, w, NONE, m, v, dw, &p);
              }));
}
