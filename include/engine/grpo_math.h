// From rewards to advantages: formulas shared by the op grpo_loss, on both devices, and the host's batch statistics.
//
// A score that is NaN abstains: it is left out. A completion whose scores all abstain has no reward (NaN), is left out
// of every mean and standard deviation, and gets advantage 0.
#pragma once
#include "grpo.h"
#include <math.h>

#ifdef __CUDACC__
#define GRPO_SHARED static inline __host__ __device__
#else
#define GRPO_SHARED static inline
#endif

// Mean and standard deviation of f32 values, NaNs left out: moments_add every value first, then moments_spread every
// value. The sum of f32 values is exact in f64 (but for ranges beyond 2^29), so that equal values have exactly
// themselves as mean and a deviation of 0: a group of equal rewards must not push the policy anywhere.
typedef struct {
    int64_t n;
    double sum, squares; // squares: sum of the squared distances to the mean
} Moments;

GRPO_SHARED void moments_add(Moments *m, double x) {
    if (!isnan(x)) m->n++, m->sum += x;
}
GRPO_SHARED double moments_mean(const Moments *m) { return m->n > 0 ? m->sum / (double)m->n : NAN; }
GRPO_SHARED void moments_spread(Moments *m, double x) {
    double distance = x - moments_mean(m);
    if (!isnan(x)) m->squares += distance * distance;
}
// The standard deviation, with n - 1 in the denominator; 0 for a single value, whose distance to the mean is 0 too.
GRPO_SHARED double moments_std(const Moments *m) { return m->n > 1 ? sqrt(m->squares / (double)(m->n - 1)) : 0; }

// How far x is from the mean; 0 where they are equal in f32: of 0.1, 0.2 and 0.3, none of which is exact, 0.2 must
// count neither as better nor as worse.
GRPO_SHARED double moments_distance(const Moments *m, float x) {
    double mean = moments_mean(m);
    return x == (float)mean ? 0 : x - mean;
}

// The weighted sum of one completion's scores[n_rewards], rounded to f32 as rewards are stored; NaN where all abstain.
GRPO_SHARED float grpo_reward(const float *scores, const float *weights, int64_t n_rewards) {
    double sum = 0;
    int64_t scored = 0;
    for (int64_t k = 0; k < n_rewards; k++)
        if (!isnan(scores[k])) sum += (double)weights[k] * scores[k], scored++;
    return scored ? (float)sum : NAN;
}

// One score of a completion, weighted, and normalised by the moments of that score in its group.
GRPO_SHARED double normalized_score(float score, float weight, const Moments *m) {
    return weight * moments_distance(m, score) / (moments_std(m) + ADVANTAGE_EPS);
}
// GDPO's last step: the advantage from the sum of normalised scores. TRL subtracts the batch's mean here, which is 0
// but for rounding, as every score sums to 0 over its group.
GRPO_SHARED double normalized_advantage(double reward, const GrpoParams *p) {
    return isnan(reward) ? 0 : reward / (p->batch_std + ADVANTAGE_EPS);
}
// The advantage of a completion with this reward in a group with these moments.
GRPO_SHARED double reward_advantage(float reward, const Moments *m, const GrpoParams *p) {
    if (isnan(reward)) return 0;
    double distance = moments_distance(m, reward);
    if (p->scale_rewards == SCALE_GROUP) return distance / (moments_std(m) + ADVANTAGE_EPS);
    if (p->scale_rewards == SCALE_BATCH) return distance / (p->batch_std + ADVANTAGE_EPS);
    return distance;
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
        for (int64_t j = 0; j < group_size; j++) moments_spread(&m, group[j * n_rewards + k]);
        sum += normalized_score(score, weights[k], &m);
        scored++;
    }
    return scored ? sum : NAN;
}

// The advantage of completion `row` of rewards[groups * group_size, n_rewards].
GRPO_SHARED double grpo_advantage(const float *rewards, int64_t row, int64_t group_size, const float *weights,
                                  int64_t n_rewards, const GrpoParams *p) {
    int64_t i = row % group_size;
    const float *group = rewards + (row - i) * n_rewards;
    if (p->aggregation == NORMALIZE_THEN_SUM)
        return normalized_advantage(grpo_normalized_reward(group, i, group_size, weights, n_rewards), p);
    Moments m = {0};
    for (int64_t j = 0; j < group_size; j++) moments_add(&m, grpo_reward(group + j * n_rewards, weights, n_rewards));
    for (int64_t j = 0; j < group_size; j++) moments_spread(&m, grpo_reward(group + j * n_rewards, weights, n_rewards));
    return reward_advantage(grpo_reward(group + i * n_rewards, weights, n_rewards), &m, p);
}
