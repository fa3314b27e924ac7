// The rewards, family by family; rewards/registry.c says what each one gives.
#pragma once
#include "reward.h"
#include "text.h"

static inline Text sample_text(const Sample *s) { return (Text){s->completion, s->completion_len}; }

// A reward that scores each sample by itself: NAME(const Reward *, const Sample *) -> double becomes a RewardFn.
#define REWARD_EACH(fn, one)                                                                                           \
    void fn(const Reward *r, const Sample *samples, int n, float *score) {                                             \
        for (int i = 0; i < n; i++) score[i] = (float)one(r, &samples[i]);                                             \
    }

// recipe.c
RewardFn reward_xmlcount, reward_soft_format, reward_strict_format, reward_int, reward_correctness,
    reward_completion_length, reward_think_answer_format;

// format.c
RewardFn reward_format, reward_tag_count, reward_reasoning_steps, reward_think_format;

// length.c
RewardFn reward_soft_overlong;

// repetition.c
RewardFn reward_repetition_penalty;

// gsm8k.c
RewardFn reward_gsm8k_strict, reward_gsm8k_flexible;
