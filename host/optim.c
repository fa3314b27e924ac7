// The optimizer: learning-rate schedule, global gradient norm, AdamW over the two halves of the slab.
#include "host.h"
#include <math.h>

double optim_learning_rate(const Config *c, int64_t step, int64_t total) {
    int64_t warmup = c->warmup_steps > 0 ? c->warmup_steps : (int64_t)ceil(c->warmup_ratio * (double)total - 1e-9);
    if (step < warmup) return c->learning_rate * (double)step / (double)warmup;
    double rest = total > warmup ? (double)(total - warmup) : 1, t = (double)(step - warmup) / rest;
    switch (c->lr_scheduler_type) {
    case SCHEDULE_COSINE: return c->learning_rate * fmax(0, 0.5 * (1 + cos(M_PI * t)));
    case SCHEDULE_LINEAR: return c->learning_rate * fmax(0, 1 - t);
    default: return c->learning_rate;
    }
}

static double sum_of_squares(const Run *r, Tensor x) {
    double s;
    r->device->sumsq(r->device, r->norms, x);
    r->device->sync(r->device);
    r->device->copy(r->device, &s, r->norms.data, sizeof s);
    return s;
}

double optim_grad_norm(const Run *r, const char **bad) {
    double norm = sqrt(sum_of_squares(r, r->grad.slab));
    *bad = NULL;
    for (int i = 0; i < r->grad.n_params && !isfinite(norm) && !*bad; i++)
        if (!isfinite(sum_of_squares(r, r->grad.params[i].t))) *bad = r->grad.params[i].name;
    return norm;
}

// Elements [first, first + n) of a flat tensor; NONE stays NONE.
static Tensor slice(Tensor x, int64_t first, int64_t n) { return present(x) ? tensor_rows(x, first, n) : NONE; }

void optim_step(Run *r, double learning_rate, double grad_norm, int64_t update) {
    const Config *c = r->cfg;
    double max = c->max_grad_norm;
    double scale = max > 0 && grad_norm > max ? max / (grad_norm + 1e-6) : 1; // as torch's clip_grad_norm_
    int64_t n = r->policy.slab.dim[0], decaying = r->policy.n_decay;
    for (int part = 0; part < 2; part++) {
        int64_t first = part ? decaying : 0, count = part ? n - decaying : decaying;
        AdamParams p = {.lr = learning_rate,
                        .beta1 = c->adam_beta1,
                        .beta2 = c->adam_beta2,
                        .eps = c->adam_epsilon,
                        .weight_decay = part ? 0 : c->weight_decay,
                        .grad_scale = scale,
                        .step = update,
                        .seed = (uint64_t)c->seed,
                        .first_elem = first};
        r->device->adamw(r->device, slice(r->policy.slab, first, count), slice(r->master, first, count),
                         slice(r->moment1, first, count), slice(r->moment2, first, count),
                         slice(r->grad.slab, first, count), p);
    }
}
