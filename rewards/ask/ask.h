// Rewards that ask a program, a shared object or a server; rewards/registry.c says what each one gives.
#pragma once
#include "samples.h"
#include <jansson.h>

// external.c
void *open_external(const Reward *r, Error *e);
void close_external(void *data);
RewardFn reward_external;
// Reads the scores of a reply; false where it does not hold exactly n numbers or nulls (REWARD_ABSTAINS).
bool external_scores(const json_t *reply, int n, float *score);

// plugin.c
void *open_plugin(const Reward *r, Error *e);
void close_plugin(void *data);
RewardFn reward_plugin_score;

// judge.c
void *open_judge(const Reward *r, Error *e);
void close_judge(void *data);
RewardFn reward_judge;

// judge_model.c: its scores are the engine's, host/learn/reply_model.c
void *open_judge_model(const Reward *r, Error *e); // a Judging
void close_judge_model(void *data);
