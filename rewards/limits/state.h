// The state of an opened reward: what its `open` returned, its fault counters, and the replies that it read.
#pragma once
#include "reward.h"
#include <pthread.h>
#include <stdatomic.h>

struct RewardState {
    void *data;
    atomic_llong faults[REWARD_FAULTS];
    pthread_mutex_t lock;          // of all that follows
    RewardScored scored;           // of this rank
    int64_t others[REWARD_FAULTS]; // of the other ranks, when they last told them
    RewardScored others_scored;    // so here
    ReplyRows rows;                // since then
    char unread[REPLY_SHOWN];      // as RewardTally's
};
