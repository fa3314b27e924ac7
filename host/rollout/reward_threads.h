// The scorer: threads that score completions while others still decode.
#pragma once
#include "reward_set.h"

// One thread tells the scorer what is decoded; each of its threads makes plain calls of RewardFn.
typedef struct Scorer Scorer;
// `threads` 0: as many as there are cores, at most 16. A thread whose call hangs gets a stand-in. NULL after filling *e.
Scorer *scorer_open(const Rewards *rewards, int threads, Error *e);
void scorer_close(Scorer *s); // waits for calls that are at work; NULL is fine
// From here to scorer_end completions of this batch are scored, and its columns of questions and texts stay as they are.
void scorer_begin(Scorer *s, const Batch *b);
void scorer_add(Scorer *s, int i); // sequence i is decoded; returns at once
// Waits for the scores of what was added, and sums them up: score, reward, state. Where they are not `wanted`, or a stop
// is requested, it waits for calls at work only; false then.
bool scorer_end(Scorer *s, bool wanted);
