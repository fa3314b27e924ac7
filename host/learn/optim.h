// The optimizer: the learning rate of a step, the norm of the gradients, and AdamW.
#pragma once
#include "learner.h"

// Rows of an optimizer step, of all ranks together: completions, examples, pairs.
int optim_step_rows(const Config *c);
// Optimizer steps of a whole run, at least 1: max_steps, or num_train_epochs rounded up to whole steps as transformers
// does.
int64_t optim_total_steps(const Config *c, int64_t steps_per_epoch);
// Learning rate of optimizer step `step` (from 0) of `total`: transformers' schedules.
double optim_learning_rate(const Config *c, int64_t step, int64_t total);
// Told by the backward pass of a step's last micro-batch (LayerDone) which gradients are final. Those start on their
// way over the ranks, where the device can go on with the pass beside that.
void optim_layer_done(void *learner, int layer);
// Makes this rank's slice of the gradients their sum over ranks; the rest is void then. Every rank calls it after its
// micro-batches and before any other collective: also one that was stopped between them, as others may have begun. The
// sums of a step that does not count are dropped. False after filling *e.
bool optim_reduce(Learner *l, Error *e);
// Returns the global L2 norm of the gradients, after optim_reduce. Where it is not finite, *bad is the name of the
// first tensor at fault. False after filling *e.
bool optim_grad_norm(Learner *l, double *norm, const char **bad, Error *e);
// One AdamW update, gradients clipped to max_grad_norm; `update` counts from 1. Each rank updates its slice of the
// weights, then gets the others'. False after filling *e.
bool optim_step(Learner *l, double learning_rate, double grad_norm, int64_t update, Error *e);
