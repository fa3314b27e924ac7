// AdamW (Loshchilov & Hutter 2019) as torch.optim.AdamW computes it:
//
//   p *= 1 - lr * decay;   m += (1 - b1)(g - m);   v = b2 v + (1 - b2) g^2;
//   p -= lr / (1 - b1^step) * m / (sqrt(v) / sqrt(1 - b2^step) + eps)
//
// p is the f32 master where there is one, and w its rounding; else p is w.
#include "parallel.h"
#include "simd.h"

#define BLOCK 4096 // elements a thread takes at a time

typedef struct {
    float grad_scale, keep, new1, beta2, new2, step_size, inv_bias, eps;
} Step;

static Step step_of(AdamParams p) {
    double bias1 = 1 - pow(p.beta1, (double)p.step), bias2 = 1 - pow(p.beta2, (double)p.step);
    return (Step){.grad_scale = p.grad_scale,
                  .keep = (float)(1 - (double)p.lr * p.weight_decay),
                  .new1 = (float)(1 - (double)p.beta1),
                  .beta2 = p.beta2,
                  .new2 = (float)(1 - (double)p.beta2),
                  .step_size = (float)(p.lr / bias1),
                  .inv_bias = (float)(1 / sqrt(bias2)),
                  .eps = p.eps};
}

static inline vf vf_sqrt(vf x) {
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
}

static void adamw_block(Tensor w, Tensor master, Tensor m, Tensor v, Tensor dw, Step s, int64_t begin, int64_t end) {
    Tensor home = present(master) ? master : w; // what is updated
    for (int64_t i = begin; i < end; i += LANES) {
        int64_t n = end - i;
        vf g = row_load_part(dw.data, dw.dtype, i, n) * s.grad_scale;
        vf a = row_load_part(m.data, m.dtype, i, n), b = row_load_part(v.data, v.dtype, i, n);
        vf p = row_load_part(home.data, home.dtype, i, n);
        a = vf_fma(g - a, vf_set(s.new1), a);
        b = vf_fma(g * g, vf_set(s.new2), b * s.beta2);
        p = p * s.keep - s.step_size * (a / vf_fma(vf_sqrt(b), vf_set(s.inv_bias), vf_set(s.eps)));
        row_store_part(m.data, m.dtype, i, n, a);
        row_store_part(v.data, v.dtype, i, n, b);
        row_store_part(home.data, home.dtype, i, n, p);
        if (present(master)) row_store_part(w.data, w.dtype, i, n, p);
    }
}

void cpu_adamw(Device *d, Tensor w, Tensor master, Tensor m, Tensor v, Tensor dw, AdamParams p) {
    int64_t n = tensor_numel(w);
    Step s = step_of(p);
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (int64_t b = 0; b < n; b += BLOCK) adamw_block(w, master, m, v, dw, s, b, b + BLOCK < n ? b + BLOCK : n);
}
