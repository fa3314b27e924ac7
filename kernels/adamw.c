// AdamW (Loshchilov & Hutter 2019) as torch.optim.AdamW computes it:
//
//   p *= 1 - lr * decay;   m += (1 - b1)(g - m);   v = b2 v + (1 - b2) g^2;
//   p -= lr / (1 - b1^step) * m / (sqrt(v) / sqrt(1 - b2^step) + eps)
//
// p is the f32 master where there is one, and w its rounding; else p is w.
#include "parallel.h"
#include "philox.h"
#include "simd.h"

#define BLOCK 4096 // elements a thread takes at a time

typedef struct {
    float grad_scale, keep, new1, beta2, new2, step_size, inv_bias, eps;
} Step;

static Step step_of(AdamParams p) {
    double bias1 = 1 - pow(p.beta1, (double)p.step), bias2 = 1 - pow(p.beta2, (double)p.step);
    return (Step){.grad_scale = (float)p.grad_scale,
                  .keep = (float)(1 - p.lr * p.weight_decay),
                  .new1 = (float)(1 - p.beta1),
                  .beta2 = (float)p.beta2,
                  .new2 = (float)(1 - p.beta2),
                  .step_size = (float)(p.lr / bias1),
                  .inv_bias = (float)(1 / sqrt(bias2)),
                  .eps = (float)p.eps};
}

// Philox4x32-10 of philox.h for sixteen counters at a time.
typedef uint64_t vul __attribute__((vector_size(128), may_alias));
typedef struct {
    vu v[4];
} Noise;

// The noise of sixteen elements from `first` on: their counters are {element, step}, the key is the seed. The top bit
// keeps them apart from the counters of sampling, where it is a sign and never set.
static inline Noise noise_of(const AdamParams *p, uint64_t first) {
    const vul lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vul element = lane + first;
    vu a = __builtin_convertvector(element, vu), b = __builtin_convertvector(element >> 32, vu);
    vu c = (vu){0} + (uint32_t)p->step, d = (vu){0} + (uint32_t)((uint64_t)p->step >> 32 | 0x80000000);
    uint32_t k0 = (uint32_t)p->seed, k1 = (uint32_t)(p->seed >> 32);
    for (int round = 0; round < 10; round++) {
        vul x = __builtin_convertvector(a, vul) * PHILOX_M0, y = __builtin_convertvector(c, vul) * PHILOX_M1;
        a = __builtin_convertvector(y >> 32, vu) ^ b ^ k0;
        b = __builtin_convertvector(y, vu);
        c = __builtin_convertvector(x >> 32, vu) ^ d ^ k1;
        d = __builtin_convertvector(x, vu);
        k0 += PHILOX_W0;
        k1 += PHILOX_W1;
    }
    return (Noise){{a, b, c, d}};
}

// Stochastic rounding to bf16: up with the probability of the distance from below. NaN and infinity stay.
static inline vf round_stochastic(vf x, vu noise) {
    vu u = (vu)x, finite = (vu)((u & 0x7f800000) != 0x7f800000);
    return (vf)((u + (noise & 0xffff & finite)) & (0xffff0000 | ~finite));
}

static inline vf vf_sqrt(vf x) {
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
}

// State in bf16 without a master would lose what is below half a unit in its last place, so it is rounded
// stochastically; the f32 master's copy w is rounded to nearest.
ALWAYS_INLINE void adamw_block(Tensor w, DType tw, Tensor master, Tensor m, Tensor v, DType state, Tensor dw, DType tg,
                               const AdamParams *params, Step s, int64_t begin, int64_t end) {
    bool mastered = present(master), noisy = state == BF16 || (tw == BF16 && !mastered);
    void *home = mastered ? master.data : w.data;
    for (int64_t i = begin; i < end; i += LANES) {
        int64_t n = end - i;
        vf g = row_load_part(dw.data, tg, i, n) * s.grad_scale;
        vf a = row_load_part(m.data, state, i, n), b = row_load_part(v.data, state, i, n);
        vf p = row_load_part(home, mastered ? F32 : tw, i, n);
        a = vf_fma(g - a, vf_set(s.new1), a);
        b = vf_fma(g * g, vf_set(s.new2), b * s.beta2);
        p = p * s.keep - s.step_size * (a / vf_fma(vf_sqrt(b), vf_set(s.inv_bias), vf_set(s.eps)));
        if (noisy) {
            Noise noise = noise_of(params, (uint64_t)(params->first_elem + i));
            if (state == BF16) a = round_stochastic(a, noise.v[0]), b = round_stochastic(b, noise.v[1]);
            if (tw == BF16 && !mastered) p = round_stochastic(p, noise.v[2]);
        }
        row_store_part(m.data, state, i, n, a);
        row_store_part(v.data, state, i, n, b);
        if (mastered) row_store_part(master.data, F32, i, n, p);
        row_store_part(w.data, tw, i, n, p);
    }
}

void cpu_adamw(Device *d, Tensor w, Tensor master, Tensor m, Tensor v, Tensor dw, AdamParams p) {
    int64_t n = tensor_numel(w);
    Step s = step_of(p);
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (int64_t b = 0; b < n; b += BLOCK) {
        int64_t end = b + BLOCK < n ? b + BLOCK : n;
        if (w.dtype == F32 && m.dtype == F32 && dw.dtype == F32)
            adamw_block(w, F32, master, m, v, F32, dw, F32, &p, s, b, end);
        else if (m.dtype == F32) adamw_block(w, w.dtype, master, m, v, F32, dw, dw.dtype, &p, s, b, end);
        else adamw_block(w, w.dtype, master, m, v, BF16, dw, dw.dtype, &p, s, b, end);
    }
}
