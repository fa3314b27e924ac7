// What a rollout asks of the device: prompts, first draws and decode steps in bursts, so that the device always has work
// ahead while the host reads what the burst before brought.
#pragma once
#include "rollout.h"

typedef struct {
    int slot, prompt_slot; // which cache rows are its own, and which hold its prompt
    const Ids *prompt;
    int64_t key; // of its random stream
} NewSequence;

// What one call of `advance` took in: columns [0, n).
typedef struct {
    const int32_t *slot; // -1: nobody
    const int32_t *token;
    const float *logp, *lse, *entropy;
    int n;
} DrawnRow;

// Makes r ready for the sequences of one rollout; NULL after filling *e.
RolloutQueue *queue_open(Rollout *r, Device *d, const Model *m, SampleParams params, EndRule rule, Error *e);
// Frees what queue_open keeps from one rollout to the next: host memory, events, graphs.
void queue_free(RolloutQueue *q);
// Bursts that were asked for and not taken yet.
int queue_length(const RolloutQueue *q);
// How many of them there may be while another one is asked for.
int queue_depth(const RolloutQueue *q);
// The most decode steps of a burst. On a device without graphs a burst is one step or one admission, so that no row is
// run that has ended.
int queue_steps_limit(const RolloutQueue *q);

// One burst: begin, then any of those between in their order, then end.
void queue_begin(RolloutQueue *q);
// Sequences of these slots end; what was asked for before still runs them.
void queue_stop(RolloutQueue *q, const int *slots, int n);
// Prompts through the model, into the cache rows of their prompt slots.
void queue_prefill(RolloutQueue *q, const NewSequence *list, int n);
// New sequences in rows first .. first + n, their first tokens drawn. Rows up to `first` are those that may be in use.
void queue_start(RolloutQueue *q, const NewSequence *list, int n, int first);
// Decode steps of the first `rows` rows.
void queue_decode(RolloutQueue *q, int rows, int steps);
void queue_end(RolloutQueue *q);
// Waits for the oldest burst, and returns how many calls of `advance` it made.
int queue_take(RolloutQueue *q);
// What call i of them took in; valid until two bursts later are begun.
DrawnRow queue_drawn(const RolloutQueue *q, int i);
