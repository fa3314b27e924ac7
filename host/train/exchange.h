// What the ranks of a step tell each other. Every rank has the whole batch; it samples, scores and trains a range of
// it, and gets the rest. One rank does nothing here.
#pragma once
#include "train.h"

typedef struct {
    int first, end;
} RankRange;
RankRange rank_range(const Comm *c, int n); // this rank's of n things: contiguous, as even as they can be
// Makes the greatest of the ranks' results that of all. stats->bad becomes that of the first rank with STEP_SKIPPED.
// STEP_FAILED after filling *e.
StepResult ranks_agree(const Engine *engine, StepStats *stats, StepResult mine, Error *e);
// Exchanges, by prompts, what rollout and rewards have put into the batch. False after filling *e.
bool ranks_exchange_completions(Comm *c, Batch *b, Error *e);
// Tells all ranks what the rewards (the grader too) did since the last time: their faults, and the replies of judges,
// which stand in rank order behind those of before. False after filling *e, on every rank, also where a judge ends the
// run (max_unmatched).
bool ranks_exchange_rewards(Comm *c, const Rewards *rw, Error *e);
// Exchanges, by sequences seq[0..n), a per-token column. False after filling *e.
bool ranks_exchange_tokens(Comm *c, const Batch *b, const char *name, float *column, const int *seq, int n, Error *e);
// Exchanges the loss and the sums of grpo_loss of sequences seq[0..n). False after filling *e.
bool ranks_exchange_metrics(Comm *c, Generation *g, const int *seq, int n, Error *e);
// all[ranks] = every rank's `own` of this step. False after filling *e.
bool ranks_exchange_stats(Comm *c, const StepStats *own, StepStats *all, Error *e);
