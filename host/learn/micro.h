// Micro-batches: sequences packed back to back, and the model run over them, forward and backward.
#pragma once
#include "learner.h"

// The sequences of a micro-batch, back to back on the host, before they go to the device. See TrainWork for "part".
typedef struct {
    int64_t max_tokens, max_sequences, T, P, B, N;
    int64_t alone;          // what T would be if no sequence shared anything
    int32_t *ids, *pos;     // [T]
    int32_t *rows, *target; // [N]
    int32_t *seq, *prefix;  // [P+1] where parts begin among the tokens; [P] the part with a part's prefix, < 0: none
    int32_t *offsets;       // [B+1] where sequences begin among the scored positions
    int32_t shared;         // the part with the prefix of the sequences that are added now, < 0: none
} Packing;
Packing packing_new(int64_t tokens, int64_t sequences);
void packing_free(Packing *p);
void packing_clear(Packing *p);
bool packing_fits(const Packing *p, int64_t rows); // whether one more sequence of so many rows fits
// Makes these n ids the prefix of the sequences added from here on (up to packing_clear); it is computed once for all
// of them. n = 0: they have no common prefix. False where it does not fit.
bool packing_prefix(Packing *p, const int32_t *ids, int64_t n);
// Adds a sequence of n ids, those of the prefix not among them; ids from first_target on are scored (where `wanted` is
// given, only those it marks). False, nothing added, where it does not fit.
bool packing_add(Packing *p, const int32_t *ids, int64_t n, int64_t first_target, const uint8_t *wanted);
// How many of the sequences seq[0..n) the next micro-batch of at most `size` sequences takes. Neighbours of one group
// (seq[i] / group is the same) stay together, or are cut into as few pieces as possible.
int micro_take(const int *seq, int n, int size, int group);
// Starts copying the packed micro-batch to the device; the result's tensors have its live sizes. Waits only where the
// device is two micro-batches behind.
TrainWork micro_pack(Learner *l, const Packing *p);
// Starts copying a further input of this micro-batch: the bytes of `to`, from host memory. Waits as micro_pack does.
void micro_upload(Learner *l, Tensor to, const void *from);
// Puts x[n] F32 into work.held, from element `at` on, without waiting for the device.
void micro_hold(Learner *l, int64_t at, Tensor x);
// Copies work.held[0..end) to the host, once the device is done.
void micro_fetch(Learner *l, int64_t end, float *to);
// Computes the hidden states of the packed tokens under m (w->acts.out), which micro_backward needs beside lse and
// entropy.
void micro_hidden(Device *d, const Model *m, TrainWork *w);
// Computes the hidden states, then logp, lse and entropy of the scored positions.
void micro_forward(Device *d, const Model *m, TrainWork *w, float temperature);
// The score of each row, w->score, where m's head is one.
void micro_score(Device *d, const Model *m, TrainWork *w);
// Adds the gradients of w->dscore to l->grad. last: it is the last of this rank's micro-batches of an optimizer step,
// so that gradients are final layer by layer, and go to optim_layer_done; optim_reduce must follow.
void micro_score_backward(Learner *l, TrainWork *w, bool last);
// Adds the gradients of w->dlogp (and w->dentropy) to l->grad; `last` as above.
void micro_backward(Learner *l, TrainWork *w, float temperature, bool with_entropy, bool last);
