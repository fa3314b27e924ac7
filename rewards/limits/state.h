// What an opened reward holds: what its `open` returned, and its counters.
#pragma once
#include "reward.h"
#include <stdatomic.h>

struct RewardState {
    void *data;
    atomic_llong faults[REWARD_FAULTS];
};
