// Rewards for length.
#include "rewards.h"

// DAPO's overlong punishment (Yu et al. 2025, equation 13): 0 up to max - cache tokens, then a line down to -1 at max.
static double soft_overlong(const Reward *r, const Sample *s) {
    double max = r->param[0], cache = r->param[1], length = s->n_ids;
    if (!s->ids) return REWARD_ABSTAINS;
    if (length <= max - cache) return 0;
    return length <= max ? (max - cache - length) / cache : -1;
}

REWARD_EACH(reward_soft_overlong, soft_overlong)
