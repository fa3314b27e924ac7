// Rewards that are rules about the text; rewards/registry.c says what each one gives.
#pragma once
#include "samples.h"

// recipe.c
RewardFn reward_xmlcount, reward_soft_format, reward_strict_format, reward_int, reward_correctness,
    reward_completion_length, reward_think_answer_format;

// format.c
RewardFn reward_format, reward_tag_count, reward_reasoning_steps, reward_think_format, reward_code_format;

// length.c
RewardFn reward_length, reward_cosine, reward_soft_overlong;

// repetition.c
RewardFn reward_repetition_penalty;

// gsm8k.c
RewardFn reward_gsm8k_strict, reward_gsm8k_flexible;

// language.c
void *open_language(const Reward *r, Error *e);
void close_language(void *data);
RewardFn reward_language;

// pattern.c
void *open_regex(const Reward *r, Error *e);
void close_regex(void *data);
RewardFn reward_regex;
