// The scalars of an AdamW step, rounded to f32 in the same way for both devices; and what a split master is.
//
// A split master stores an f32 weight p in 16 bits beside its bf16 rounding w. Rounding p to the nearest bf16 either
// drops p's low half, or drops it and adds one to the high half. So w, the low half and whether one was added give p
// back exactly: p = (w, low) - (added ? 2^16 : 0). The low half is the split master. It alone would not do: a w whose
// last bit is 0 is the nearest bf16 to 2^16 + 1 floats, the ties on both sides among them. The bit that says whether
// one was added is kept in the sign of v, which is a mean of squares and so never negative.
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
