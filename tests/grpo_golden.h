// A case of tests/golden/grpo_*.json (written by tools/golden.py): TRL's own trainer on a batch, as input of the op.
#pragma once
#include "grpo_case.h"
#include "json.h"

static inline double number(const json_t *o, const char *key, double otherwise) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}
static inline int choice(const json_t *o, const char *key, const char *const *names) {
    const char *s = json_string_value(json_object_get(o, key));
    for (int i = 0; s && names[i]; i++)
        if (!strcmp(s, names[i])) return i;
    assert_null(s);
    return 0;
}
static inline void numbers(const json_t *list, float *out, int64_t n) {
    assert_int_equal(json_array_size(list), n);
    for (int64_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        out[i] = json_is_number(v) ? (float)json_number_value(v) : NAN;
    }
}

static inline GrpoParams golden_params(const json_t *o) {
#define NAME_OF(NAME, name, sum, clip, level, help) #name,
    static const char *const loss[] = {LOSSES(NAME_OF) NULL};
    static const char *const level[] = {"token", "sequence", NULL};
    static const char *const scale[] = {"group", "batch", "none", NULL};
    static const char *const aggregation[] = {"sum_then_normalize", "normalize_then_sum", NULL};
    GrpoParams p = plain;
    p.loss_type = (LossType)choice(o, "loss_type", loss);
    p.level = (RatioLevel)choice(o, "importance_sampling_level", level);
    p.scale_rewards = (ScaleRewards)choice(o, "scale_rewards", scale);
    p.aggregation = (RewardAggregation)choice(o, "multi_objective_aggregation", aggregation);
    p.epsilon = (float)number(o, "epsilon", 0.2);
    p.epsilon_high = (float)number(o, "epsilon_high", p.epsilon);
    p.delta = (float)number(o, "delta", -1);
    p.beta = (float)number(o, "beta", 0);
    p.entropy_coef = (float)number(o, "entropy_coef", 0);
    p.sapo_tau_pos = (float)number(o, "sapo_temperature_pos", 1);
    p.sapo_tau_neg = (float)number(o, "sapo_temperature_neg", 1.05);
    p.kl_ratio = json_is_true(json_object_get(o, "use_bias_correction_kl"));
    p.vespo_k_pos = (float)number(o, "vespo_k_pos", 2);
    p.vespo_lambda_pos = (float)number(o, "vespo_lambda_pos", 3);
    p.vespo_k_neg = (float)number(o, "vespo_k_neg", 3);
    p.vespo_lambda_neg = (float)number(o, "vespo_lambda_neg", 2);
    p.off_policy_threshold = (float)number(o, "off_policy_mask_threshold", -1);
    return p;
}

static inline Case golden_batch(const json_t *b) {
    int length[64];
    const json_t *lengths = json_object_get(b, "length"), *scores = json_object_get(b, "scores");
    size_t n = json_array_size(lengths), k = json_array_size(json_object_get(b, "weights"));
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++) length[i] = (int)json_integer_value(json_array_get(lengths, i));
    Case c = case_new(json_integer_value(json_object_get(b, "groups")),
                      json_integer_value(json_object_get(b, "group_size")), (int64_t)k, length);
    for (size_t i = 0; i < n; i++) numbers(json_array_get(scores, i), f32(c.in.rewards) + i * k, (int64_t)k);
    numbers(json_object_get(b, "weights"), f32(c.in.weights), (int64_t)k);
    numbers(json_object_get(b, "logp"), f32(c.in.logp), c.tokens);
    numbers(json_object_get(b, "old"), f32(c.in.old_logp), c.tokens);
    numbers(json_object_get(b, "ref"), f32(c.in.ref_logp), c.tokens);
    numbers(json_object_get(b, "entropy"), f32(c.in.entropy), c.tokens);
    return c;
}

// What a case says of the step: the whole batch, or the micro-batches of one of several steps.
static inline int64_t step_rows(const json_t *g, const Case *c) {
    return c->n * (int64_t)number(g, "accumulation", 1) / (int64_t)number(g, "steps_per_generation", 1);
}

// The scalars of the step over the first rows; and the coefficient that a controller in the middle of a run applies.
static inline void golden_scalars(const json_t *g, const Case *c, GrpoParams *p, int max_completion) {
    const json_t *o = json_object_get(g, "options"), *now = json_object_get(g, "entropy_now");
    case_scalars(c, p, number(o, "top_entropy_quantile", 1), max_completion);
    LossCounts counts = {
        .sequences = step_rows(g, c), .generation_sequences = c->n, .max_completion_length = max_completion};
    for (int64_t i = 0; i < c->n; i++) {
        int64_t tokens = i32(c->in.offsets)[i + 1] - i32(c->in.offsets)[i];
        if (!((uint8_t *)c->in.mask.data)[i]) continue;
        counts.generation_tokens += tokens;
        counts.tokens += i < counts.sequences ? tokens : 0;
    }
    p->loss_scale = grpo_loss_scale(p->loss_type, counts);
    if (!now) return;
    double last = json_number_value(json_array_get(now, 1));
    p->entropy_coef = last <= number(o, "entropy_target", NAN) ? (float)json_number_value(json_array_get(now, 0)) : 0;
}

// Completions that are cut carry no token where the case's options say so.
static inline void golden_mask(Case *c, const json_t *g, const json_t *b) {
    bool masks = json_is_true(json_object_get(json_object_get(g, "options"), "mask_truncated_completions"));
    for (int64_t s = 0; masks && s < c->n; s++)
        ((uint8_t *)c->in.mask.data)[s] = !json_is_true(json_array_get(json_object_get(b, "truncated"), (size_t)s));
}
