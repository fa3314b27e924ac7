// The work of a rollout on the device, in bursts of prefills, first draws and decode steps, so that the device has work
// while the host reads the results of the burst before.
#pragma once
#include "rollout.h"

typedef struct {
    int slot, prompt_slot; // its own cache rows, and those of its prompt
    const Ids *prompt;
    int64_t key; // of its random stream
} NewSequence;

// The results that one call of `advance` took in: columns [0, n).
typedef struct {
    const int32_t *slot; // -1: the column is not used
    const int32_t *token;
    const float *logp, *lse, *entropy;
    int n;
} DrawnRow;

// Makes r ready for the sequences of one rollout; NULL after filling *e.
RolloutQueue *queue_open(Rollout *r, Device *d, const Model *m, SampleParams params, EndRule rule, Error *e);
// Frees what is kept from one rollout to the next: host memory, events, graphs.
void queue_free(RolloutQueue *q);
// How many bursts have been started and not taken.
int queue_length(const RolloutQueue *q);
// How many of them there may be when another one is started.
int queue_depth(const RolloutQueue *q);
// The most decode steps of a burst. On a device without graphs a burst is one step or one admission, so that it runs no
// row that has ended.
int queue_steps_limit(const RolloutQueue *q);

// A burst is queue_begin, then any of stop, prefill, start and decode in this order, then queue_end.
void queue_begin(RolloutQueue *q);
// Ends the sequences of these slots; work started before still runs them.
void queue_stop(RolloutQueue *q, const int *slots, int n);
// Runs prompts through the model, into the cache rows of their prompt slots.
void queue_prefill(RolloutQueue *q, const NewSequence *list, int n);
// Puts new sequences into rows first .. first + n and draws their first tokens. Rows below `first` may be in use.
void queue_start(RolloutQueue *q, const NewSequence *list, int n, int first);
// The number of the recording that runs `rows` rows of a batch of at most `slots`, below 40; *n becomes the rows that
// it runs: 1, 2, 4 .. 32, then multiples of 32 (of 64, 96, .. beyond 1,088 slots), at most `slots`. The rest are idle:
// at most 31 of more than 32, where with powers of two they are up to half. Products and norms compute idle rows too;
// attention and the head, which look at them first, do not.
int decode_size(int rows, int slots, int *n);
// Runs decode steps of the first `rows` rows.
void queue_decode(RolloutQueue *q, int rows, int steps);
void queue_end(RolloutQueue *q);
// Waits for the oldest burst, and returns how many calls of `advance` it made.
int queue_take(RolloutQueue *q);
// The results of call i of them; valid until the second burst after is begun.
DrawnRow queue_drawn(const RolloutQueue *q, int i);
