// Helpers for rewards: a sample's text, and scoring samples one by one.
#pragma once
#include "reward.h"
#include "text.h"

static inline Text sample_text(const Sample *s) { return (Text){s->completion, s->completion_len}; }

// Defines the RewardFn `fn` of a reward that scores each sample by itself, by one(const Reward *, const Sample *) ->
// double.
#define REWARD_EACH(fn, one)                                                                                           \
    void fn(const Reward *r, const Sample *samples, int n, float *score) {                                             \
        for (int i = 0; i < n; i++) score[i] = (float)one(r, &samples[i]);                                             \
    }
