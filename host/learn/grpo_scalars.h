// The scalars of the GRPO loss that belong to a whole generation batch or optimizer step (batch_std, loss_scale,
// entropy_threshold and entropy_scale of GrpoParams), and how the coefficient of the entropy bonus adapts.
#pragma once
#include "grpo.h"

// GrpoParams.batch_std: the standard deviation (n - 1; 0 for fewer than two) of the rewards of the whole generation
// batch, rewards[groups * group_size, n_rewards]: weighted sums, or for NORMALIZE_THEN_SUM the sums of scores
// normalised in their groups. Completions whose scores all abstain are left out.
float grpo_batch_std(const float *rewards, const float *weights, int64_t groups, int64_t group_size, int64_t n_rewards,
                     RewardAggregation aggregation);

// How much an optimizer step trains on, and the generation batch it is taken from; all ranks together.
typedef struct {
    int64_t sequences, tokens; // of the step: completions (masked ones count), tokens in their masks
    int64_t generation_sequences, generation_tokens; // of the whole generation batch
    int64_t max_completion_length;
} LossCounts;

// GrpoParams.loss_scale of an optimizer step: 1 / what LossSum divides by.
// Where all completions are equally (and fully) long, every type but luspo, which does not divide by a length, gives
// the same loss, however a generation is cut.
float grpo_loss_scale(LossType type, LossCounts counts);

// GrpoParams.entropy_threshold: the (1 - top_entropy_quantile) quantile, interpolated as torch.quantile does, of the
// entropies of all tokens in the masks of an optimizer step. *policy_tokens counts those at or above it: entropy_scale
// is 1 / max(*policy_tokens, 1). A quantile of 1 keeps all: -INFINITY. Sorts entropy[n] in place.
float grpo_entropy_threshold(float *entropy, int64_t n, double top_entropy_quantile, int64_t *policy_tokens);

// How the coefficient of the entropy bonus adapts (Skywork-OR1; as in TRL): the next step's is higher by delta where
// this step's mean entropy, over the tokens that carry policy loss, is at or below the target, else lower; within [min,
// max].
typedef struct {
    double target, delta, min, max;
} EntropyRule;
double grpo_next_entropy_coef(double coef, double entropy, EntropyRule rule);
