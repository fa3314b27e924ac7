// The rewards of a run, over whole batches.
#pragma once
#include "batch.h"
#include "config.h"
#include "reward.h"

typedef struct {
    Reward reward[MAX_REWARDS];
    Reward grader; // judges answers in evaluations, where eval_grader names one; else info is NULL
    int n;
} Rewards;
bool rewards_select(const Config *c, Rewards *out, Error *e);
// Starts what the selected rewards need (programs, a sandbox), before the first score; an error then, not in step 900.
bool rewards_open(Rewards *rw, Error *e);
// Notes on standard error what went wrong while they scored, where anything did.
void rewards_note(const Rewards *rw);
// Notes which rewards need what the `stop` of a run cuts off: a format that can never be met is 0 for ever, and says nothing.
void rewards_note_stops(const Rewards *rw, const Config *c);
void rewards_close(Rewards *rw); // of rewards selected and not yet opened: nothing
// Whether the grader finds each completion of a decoded batch right: score above 0.5. right: [b->n].
void rewards_grade(const Rewards *rw, const Batch *b, bool *right);
// The control experiment: permutes scores among the batch's completions.
void rewards_shuffle(Batch *b, uint64_t seed, uint64_t stream);
