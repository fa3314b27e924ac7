// Rewards to advantages: the formulas that the op (either device) and the host's batch statistics share.
//
// A score may abstain (NaN): it is left out. A completion whose scores all abstain has no reward (NaN), stays out of
// every mean and standard deviation, and gets advantage 0.
#pragma once
#include "grpo.h"
#include <math.h>

#ifdef __CUDACC__
#define GRPO_SHARED static inline __host__ __device__
#else
#define GRPO_SHARED static inline
#endif

// Mean and standard deviation of the values seen that are not NaN (Welford 1962). Where all values are equal the mean
// is that value and the deviation 0, both exactly: such a group must not push the policy anywhere.
typedef struct {
    int64_t n;
    double mean, m2; // m2: sum of squared distances to the mean
} Moments;

GRPO_SHARED void moments_add(Moments *m, double x) {
    if (isnan(x)) return;
    double distance = x - m->mean;
    m->mean += distance / (double)++m->n;
    m->m2 += distance * (x - m->mean);
}
// n - 1 in the denominator. One value alone has no deviation; its distance to the mean is 0, so 0 serves.
GRPO_SHARED double moments_std(const Moments *m) { return m->n > 1 ? sqrt(m->m2 / (double)(m->n - 1)) : 0; }

// The weighted sum of one completion's scores[n_rewards], rounded to f32 as rewards are stored; NaN where all abstain.
GRPO_SHARED float grpo_reward(const float *scores, const float *weights, int64_t n_rewards) {
    double sum = 0;
    int64_t scored = 0;
    for (int64_t k = 0; k < n_rewards; k++)
        if (!isnan(scores[k])) sum += (double)weights[k] * scores[k], scored++;
    return scored ? (float)sum : NAN;
}

// GDPO (Liu et al. 2026): the weighted sum of completion `i`'s scores, each normalised over its group first.
// group[group_size, n_rewards]; NaN where all of i's scores abstain.
GRPO_SHARED double grpo_normalized_reward(const float *group, int64_t i, int64_t group_size, const float *weights,
                                          int64_t n_rewards) {
    double sum = 0;
    int64_t scored = 0;
    for (int64_t k = 0; k < n_rewards; k++) {
        float score = group[i * n_rewards + k];
        if (isnan(score)) continue;
        Moments m = {0};
        for (int64_t j = 0; j < group_size; j++) moments_add(&m, group[j * n_rewards + k]);
        sum += weights[k] * (score - m.mean) / (moments_std(&m) + ADVANTAGE_EPS);
        scored++;
    }
    return scored ? sum : NAN;
}

// The advantage of completion `row` of rewards[groups * group_size, n_rewards].
GRPO_SHARED double grpo_advantage(const float *rewards, int64_t row, int64_t group_size, const float *weights,
                                  int64_t n_rewards, const GrpoParams *p) {
    int64_t i = row % group_size;
    const float *group = rewards + (row - i) * n_rewards;
    if (p->aggregation == NORMALIZE_THEN_SUM) {
        double reward = grpo_normalized_reward(group, i, group_size, weights, n_rewards);
        // TRL subtracts the batch's mean here: it is 0, as every score sums to 0 over its group, but for rounding.
        return isnan(reward) ? 0 : reward / (p->batch_std + ADVANTAGE_EPS);
    }
    float reward = grpo_reward(group + i * n_rewards, weights, n_rewards);
    if (isnan(reward)) return 0;
    Moments m = {0};
    for (int64_t j = 0; j < group_size; j++) moments_add(&m, grpo_reward(group + j * n_rewards, weights, n_rewards));
    double distance = reward - m.mean;
    if (p->scale_rewards == SCALE_GROUP) return distance / (moments_std(&m) + ADVANTAGE_EPS);
    if (p->scale_rewards == SCALE_BATCH) return distance / (p->batch_std + ADVANTAGE_EPS);
    return distance;
}
