// The state of an opened reward: what its `open` returned, and its fault counters.
#pragma once
#include "reward.h"
#include <stdatomic.h>

struct RewardState {
    void *data;
    atomic_llong faults[REWARD_FAULTS];
};
