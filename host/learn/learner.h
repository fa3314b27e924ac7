// The learner: an engine, with gradients, optimizer state and the inputs of a micro-batch.
#pragma once
#include "engine.h"

// One micro-batch on the device: T packed tokens, and the N positions whose next token is scored. The tokens are
// divided into P parts. A sequence that shares no prompt is one part. Where several share their first tokens, the
// shared prefix is one part, and the rest of each sequence another. So B sequences have P <= 2 B parts.
typedef struct {
    Activations acts;
    Tensor ids, pos, seq, prefix;               // [T] [T] [P+1] [P] I32
    Tensor rows, target;                        // [N] I32: hidden row, token to predict
    Tensor logp, lse, entropy, dlogp, dentropy; // [N] F32
    Tensor old_logp, ref_logp;                  // [N] F32
    Tensor offsets, index, mask;                // [B+1] I32, [B] I32, [B] U8
    Tensor rewards, weights;                    // [S,n_rewards], [n_rewards] F32
    Tensor advantage;                           // [B] F32
    Tensor score, dscore; // [T,1] F32, [T,1] as model_score_backward has it: where it scores texts
    Tensor held;          // [RunShape.held] F32: what micro-batches leave for the host
} TrainWork;

typedef struct Learner {
    Engine engine;
    // Beside an adapter: grad has no memory but its adapter's; the reference is the policy's weights with the adapter
    // of the start (none, where it was made for this run).
    Model grad, reference;
    Model start;            // the same, for judges, where the reference does not serve them; else empty
    uint32_t reference_sum; // of its weights, where they are read again: see learner_reference
    int64_t first;          // the element of the slab that this rank's slice of the optimizer's state begins at
    // [slice of the slab]. master: only where weights are bf16 and state f32; U16: the low halves of masters (adamw.h).
    Tensor master, moment1, moment2;
    Tensor norms; // [1] I64 (f64 bits): see optim.c
    // Of this step's gradients: how many layers (L, ..., -1) are on their way over the ranks, and what went wrong
    // there.
    int reduced;
    Error reduce_error;
    TrainWork work;
    Staging feed; // a micro-batch's inputs on their way
} Learner;
// What engine_describe and engine_open do, for a shape that may train too.
bool learner_describe(Learner *l, Device *d, const Config *c, RunShape shape, Error *e);
bool learner_open(Learner *l, const Config *c, RunShape shape, Error *e);
void learner_close(Learner *l);
// Makes l->reference ready to run; to be called before it does. Where its weights lie in the gradients' memory they are
// read again, and l->grad is void. False after filling *e: they cannot be read, or are other weights than those the run
// began with.
bool learner_reference(Learner *l, Error *e);
