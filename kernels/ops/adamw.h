// What a step of AdamW needs beside its tensors, as both devices round it to f32.
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
