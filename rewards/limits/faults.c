// What goes wrong while a reward scores: the counters.
#include "state.h"

const char *const reward_fault_name[REWARD_FAULTS] = {"regex_limit", "timeout",  "crash",      "flood",
                                                      "bad_reply",   "bad_gold", "no_sandbox", "too_long"};

void *reward_data(const Reward *r) {
    if (!r->state) die("reward %s was not opened", r->info->name);
    return r->state->data;
}

void reward_fault(const Reward *r, RewardFault fault, int n) {
    if (r->state && fault < REWARD_FAULTS) atomic_fetch_add(&r->state->faults[fault], n);
}

void reward_scored(const Reward *r, int64_t asked, int64_t scored) {
    if (!r->state) return;
    pthread_mutex_lock(&r->state->lock);
    r->state->scored.asked += asked;
    r->state->scored.scored += scored;
    pthread_mutex_unlock(&r->state->lock);
}

int64_t reward_faults(const Reward *r, RewardFault fault) {
    return r->state ? atomic_load(&r->state->faults[fault]) : 0;
}
