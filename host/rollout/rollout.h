// Rollout: batched sampling with a KV cache.
#pragma once
#include "batch.h"
#include "config.h"
#include "error.h"
#include "model.h"
#include "tokenizer.h"

// The sizes of a rollout. Slots decode side by side and are refilled as sequences end; a group's prompt is prefilled
// once, and the group's completions share its keys and values. Cache rows: [prompt_slots x max_prompt], then [slots x
// max_completion].
typedef struct {
    int slots;          // sequences decoding at a time
    int prompt_slots;   // prompts whose keys and values are held at a time
    int max_prompt;     // tokens
    int max_completion; // tokens
    int prefill_tokens; // packed tokens of one prefill, >= max_prompt
} RolloutShape;
typedef struct RolloutQueue RolloutQueue;
typedef struct {
    RolloutShape shape;
    KvCache cache;
    Activations prefill, decode;
    Tensor ids, pos, kv_row, seq; // [prefill_tokens] x 3, [prompt_slots+1] I32: prompts
    Tensor prompt_hidden, hidden; // [prompt_slots,D], [slots,D] hidden states that first tokens are drawn from
    Tensor from;                  // [slots] I32 the prompt slots of new sequences
    SampleOut drawn;              // [slots] the results of a step
    DecodeRows rows;              // B = slots
    RolloutQueue *queue;          // host memory, events and graphs that are kept from one rollout to the next
} Rollout;
// What ends a completion. A stop string that is a special token of the tokenizer, which no text has, ends it by its id.
typedef struct {
    const int32_t *eos;
    int n_eos;
    TextList stop;
    bool include_stop; // whether the text keeps the string that ended it
} StopRule;
// The byte at which a text ends by the rule's stop strings, or -1. Only strings that its last `fresh` bytes could have
// completed are looked for.
int64_t stop_end(const StopRule *rule, const char *text, size_t n, size_t fresh);
RolloutShape rollout_shape(int slots, int prompts, int max_prompt, int max_completion);
Rollout rollout_carve(Arena *a, ModelDims dims, DType dtype, RolloutShape shape);
void rollout_free(Rollout *r);
Tensor rollout_ring(Arena *a, int slots); // rollout_queue.c: DecodeRows.drawn
// Calls while a rollout goes on; either may be NULL.
typedef struct {
    void (*text)(void *arg, int i, const char *bytes,
                 size_t n);         // new text of sequence i that no stop string can take back
    void (*done)(void *arg, int i); // called when sequence i has ended
    void *arg;
} RolloutWatch;
// Decodes every queued sequence of the batch: fills len, ids, logp, lse, entropy, finish and text, and calls `watch`.
// False after filling *e, with sequences left unfinished: a stop was requested (EXIT_STOPPED), or the device failed.
// The tokens of a sequence depend on (weights, prompt, params, its key) alone.
bool rollout_run(Rollout *r, Device *d, const Model *m, const Tokenizer *t, StopRule rule, SampleParams params,
                 Batch *b, RolloutWatch watch, Error *e);
// Whether all log-probs of a rollout are finite; if not, fills *e (EXIT_NUMERIC). For commands that show or grade
// completions.
bool rollout_finite(const Batch *b, Error *e);
// How the options say to sample: temperature, filters, seed.
SampleParams sample_params(const Config *c);
