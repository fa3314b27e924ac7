// The GRPO loss: its inputs, parameters and outputs. One op (kernels/ops/grpo_loss.c) does all of it for a micro-batch.
//
// The maths is that of Shao et al. 2024 (DeepSeekMath) and DeepSeek-R1, with the variants as TRL computes them
// (loss_type, importance_sampling_level, scale_rewards ... carry TRL's names and meanings).
// What is global to a generation batch (token counts, batch statistics, the entropy threshold) comes in as scalars,
// so that a micro-batch's result does not depend on how the batch was cut.
#pragma once
#include "losses.h"
#include "tensor.h"

typedef enum { LEVEL_TOKEN, LEVEL_SEQUENCE } RatioLevel;
typedef enum { SCALE_GROUP, SCALE_BATCH, SCALE_NONE } ScaleRewards;
typedef enum { SUM_THEN_NORMALIZE, NORMALIZE_THEN_SUM } RewardAggregation; // the second: GDPO

#define ADVANTAGE_EPS 1e-4f // added to the standard deviation, as TRL

typedef struct {
    LossType loss_type;
    RatioLevel level;
    ScaleRewards scale_rewards;
    RewardAggregation aggregation;
    float epsilon, epsilon_high; // clip(w, 1 - epsilon, 1 + epsilon_high); cispo: epsilon_high is absolute
    float delta;                 // two-sided clipping; below 0: off
    float beta;                  // KL weight; 0: no reference
    bool kl_ratio; // the KL term is multiplied by the ratio, gradient included (TRL's use_bias_correction_kl)
    float entropy_coef;
    float sapo_tau_pos, sapo_tau_neg;
    float vespo_k_pos, vespo_lambda_pos, vespo_k_neg, vespo_lambda_neg; // pos: A >= 0
    float entropy_threshold;    // only tokens with entropy >= this carry policy loss; -INFINITY: all
    float off_policy_threshold; // sequences with A < 0 and mean(old - logp) above it are masked; below 0: off
    // scalars of the whole batch (all micro-batches, all ranks), as host/learn/grpo_scalars.h makes them
    float batch_std;     // of the rewards: SCALE_BATCH, and the last step of GDPO
    float loss_scale;    // what a sequence's or a token's loss is multiplied by
    float entropy_scale; // 1 / tokens that carry policy loss; used where entropy_coef != 0
} GrpoParams;

typedef struct {
    int64_t groups, group_size, n_rewards; // the size of `rewards`, those of the whole generation batch
    Tensor rewards;                        // [groups * group_size, n_rewards] f32; NaN: this reward abstains here
    Tensor weights;                        // [n_rewards] f32
    Tensor index;                          // [B] i32: which row of `rewards` sequence b is
    Tensor offsets;                        // [B+1] i32: sequence b owns tokens [offsets[b], offsets[b+1])
    Tensor logp;                           // [N] f32, current policy
    Tensor old_logp;                       // [N] f32, as sampled
    Tensor ref_logp;                       // [N]? f32; needed where beta != 0
    Tensor entropy;                        // [N]? f32; needed for entropy_coef and the entropy threshold
    Tensor mask; // [B] u8: 0 leaves the whole sequence out of the loss (a truncated completion)
} GrpoIn;

// The metrics of a sequence, mostly sums over its tokens. The host adds them in sequence order, so that totals do not
// depend on how a batch is cut into micro-batches.
typedef enum {
    GM_TOKENS,         // tokens in the mask
    GM_LOSS,           // the sequence's share of the loss, already scaled
    GM_POLICY,         // the same without the entropy bonus
    GM_KL,             // sum of k3 (times the ratio with kl_ratio) over the mask
    GM_ENTROPY,        // sum of entropy over the mask
    GM_POLICY_TOKENS,  // tokens that carry policy loss: those above the entropy threshold
    GM_POLICY_ENTROPY, // sum of their entropy
    GM_CLIP_LOW,       // CLIP_RANGE: tokens with min(w, delta) < 1 - epsilon and A < 0
    GM_CLIP_HIGH,      // CLIP_RANGE: tokens with min(w, delta) > 1 + epsilon_high and A > 0; CLIP_CAP: w > epsilon_high
                       // and A > 0. LEVEL_SEQUENCE: a masked sequence counts as one token of ratio 1
    GM_CLIP_REGION,    // tokens clipped on either side
    GM_RATIO_SUM,      // sum of w (LEVEL_SEQUENCE: every token has its sequence's w)
    GM_RATIO_MAX,      // largest w (max, not sum); -INFINITY where the sequence is masked
    GM_RATIO_MIN,      // smallest w (min, not sum); INFINITY where the sequence is masked
    GM_ADVANTAGE,      // the advantage used
    GM_PHI,            // vespo: phi, of a masked sequence too (1)
    GM_COUNT
} GrpoMetric;

typedef struct {
    Tensor advantage; // [B] f32 =
    Tensor dlogp;     // [N] f32 =  d(loss) / d(logp)
    Tensor dentropy;  // [N]? f32 =  d(loss) / d(entropy); present where entropy_coef != 0
    Tensor metrics;   // [B, GM_COUNT] f32 =
} GrpoOut;
