// Batched sampling with a KV cache.
#pragma once
#include "batch.h"
#include "config.h"
#include "error.h"
#include "model.h"
#include "tokenizer.h"

// Slots decode side by side and are refilled as sequences end; a group's prompt is prefilled once and its keys and
// values are shared by the group's completions. Cache rows: [prompt_slots x max_prompt], then [slots x max_completion].
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
    Tensor prompt_hidden, hidden; // [prompt_slots,D], [slots,D] what a first token is drawn from
    Tensor from;                  // [slots] I32 prompt slots of new sequences
    SampleOut drawn;              // [slots] what a step drew
    DecodeRows rows;              // B = slots
    RolloutQueue *queue;          // host memory, events and graphs, kept from one rollout to the next
} Rollout;
// What ends a completion.
typedef struct {
    const int32_t *eos;
    int n_eos;
    TextList stop;
    bool include_stop; // the text keeps the string that ended it
} StopRule;
// Where a text ends by the rule's strings (bytes), looking only where its last `fresh` bytes could have completed one; -1:
// nowhere yet.
int64_t stop_end(const StopRule *rule, const char *text, size_t n, size_t fresh);
RolloutShape rollout_shape(int slots, int prompts, int max_prompt, int max_completion);
Rollout rollout_carve(Arena *a, ModelDims dims, DType dtype, RolloutShape shape);
void rollout_free(Rollout *r);
Tensor rollout_ring(Arena *a, int slots); // rollout_queue.c: DecodeRows.drawn
// Decodes every queued sequence of the batch: fills len, ids, logp, lse, entropy, finish, text; tells `watch` as text comes
// and sequences end. False, sequences left unfinished, after filling *e: a stop was requested (EXIT_STOPPED), or the device
// failed. A sequence's tokens depend on (weights, prompt, params, its key) alone.
typedef struct {
    void (*text)(void *arg, int i, const char *bytes,
                 size_t n);         // new text of sequence i that no stop string can take back
    void (*done)(void *arg, int i); // sequence i has ended
    void *arg;
} RolloutWatch; // members may be NULL
bool rollout_run(Rollout *r, Device *d, const Model *m, const Tokenizer *t, StopRule rule, SampleParams params,
                 Batch *b, RolloutWatch watch, Error *e);
// What a rollout drew is worth nothing where a log-prob is not finite: EXIT_NUMERIC, for commands that show or grade it.
bool rollout_finite(const Batch *b, Error *e);
