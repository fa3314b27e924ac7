// What a command has open, and the memory it took.
#pragma once
#include "comm.h"
#include "config.h"
#include "hf.h"
#include "machine.h"
#include "model.h"
#include "prompt.h"
#include "rollout.h"
#include "staging.h"
#include "tokenizer.h"

// What a command needs; it decides the memory plan.
typedef struct {
    bool train;           // gradients, optimizer state, activations kept for a backward pass
    bool reference;       // a second copy of the weights, frozen
    int64_t train_tokens; // packed tokens of one micro-batch
    int train_seqs;       // sequences of one micro-batch
    int score_rows;       // sequences of one generation batch (rewards given to grpo_loss)
    int n_rewards;
    int64_t kept;         // numbers that stay on the device until the end of a step, or of a pass over a generation
    RolloutShape rollout; // slots 0: none
} RunShape;

#define PLAN_ROWS 16
typedef struct {
    struct {
        const char *what;
        size_t bytes;
    } row[PLAN_ROWS];
    int n;
    size_t params, work; // bytes of the two slabs; rollout and training take turns in `work`
} Plan;

// One micro-batch on the device: packed tokens, and the N positions whose next token is scored.
typedef struct {
    Activations acts;
    Tensor ids, pos, seq;                       // [T] [T] [B+1] I32
    Tensor rows, target;                        // [N] I32: hidden row, token to predict
    Tensor logp, lse, entropy, dlogp, dentropy; // [N] F32
    Tensor old_logp, ref_logp;                  // [N] F32
    Tensor offsets, index, mask;                // [B+1] I32, [B] I32, [B] U8
    Tensor rewards, weights;                    // [S,n_rewards], [n_rewards] F32
    Tensor advantage;                           // [B] F32
    Tensor kept;                                // [RunShape.kept] F32: what micro-batches leave for the host
} TrainWork;

typedef struct {
    const Config *cfg;
    Device *device;
    HfConfig hf; // its eos[0] is the end that answers are taught: see run_find_template
    Tokenizer *tokenizer;
    const char *template; // of conversations; NULL: raw texts alone
    RunShape shape;
    Plan plan;
    void *params_base, *work_base;
    Model policy, grad, reference;
    Comm *comm;    // NULL: one rank
    int64_t first; // the element of the slab that this rank's slice of the optimizer's state begins at
    Tensor master, moment1, moment2; // [slice of the slab]; master only where weights are bf16 and state f32
    Tensor norms;                    // [1 + n_params] I64 (f64 bits): see optim.c
    Rollout rollout;
    TrainWork work;
    Staging feed; // a micro-batch's inputs on their way
} Run;

// Chooses the chat template, and puts the token that ends its turns before the other ends in hf.eos. A model whose template
// is unknown is an error where texts are not raw.
bool run_find_template(Run *r, Error *e);
// Reads config.json, the tokenizer and the chat template: enough for a prompter. run_open does it where it was not done.
bool run_prepare(Run *r, const Config *c, Error *e);
// Reads config.json and the tokenizer, plans and takes the memory, loads (or draws) the weights.
// run_describe stops before memory is taken: enough for `plan`.
bool run_describe(Run *r, const Config *c, RunShape shape, Error *e);
bool run_open(Run *r, const Config *c, RunShape shape, Error *e);
void run_close(Run *r);
// The plan as a table, held against the memory of r->device (this machine's, where none is open), with what would help
// where it does not fit. Heap memory.
char *plan_table(const Run *r);
// Whether what it plans fits; the bytes that the ranks which share a memory take of it together, and what they can have.
bool run_fits(const Run *r, size_t *need, MemoryLimit *have);
// The shapes `train` and `eval`, `sample` need.
RunShape shape_for_train(const Config *c, int n_rewards);
RunShape shape_for_rollout(const Config *c, int64_t sequences, int64_t prompts);
RunShape shape_for_sft(const Config *c);
StopRule run_stop_rule(const Run *r);
bool run_prompter(const Run *r, Prompter *p, Error *e);
// Draws the weights: N(0, init), norms 1, biases 0; element i of parameter p depends on (seed, p, i) alone.
void model_init_random(Device *d, Model *m, uint64_t seed);
