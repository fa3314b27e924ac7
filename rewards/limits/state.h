// The state of an opened reward: what its `open` returned, its fault counters, and why the run is to end.
#pragma once
#include "reward.h"
#include <stdatomic.h>

struct RewardState {
    void *data;
    atomic_llong faults[REWARD_FAULTS];
    _Atomic(Error *) end; // NULL: it goes on
};
