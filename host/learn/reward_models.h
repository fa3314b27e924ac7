// The models behind rewards that a model gives, beside the policy on its device. Their weights stay; what they compute
// takes turns with rollout and training in the same memory.
#pragma once
#include "arena.h"
#include "batch.h"
#include "hf.h"
#include "ops.h"
#include "reward_set.h"

typedef struct RewardModels RewardModels;
// The model that a run begins with.
typedef struct {
    const char *dir, *tokenizer; // tokenizer: a directory or a file
    const HfConfig *hf;
} StartModel;
// Reads what the directories of rw's rewards by models, and of such a grader, say, and plans them in the storage type
// `dtype`. start: what a reward without a directory takes; NULL: nothing. NULL: there are none, or *e is filled. rw
// must outlive them.
RewardModels *reward_models_describe(const Rewards *rw, DType dtype, const StartModel *start, Error *e);
void reward_models_free(RewardModels *m); // NULL is fine
// Describes the models, takes memory of their own for them on d, and loads them: for who has no engine.
RewardModels *reward_models_open(const Rewards *rw, DType dtype, Device *d, int load, Error *e);
// Whether a reward takes the model that the run begins with.
bool reward_models_ask_start(const RewardModels *m);
// Their weights, and their work memory: carved first in a measuring arena, then where they stay. start: a model that
// stays what the run begins with, a view of which is taken. *judges: what judges need of the work memory, *others: what
// reward models need; they take turns.
void reward_models_carve_params(RewardModels *m, Arena *a, const Model *start);
void reward_models_carve_work(RewardModels *m, Arena *a, size_t *judges, size_t *others);
// Reads the weights of those with a directory. False after filling *e. load: LOAD_*.
bool reward_models_load(RewardModels *m, Device *d, int load, Error *e);
int reward_models_count(const RewardModels *m); // how many there are
// One that was read, and its directory. NULL: it is the model that the run begins with.
const Model *reward_models_model(const RewardModels *m, int i, const char **dir);
// Fills the columns of these rewards for the decoded sequences of the batch. False after filling *e: a signal
// (EXIT_STOPPED), or the device failed.
bool reward_models_score(RewardModels *m, Device *d, Batch *b, Error *e);
// rewards_grade, where a model is the grader. False after filling *e.
bool reward_models_grade(RewardModels *m, Device *d, const Batch *b, float *score, Error *e);
// Scores n samples by the only reward there is.
bool reward_models_samples(RewardModels *m, Device *d, const Sample *samples, int n, float *score, Error *e);
