// The models behind rewards that a model gives, beside the policy on its device. Their weights stay; what they compute takes
// turns with rollout and training in the same memory.
#pragma once
#include "arena.h"
#include "batch.h"
#include "reward_set.h"
#include "ops.h"

typedef struct RewardModels RewardModels;
// Reads what the directories of rw's rewards by models say, and plans them in the storage type `dtype`. NULL: there are
// none, or *e is filled. rw must outlive them.
RewardModels *reward_models_describe(const Rewards *rw, DType dtype, Error *e);
void reward_models_free(RewardModels *m); // NULL is fine
// All that follows at once, in memory of their own on d, which they give back: for who has no engine.
RewardModels *reward_models_open(const Rewards *rw, DType dtype, Device *d, int load, Error *e);
// Their weights, and their work memory: carved first in a measuring arena, then where they stay.
void reward_models_carve_params(RewardModels *m, Arena *a);
void reward_models_carve_work(RewardModels *m, Arena *a);
// Reads the weights. False after filling *e. load: LOAD_*.
bool reward_models_load(RewardModels *m, Device *d, int load, Error *e);
// How many there are; the weights and the directory of one.
int reward_models_count(const RewardModels *m);
Tensor reward_models_weights(const RewardModels *m, int i, const char **dir);
// Fills the columns of these rewards for the decoded sequences of the batch. False after filling *e: a signal
// (EXIT_STOPPED), or the device failed.
bool reward_models_score(RewardModels *m, Device *d, Batch *b, Error *e);
// Scores n samples by the only reward there is.
bool reward_models_samples(RewardModels *m, Device *d, const Sample *samples, int n, float *score, Error *e);
