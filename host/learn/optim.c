// The optimizer: learning-rate schedule, global gradient norm, AdamW over the two halves of the slab that is trained.
//
// Several ranks divide the slab (ZeRO stage 1, Rajbhandari et al. 2020): each adds up the gradients of its slice, keeps
// the state of its slice, updates its slice of the weights, and gets the other slices back. A lone rank's slice is all.
//
// Gradients are added up layer by layer, from the last to the first, as the backward pass of the last micro-batch
// leaves them: on GPUs beside the pass through the layers below, on the CPU, whose cores would have to do both, after
// it. The parts and their order are the same on every rank and in every run; the sums are those of the slab as a whole.
#include "optim.h"
#include "device.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int optim_step_rows(const Config *c) {
    return (int)(c->per_device_train_batch_size * c->gradient_accumulation_steps * c->gpus);
}

int64_t optim_total_steps(const Config *c, int64_t steps_per_epoch) {
    if (c->max_steps > 0) return c->max_steps;
    int64_t steps = (int64_t)ceil(c->num_train_epochs * (double)steps_per_epoch - 1e-9); // a part of a step is a step
    return steps > 1 ? steps : 1;
}

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

static double sum_of_squares(const Learner *l, Tensor x) {
    double s;
    l->engine.device->sumsq(l->engine.device, l->norms, x);
    l->engine.device->sync(l->engine.device);
    l->engine.device->copy(l->engine.device, &s, l->norms.data, sizeof s);
    return s;
}

// Finds which of the elements [first, end) lie in this rank's slice; none: [0, 0).
static Span own_span(const Learner *l, int64_t first, int64_t end) {
    int64_t own = l->first, own_end = l->first + l->moment1.dim[0];
    Span s = {first > own ? first : own, end < own_end ? end : own_end};
    return s.first < s.end ? s : (Span){0, 0};
}

// The elements s of the slab in a flat tensor, which begins with element `base` of the slab. NONE stays NONE.
static Tensor slice_of(Tensor x, Span s, int64_t base) {
    return present(x) ? tensor_rows(x, s.first - base, s.end - s.first) : NONE;
}

// Finds the first parameter whose gradient is not finite, over all ranks.
static bool first_bad(Learner *l, const char **bad, Error *e) {
    Trained grad = model_trained(&l->grad);
    int32_t found = grad.n_params, *all = xcalloc((size_t)comm_world(l->engine.comm), sizeof *all);
    for (int i = 0; i < grad.n_params && found == grad.n_params; i++) {
        const Param *p = &grad.params[i];
        Span s = own_span(l, p->offset, p->offset + tensor_numel(p->t));
        if (s.first < s.end && !isfinite(sum_of_squares(l, slice_of(grad.slab, s, 0)))) found = i;
    }
    bool ok = comm_gather(l->engine.comm, "first bad gradient", &found, sizeof found, all, e);
    for (int k = 0; k < comm_world(l->engine.comm); k++)
        if (all[k] < found) found = all[k];
    free(all);
    *bad = found < grad.n_params ? grad.params[found].name : NULL;
    return ok;
}

static const char reduction[] = "gradients"; // the collective's name

static bool reduce_span(Learner *l, Span s, Error *e) {
    return s.first == s.end ||
           comm_reduce_part(l->engine.comm, reduction, model_trained(&l->grad).slab, s.first, s.end - s.first, e);
}

// Starts adding up the gradients of the layer that is next. What does not decay is short, and goes with the embedding.
static bool reduce_next(Learner *l, Error *e) {
    Device *d = l->engine.device;
    Trained grad = model_trained(&l->grad);
    int layer = l->grad.dims.L - l->reduced++;
    char name[48];
    snprintf(name, sizeof name, "gradients of layer %d over ranks", layer);
    device_range(d, name);
    bool ok = reduce_span(l, model_part(&l->grad, layer), e) &&
              (layer >= 0 || reduce_span(l, (Span){grad.n_decay, grad.slab.dim[0]}, e));
    device_range(d, NULL);
    return ok;
}

void optim_layer_done(void *learner, int layer) {
    Learner *l = learner;
    if (!l->engine.comm || !l->engine.comm->beside || l->reduce_error.code != EXIT_OK) return;
    if (layer != l->grad.dims.L - l->reduced) die("gradients of layer %d come out of turn", layer);
    reduce_next(l, &l->reduce_error);
}

bool optim_reduce(Learner *l, Error *e) {
    Comm *c = l->engine.comm;
    if (!c) return true;
    if (!device_ok(l->engine.device, e)) return false;
    bool ok = l->reduce_error.code == EXIT_OK;
    if (!ok) *e = l->reduce_error;
    while (ok && l->reduced < l->grad.dims.L + 2) ok = reduce_next(l, e);
    l->reduced = 0;
    return ok && comm_reduce_end(c, reduction, model_trained(&l->grad).slab, e);
}

bool optim_grad_norm(Learner *l, double *norm, const char **bad, Error *e) {
    *bad = NULL;
    Tensor grad = model_trained(&l->grad).slab;
    double squares = sum_of_squares(l, slice_of(grad, own_span(l, 0, grad.dim[0]), 0));
    if (!comm_all_reduce(l->engine.comm, "gradient norm", &squares, 1, e)) return false;
    *norm = sqrt(squares);
    return isfinite(*norm) || first_bad(l, bad, e);
}

bool optim_step(Learner *l, double learning_rate, double grad_norm, int64_t update, Error *e) {
    const Config *c = l->engine.cfg;
    double max = c->max_grad_norm;
    double scale = max > 0 && grad_norm > max ? max / (grad_norm + 1e-6) : 1; // as torch's clip_grad_norm_
    Trained w = model_trained(&l->engine.policy);
    Tensor grad = model_trained(&l->grad).slab;
    int64_t n = w.slab.dim[0], decaying = w.n_decay;
    for (int plain = 0; plain < 2; plain++) {
        Span s = plain ? own_span(l, decaying, n) : own_span(l, 0, decaying);
        if (s.first == s.end) continue;
        AdamParams p = {.lr = learning_rate,
                        .beta1 = c->adam_beta1,
                        .beta2 = c->adam_beta2,
                        .eps = c->adam_epsilon,
                        .weight_decay = plain ? 0 : c->weight_decay,
                        .grad_scale = scale,
                        .step = update,
                        .seed = (uint64_t)c->seed,
                        .first_elem = s.first};
        l->engine.device->adamw(l->engine.device, slice_of(w.slab, s, 0), slice_of(l->master, s, l->first),
                                slice_of(l->moment1, s, l->first), slice_of(l->moment2, s, l->first),
                                slice_of(grad, s, 0), p);
    }
    return comm_all_gather(l->engine.comm, "parameters", w.slab, e);
}
