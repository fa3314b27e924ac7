// One token of the GRPO loss: what both devices compute of it, in f64. The formulas are told in grpo_loss.c.
#pragma once
#include "error.h"
#include "grpo_math.h"

// Unlike fmin and fmax these keep a NaN: a broken log-prob must show in the loss.
GRPO_SHARED double at_most(double x, double high) { return x > high ? high : x; }
GRPO_SHARED double at_least(double x, double low) { return x < low ? low : x; }

// The larger and the smaller of two; a NaN wins over both.
GRPO_SHARED double larger(double a, double b) { return isnan(a) || a > b ? a : b; }
GRPO_SHARED double smaller(double a, double b) { return isnan(a) || a < b ? a : b; }

// e^700 is the largest: inf times an advantage of 0, or times the slope 0 of a clipped ratio, would be NaN.
GRPO_SHARED double ratio_of(double log_ratio) { return exp(at_most(log_ratio, 700)); }

// A token's policy loss, its derivative through the ratio, and its derivative by l beside the ratio.
typedef struct {
    double value, dw, dl;
} Policy;

GRPO_SHARED Policy policy_loss(double w, double l, double a, const GrpoParams *p) {
    Policy f = {0, 0, 0};
    if (p->loss_type == LOSS_CISPO) {
        double weight = at_most(w, p->epsilon_high);
        f.value = -weight * a * l;
        f.dl = -weight * a;
        return f;
    }
    if (p->loss_type == LOSS_SAPO) {
        double tau = a > 0 ? p->sapo_tau_pos : p->sapo_tau_neg, s = 1 / (1 + exp(-tau * (w - 1)));
        f.value = -4 / tau * s * a;
        f.dw = -4 * s * (1 - s) * a;
        return f;
    }
    double capped = p->delta > 0 ? at_most(w, p->delta) : w;
    double clipped = at_most(at_least(w, 1 - (double)p->epsilon), 1 + (double)p->epsilon_high);
    double chosen = capped * a <= clipped * a ? capped : clipped;
    f.value = -chosen * a;
    f.dw = chosen == w ? -a : 0; // flat where it differs from w
    return f;
}

// 1 where the ratio is clipped above, -1 where below, 0 where it counts as it is.
GRPO_SHARED int clip_side(double w, double a, const GrpoParams *p) {
    if (p->loss_type == LOSS_SAPO) return 0;
    if (p->loss_type == LOSS_CISPO) return w > p->epsilon_high && a > 0;
    return (w > 1 + (double)p->epsilon_high && a > 0) - (w < 1 - (double)p->epsilon && a < 0);
}

// False for the tokens of low entropy that top_entropy_quantile leaves out.
GRPO_SHARED bool carries_policy(const float *entropy, int64_t t, const GrpoParams *p) {
    return p->entropy_threshold == -INFINITY || entropy[t] >= p->entropy_threshold;
}

// One completion as an op sees it: its columns, n tokens each, and where its results go.
typedef struct {
    int64_t n;
    const float *logp, *old_logp, *ref_logp, *entropy; // [n]; the last two may be NULL
    float *dlogp, *dentropy;                           // [n]; the last may be NULL
} Completion;

// What the tokens have in common.
typedef struct {
    double a;              // the advantage
    double mean_log_ratio; // over the completion
    double scale, entropy_scale;
    double kept; // the share of tokens that carry policy loss
    bool off_policy;
} SequenceTerms;

// Needs the sums over the completion of logp - old_logp and of the tokens that carry policy loss.
GRPO_SHARED SequenceTerms sequence_terms(int64_t n, float advantage, double log_ratio, int64_t kept,
                                         const GrpoParams *p) {
    SequenceTerms s;
    bool by_length = p->loss_type == LOSS_GRPO || p->loss_type == LOSS_SAPO;
    s.a = advantage;
    s.mean_log_ratio = log_ratio / (double)n;
    // DeepSeek-V3.2's off-policy sequence mask: bad completions that the policy has already left teach it nothing.
    s.off_policy = p->off_policy_threshold > 0 && s.a < 0 && -s.mean_log_ratio > p->off_policy_threshold;
    s.scale = by_length ? p->loss_scale / (double)n : p->loss_scale;
    s.entropy_scale = p->entropy_coef != 0 ? (double)p->entropy_coef * p->entropy_scale : 0;
    s.kept = (double)kept / (double)n;
    return s;
}

// Sums over tokens; the last two are extremes.
typedef struct {
    double loss, bonus, kl, entropy, ratio;
    int64_t low, high;
    double ratio_max, ratio_min;
} TokenSums;

GRPO_SHARED TokenSums token_sums(void) {
    TokenSums s = {0, 0, 0, 0, 0, 0, 0, 0, INFINITY};
    return s;
}

// Adds token t and writes its gradients.
GRPO_SHARED void token_loss(TokenSums *sum, const Completion *c, int64_t t, const SequenceTerms *s,
                            const GrpoParams *p) {
    bool by_sequence = p->level == LEVEL_SEQUENCE, keep = carries_policy(c->entropy, t, p);
    double l = c->logp[t], w = ratio_of(by_sequence ? s->mean_log_ratio : l - c->old_logp[t]), dl = 0;
    if (!s->off_policy) {
        Policy f = policy_loss(w, l, s->a, p);
        if (keep) sum->loss += f.value, dl += f.dl;
        // The sequence's ratio moves by w / n with every token, and carries the loss of every kept one.
        dl += f.dw * w * (by_sequence ? s->kept : keep);
    }
    if (c->ref_logp) {
        double difference = c->ref_logp[t] - l, ratio_less_1 = expm1(difference);
        sum->kl += ratio_less_1 - difference;
        dl -= p->beta * ratio_less_1;
    }
    c->dlogp[t] = (float)(s->scale * dl);
    if (c->entropy) sum->entropy += c->entropy[t];
    if (c->dentropy) c->dentropy[t] = keep ? (float)-s->entropy_scale : 0;
    if (c->dentropy && keep) sum->bonus += c->entropy[t];
    int side = clip_side(w, s->a, p);
    sum->low += side < 0;
    sum->high += side > 0;
    sum->ratio += w;
    sum->ratio_max = larger(w, sum->ratio_max);
    sum->ratio_min = smaller(w, sum->ratio_min);
}

// metric[GM_COUNT] of a completion that is masked (or empty), and of one that is not.
GRPO_SHARED void masked_metrics(float *metric, float advantage) {
    for (int k = 0; k < GM_COUNT; k++) metric[k] = 0;
    metric[GM_ADVANTAGE] = advantage;
    metric[GM_RATIO_MAX] = -INFINITY;
    metric[GM_RATIO_MIN] = INFINITY;
}
GRPO_SHARED void sequence_metrics(float *metric, int64_t n, float advantage, const TokenSums *sum,
                                  const SequenceTerms *s, const GrpoParams *p) {
    metric[GM_TOKENS] = (float)n;
    metric[GM_LOSS] = (float)(s->scale * (sum->loss + p->beta * sum->kl) - s->entropy_scale * sum->bonus);
    metric[GM_KL] = (float)sum->kl;
    metric[GM_ENTROPY] = (float)sum->entropy;
    metric[GM_CLIP_LOW] = (float)sum->low;
    metric[GM_CLIP_HIGH] = (float)sum->high;
    metric[GM_CLIP_REGION] = (float)(sum->low + sum->high);
    metric[GM_RATIO_SUM] = (float)sum->ratio;
    metric[GM_RATIO_MAX] = (float)sum->ratio_max;
    metric[GM_RATIO_MIN] = (float)sum->ratio_min;
    metric[GM_ADVANTAGE] = advantage;
}

// Dies where an option needs a column that is not given: a bug of the caller's.
static inline void grpo_loss_check(GrpoOut out, GrpoIn in, const GrpoParams *p) {
    if (p->beta != 0 && !present(in.ref_logp)) die("grpo_loss: beta is %g but there is no ref_logp", (double)p->beta);
    if ((p->entropy_coef != 0 || p->entropy_threshold > -INFINITY) && !present(in.entropy))
        die("grpo_loss: entropy_coef or an entropy threshold is set but there is no entropy");
    if (p->entropy_coef != 0 && !present(out.dentropy)) die("grpo_loss: entropy_coef is set but there is no dentropy");
}
