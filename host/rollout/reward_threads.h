// The scorer: threads that score completions while others still decode.
#pragma once
#include "reward_set.h"
#include "rollout.h"

// One thread, the caller's, tells the scorer what is decoded; the scorer's threads call the rewards.
typedef struct Scorer Scorer;
// threads: 0 for one a core, at most 16. A thread whose call hangs gets a stand-in. NULL after filling *e.
Scorer *scorer_open(const Rewards *rewards, int threads, Error *e);
void scorer_close(Scorer *s); // waits for calls that are running; NULL is fine
// Begins scoring this batch. Until scorer_end its columns of questions and texts must not change.
void scorer_begin(Scorer *s, const Batch *b);
void scorer_add(Scorer *s, int i);    // sequence i is decoded; returns at once
RolloutWatch scorer_watch(Scorer *s); // of a rollout that does so
// Asks again for the scores that the completions of prompt p lack (NaN), of each reward whose bit is set: an earlier
// process drew them. Scores that are there stay.
void scorer_again(Scorer *s, int p, uint32_t rewards);
// Waits for the scores of what was added (those of models are there by now: reward_models.h), and fills the columns
// score, reward and state. Where they are not `wanted`, it waits only for calls that are running, and returns false; so
// it does after filling *e where a stop is requested (EXIT_STOPPED). Whether a reward ends the run is rewards_go_on's.
bool scorer_end(Scorer *s, bool wanted, Error *e);
