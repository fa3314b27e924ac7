// What a step of AdamW needs beside its tensors, as both devices round it to f32.
//
// A split master. Rounding p, an f32, to w, the nearest bf16, either drops p's low half or drops it and adds one to the high
// half. So the low half, and whether one was added, give p back exactly: p = (w, low) - (added ? 2^16 : 0). The low half is
// kept as 16 bits. They alone would not do: a w whose last bit is 0 is the nearest to 2^16 + 1 floats, the ties on both sides
// among them. The one bit more is the sign of v, which is a mean of squares and has no use for it.
#pragma once
#include "ops.h"
#include <math.h>

typedef struct {
    float grad_scale, keep, new1, beta2, new2, step_size, inv_bias, eps;
} AdamStep;

static inline AdamStep adam_step(const AdamParams *p) {
    double bias1 = 1 - pow(p->beta1, (double)p->step), bias2 = 1 - pow(p->beta2, (double)p->step);
    AdamStep s = {};
    s.grad_scale = (float)p->grad_scale;
    s.keep = (float)(1 - p->lr * p->weight_decay);
    s.new1 = (float)(1 - p->beta1);
    s.beta2 = (float)p->beta2;
    s.new2 = (float)(1 - p->beta2);
    s.step_size = (float)(p->lr / bias1);
    s.inv_bias = (float)(1 / sqrt(bias2));
    s.eps = (float)p->eps;
    return s;
}
