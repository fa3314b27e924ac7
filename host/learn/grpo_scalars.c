// The scalars of a whole batch that grpo_loss takes in: the deviation of rewards, loss scales, the entropy threshold.
#include "grpo_scalars.h"
#include "error.h"
#include "grpo_math.h"
#include <stdlib.h>

float grpo_batch_std(const float *rewards, const float *weights, int64_t groups, int64_t group_size, int64_t n_rewards,
                     RewardAggregation aggregation) {
    int64_t rows = groups * group_size;
    double *reward = xmalloc((size_t)(rows > 0 ? rows : 1) * sizeof *reward); // [rows]
    Moments m = {0};
    for (int64_t row = 0; row < rows; row++) {
        int64_t i = row % group_size;
        const float *group = rewards + (row - i) * n_rewards;
        reward[row] = aggregation == NORMALIZE_THEN_SUM
                          ? grpo_normalized_reward(group, i, group_size, weights, n_rewards)
                          : (double)grpo_reward(group + i * n_rewards, weights, n_rewards);
        moments_add(&m, reward[row]);
    }
    for (int64_t row = 0; row < rows; row++) moments_spread(&m, reward[row]);
    free(reward);
    return (float)moments_std(&m);
}

static int64_t at_least_one(int64_t n) { return n > 1 ? n : 1; }

float grpo_loss_scale(LossType type, LossCounts c) {
    double n = 0;
    switch (loss_kind(type).sum) {
    case SUM_SEQUENCE_MEANS:
    case SUM_SEQUENCES: n = (double)c.sequences; break;
    case SUM_TOKENS: n = (double)at_least_one(c.tokens); break;
    case SUM_MAX_LENGTH: n = (double)c.sequences * (double)c.max_completion_length; break;
    case SUM_GENERATION_TOKENS:
        n = (double)at_least_one(c.generation_tokens) * (double)c.sequences / (double)c.generation_sequences;
        break;
    }
    return (float)(1 / n);
}

static int float_compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

float grpo_entropy_threshold(float *entropy, int64_t n, double top_entropy_quantile, int64_t *policy_tokens) {
    *policy_tokens = n;
    if (top_entropy_quantile >= 1 || n == 0) return -INFINITY;
    qsort(entropy, (size_t)n, sizeof *entropy, float_compare);
    // Bit for bit as torch.quantile: where it rounds to f32, and from which end it interpolates, decides whether a
    // token at the threshold counts.
    double rank = (double)(float)(1 - top_entropy_quantile) * (double)(n - 1);
    int64_t below = (int64_t)rank, above = (int64_t)ceil(rank);
    float weight = (float)(rank - (double)below), gap = entropy[above] - entropy[below];
    float threshold = weight < 0.5f ? fmaf(weight, gap, entropy[below]) : fmaf(-gap, 1 - weight, entropy[above]);
    while (*policy_tokens > 0 && entropy[n - *policy_tokens] < threshold) --*policy_tokens;
    return threshold;
}

double grpo_next_entropy_coef(double coef, double entropy, EntropyRule rule) {
    return entropy <= rule.target ? fmin(coef + rule.delta, rule.max) : fmax(coef - rule.delta, rule.min);
}
