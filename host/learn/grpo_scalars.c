// The scalars of a whole batch that grpo_loss takes in: the deviation of rewards, loss scales, the entropy threshold.
#include "grpo_math.h"
#include <stdlib.h>

float grpo_batch_std(const float *rewards, const float *weights, int64_t groups, int64_t group_size, int64_t n_rewards,
                     RewardAggregation aggregation) {
    Moments m = {0};
    for (int64_t row = 0; row < groups * group_size; row++) {
        int64_t i = row % group_size;
        const float *group = rewards + (row - i) * n_rewards;
        moments_add(&m, aggregation == NORMALIZE_THEN_SUM
                            ? grpo_normalized_reward(group, i, group_size, weights, n_rewards)
                            : grpo_reward(group + i * n_rewards, weights, n_rewards));
    }
    return (float)moments_std(&m);
}

float grpo_loss_scale(LossType type, int64_t sequences, int64_t tokens, int64_t generation_tokens,
                      int64_t max_completion_length) {
    int64_t n = 0;
    switch (type) {
    case LOSS_GRPO:
    case LOSS_SAPO: n = sequences; break;
    case LOSS_BNPO: n = tokens; break;
    case LOSS_DR_GRPO: n = sequences * max_completion_length; break;
    case LOSS_DAPO:
    case LOSS_CISPO: n = generation_tokens; break;
    }
    return (float)(1.0 / (double)(n > 0 ? n : 1));
}

static int float_compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

float grpo_entropy_threshold(float *entropy, int64_t n, double top_entropy_quantile, int64_t *kept) {
    *kept = n;
    if (top_entropy_quantile >= 1 || n == 0) return -INFINITY;
    qsort(entropy, (size_t)n, sizeof *entropy, float_compare);
    // In f32, as torch.quantile: the rank, and which end it interpolates from, decide whether a token on the edge counts.
    float rank = (float)(1 - top_entropy_quantile) * (float)(n - 1);
    int64_t below = (int64_t)rank, above = (int64_t)ceilf(rank);
    float share = rank - (float)below, gap = entropy[above] - entropy[below];
    float threshold = share < 0.5f ? entropy[below] + share * gap : entropy[above] - gap * (1 - share);
    while (*kept > 0 && entropy[n - *kept] < threshold) --*kept;
    return threshold;
}
