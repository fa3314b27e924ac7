// The GRPO loss of one token, in f64: the code that both devices run. grpo_loss.c explains the formulas.
#pragma once
#include "error.h"
#include "grpo_math.h"
#include <assert.h>
#include <float.h>
#include <string.h>

// Minimum and maximum that keep a NaN, unlike fmin and fmax: a broken log-prob must show in the loss.
GRPO_SHARED double at_most(double x, double high) { return x > high ? high : x; }
GRPO_SHARED double at_least(double x, double low) { return x < low ? low : x; }

// e^x as scale (1 + rest), |rest| < 0.42, for |x| <= 700: scale is a power of 2, and rest is e^r - 1 by a polynomial.
// From it e^x and e^x - 1 follow with a relative error below 5e-15, exactly at 0, for 14 multiply-adds; exp and expm1
// take the f64 units, of which a GPU has few, about twice that.
typedef struct {
    double scale, rest;
} Exponential;

GRPO_SHARED Exponential exponential(double x) {
    const double shift = 6755399441055744.0; // 1.5 2^52: adding a number rounds it to an integer, in the lowest bits
    double sum = fma(x, 1.44269504088896340736, shift), k = sum - shift;
    double r = fma(k, -1.90821492927058770002e-10, fma(k, -6.93147180369123816490e-01, x)); // x - k log 2
    const double c[] = {0.5,
                        0.1666666666664829,
                        0.04166666666665136,
                        0.008333333353729397,
                        0.0013888888905881542,
                        0.00019841208732536384,
                        2.4801536388690766e-05,
                        2.762511557828763e-06,
                        2.761380686153829e-07};
    double tail = c[8];
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int i = 7; i >= 0; i--) tail = fma(tail, r, c[i]);
    uint64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    bits = (bits + 1023) << 52;
    Exponential e = {0, fma(r * r, tail, r)};
    memcpy(&e.scale, &bits, sizeof e.scale);
    return e;
}

// A log-ratio held within 700 of 0, so that no ratio is inf: inf times an advantage of 0, or times the slope 0 of a
// clipped ratio, would be NaN.
GRPO_SHARED double bounded(double x) { return fabs(x) > 700 ? copysign(700.0, x) : x; }
GRPO_SHARED double ratio_of(double log_ratio) {
    Exponential e = exponential(bounded(log_ratio));
    return fma(e.scale, e.rest, e.scale);
}

// A token's policy loss; its derivative by the ratio w; its derivative by the log-prob l where l stands outside the
// ratio.
typedef struct {
    double value, dw, dl;
} Policy;

// The loss -weight A l with the weight held fixed.
GRPO_SHARED Policy policy_weighted(double weight, double l, double a) {
    Policy f = {-weight * a * l, 0, -weight * a};
    return f;
}

// The ratio, limited to delta where that is set (two-sided clipping).
GRPO_SHARED double capped_ratio(double w, const GrpoParams *p) { return p->delta < 0 ? w : at_most(w, p->delta); }

// The loss of grpo and of those that differ from it in how tokens are added up: the smaller of two gains, one clipped.
GRPO_SHARED Policy policy_clipped(double w, double a, const GrpoParams *p) {
    bool above = w > 1 + (double)p->epsilon_high, below = w < 1 - (double)p->epsilon;
    double low = capped_ratio(w, p), cap = low * a;
    double clip = (above ? 1 + (double)p->epsilon_high : below ? 1 - (double)p->epsilon : w) * a;
    bool flat = cap <= clip ? low < w : above || below; // where the loss does not depend on w
    Policy f = {-(cap <= clip ? cap : clip), flat ? 0 : -a, 0};
    return f;
}

// The loss of sapo: a soft gate in the place of a clip.
GRPO_SHARED Policy policy_soft(double w, double a, const GrpoParams *p) {
    double tau = a > 0 ? p->sapo_tau_pos : p->sapo_tau_neg, s = 1 / (1 + exp(-tau * (w - 1)));
    Policy f = {-4 / tau * s * a, -4 * s * (1 - s) * a, 0};
    return f;
}

// The policy loss of a token. w: its ratio (or its sequence's); phi: vespo's weight of its sequence; l: its log-prob.
GRPO_SHARED Policy token_policy(double w, double phi, double l, double a, const GrpoParams *p) {
    switch (p->loss_type) {
    case LOSS_CISPO: return policy_weighted(at_most(w, p->epsilon_high), l, a);
    case LOSS_SAPO: return policy_soft(w, a, p);
    case LOSS_VESPO: return policy_weighted(phi, l, a);
    default: return policy_clipped(w, a, p); // those with CLIP_RANGE: grpo_loss.cu takes one for another of them
    }
}
static_assert(LOSS_COUNT == 8, "a loss more or less: has each that is not CLIP_RANGE its case in token_policy?");

// vespo's weight phi of a sequence whose clamped log-ratios add up to `sum`, with TRL's bounds: lambda is at least
// 1e-4, and a phi that f32 could not hold counts as 0.
#define VESPO_TOKEN_BOUND 20.0                // bound of a token's |l - l_old|
#define VESPO_SUM_LOW     -18.420680743952367 // log 1e-8
#define VESPO_SUM_HIGH    20.0
GRPO_SHARED double vespo_phi(double sum, double a, const GrpoParams *p) {
    double k = a >= 0 ? p->vespo_k_pos : p->vespo_k_neg;
    double lambda = at_least(a >= 0 ? p->vespo_lambda_pos : p->vespo_lambda_neg, 1e-4);
    double log_w = at_least(at_most(sum, VESPO_SUM_HIGH), VESPO_SUM_LOW);
    double phi = exp(lambda + k * log_w - lambda * exp(log_w));
    return phi > FLT_MAX ? 0 : phi;
}

// 1 where the ratio is clipped above, -1 where below, 0 where it is not clipped. As in TRL, a ratio is first limited to
// delta, and compared in f32: with a delta of 1 + epsilon_high none is above.
GRPO_SHARED int clip_side(double ratio, double a, const GrpoParams *p) {
    float w = (float)ratio, capped = (float)capped_ratio(ratio, p);
    float low = (float)(1 - (double)p->epsilon), high = (float)(1 + (double)p->epsilon_high);
    switch (loss_kind(p->loss_type).clip) {
    case CLIP_RANGE: return (capped > high && a > 0) - (capped < low && a < 0);
    case CLIP_CAP: return w > p->epsilon_high && a > 0;
    case CLIP_NONE: break;
    }
    return 0;
}

// Whether a token carries policy loss: false for tokens of low entropy, which top_entropy_quantile leaves out.
GRPO_SHARED bool carries_policy(float entropy, const GrpoParams *p) {
    return p->entropy_threshold == -INFINITY || entropy >= p->entropy_threshold;
}

// One completion: its input columns, n tokens each, and where its gradients go.
typedef struct {
    int64_t n;
    const float *logp, *old_logp, *ref_logp, *entropy; // [n]; the last two may be NULL
    float *dlogp, *dentropy;                           // [n]; the last may be NULL
} Completion;

// A token's inputs, 0 where a column is absent; and its gradients.
typedef struct {
    float logp, old_logp, ref_logp, entropy;
} Token;
typedef struct {
    float dlogp, dentropy;
} TokenGradients;

GRPO_SHARED Token token_at(const Completion *c, int64_t t) {
    Token token = {c->logp[t], c->old_logp[t], 0, 0};
    if (c->ref_logp) token.ref_logp = c->ref_logp[t];
    if (c->entropy) token.entropy = c->entropy[t];
    return token;
}
GRPO_SHARED void token_leave(const Completion *c, int64_t t, TokenGradients g) {
    c->dlogp[t] = g.dlogp;
    if (c->dentropy) c->dentropy[t] = g.dentropy;
}

// Schulman's k3 estimate of the KL of one token, and its derivative by l.
typedef struct {
    double value, dl;
} Kl;

GRPO_SHARED Kl token_kl(double ref_logp, double l) {
    double difference = ref_logp - l;
    Exponential e = exponential(bounded(difference));
    double ratio_less_1 = fma(e.scale, e.rest, e.scale - 1);
    Kl kl = {ratio_less_1 - difference, -ratio_less_1};
    return kl;
}

// Whether the loss of a token depends on sums over its completion (SequenceSums), which must then be made first.
GRPO_SHARED bool needs_sequence_sums(const GrpoParams *p) {
    return p->level == LEVEL_SEQUENCE || p->loss_type == LOSS_VESPO || p->off_policy_threshold >= 0;
}
typedef struct {
    double log_ratio;      // logp - old_logp
    double clamped;        // the same, each token's within vespo's bound
    double kl;             // k3, where the sequence's ratio multiplies it
    int64_t policy_tokens; // tokens that carry policy loss
} SequenceSums;

GRPO_SHARED SequenceSums sequence_sums(void) {
    SequenceSums s = {0, 0, 0, 0};
    return s;
}
GRPO_SHARED void sequence_add(SequenceSums *s, Token x, const GrpoParams *p) {
    double log_ratio = (double)x.logp - x.old_logp;
    s->log_ratio += log_ratio;
    if (p->loss_type == LOSS_VESPO) s->clamped += at_least(at_most(log_ratio, VESPO_TOKEN_BOUND), -VESPO_TOKEN_BOUND);
    if (p->kl_ratio && p->level == LEVEL_SEQUENCE && p->beta != 0) s->kl += token_kl(x.ref_logp, x.logp).value;
    s->policy_tokens += carries_policy(x.entropy, p);
}
GRPO_SHARED void sequence_join(SequenceSums *s, const SequenceSums *more) {
    s->log_ratio += more->log_ratio;
    s->clamped += more->clamped;
    s->kl += more->kl;
    s->policy_tokens += more->policy_tokens;
}

// What the tokens of a completion have in common.
typedef struct {
    double a;              // the advantage
    double mean_log_ratio; // over the completion
    double mean_kl;        // mean of k3, where SequenceSums has it
    double phi;            // vespo's; elsewhere 0
    double scale, entropy_scale;
    double policy_fraction; // of its tokens, those that carry policy loss
    bool off_policy;
} SequenceTerms;

GRPO_SHARED SequenceTerms sequence_terms(int64_t n, float advantage, const SequenceSums *sum, const GrpoParams *p) {
    SequenceTerms s;
    s.a = advantage;
    s.mean_log_ratio = sum->log_ratio / (double)n;
    s.mean_kl = sum->kl / (double)n;
    s.phi = p->loss_type == LOSS_VESPO ? vespo_phi(sum->clamped, s.a, p) : 0;
    // DeepSeek-V3.2's off-policy sequence mask: bad completions that the policy has already left teach it nothing.
    s.off_policy = p->off_policy_threshold >= 0 && s.a < 0 && -s.mean_log_ratio > p->off_policy_threshold;
    s.scale = loss_kind(p->loss_type).sum == SUM_SEQUENCE_MEANS ? p->loss_scale / (double)n : p->loss_scale;
    s.entropy_scale = p->entropy_coef != 0 ? (double)p->entropy_coef * p->entropy_scale : 0;
    s.policy_fraction = (double)sum->policy_tokens / (double)n;
    return s;
}

// Sums over tokens, and the largest and least ratio. Those two pass over a NaN, which shows in the sum `ratio`, as
// proper ratios are at least 0 and finite.
typedef struct {
    double loss, kl, entropy, policy_entropy, ratio;
    int64_t low, high, policy_tokens;
    double ratio_max, ratio_min;
} TokenSums;

GRPO_SHARED TokenSums token_sums(void) {
    TokenSums s = {0, 0, 0, 0, 0, 0, 0, 0, 0, INFINITY};
    return s;
}
GRPO_SHARED void token_join(TokenSums *s, const TokenSums *more) {
    s->loss += more->loss;
    s->kl += more->kl;
    s->entropy += more->entropy;
    s->policy_entropy += more->policy_entropy;
    s->ratio += more->ratio;
    s->low += more->low;
    s->high += more->high;
    s->policy_tokens += more->policy_tokens;
    if (more->ratio_max > s->ratio_max) s->ratio_max = more->ratio_max;
    if (more->ratio_min < s->ratio_min) s->ratio_min = more->ratio_min;
}

// Adds a token to the sums, and returns its gradients.
GRPO_SHARED TokenGradients token_loss(TokenSums *sum, Token x, const SequenceTerms *s, const GrpoParams *p) {
    bool by_sequence = p->level == LEVEL_SEQUENCE, keep = carries_policy(x.entropy, p);
    double l = x.logp, w = ratio_of(by_sequence ? s->mean_log_ratio : l - x.old_logp), dl = 0;
    if (!s->off_policy) {
        Policy f = token_policy(w, s->phi, l, s->a, p);
        if (keep) sum->loss += f.value, dl += f.dl;
        // A sequence's ratio has the derivative w / n by each token's l, and the loss of every token that carries it
        // depends on it.
        dl += f.dw * w * (by_sequence ? s->policy_fraction : keep);
    }
    if (p->beta != 0) {
        Kl kl = token_kl(x.ref_logp, l);
        double weight = p->kl_ratio ? w : 1;
        sum->kl += weight * kl.value;
        dl += p->beta * weight * kl.dl;
        if (p->kl_ratio) dl += p->beta * w * (by_sequence ? s->mean_kl : kl.value); // d(w) / d(l) is w, or w / n
    }
    sum->entropy += x.entropy;
    if (keep) sum->policy_entropy += x.entropy;
    int side = clip_side(w, s->a, p);
    sum->low += side < 0;
    sum->high += side > 0;
    sum->policy_tokens += keep;
    sum->ratio += w;
    if (w > sum->ratio_max) sum->ratio_max = w;
    if (w < sum->ratio_min) sum->ratio_min = w;
    TokenGradients g = {(float)(s->scale * dl), keep ? (float)-s->entropy_scale : 0};
    return g;
}

// Fills metric[GM_COUNT] for a completion that is masked or empty; sequence_metrics for any other.
GRPO_SHARED void masked_metrics(float *metric, float advantage, const GrpoParams *p) {
    for (int k = 0; k < GM_COUNT; k++) metric[k] = 0;
    if (p->loss_type == LOSS_VESPO) metric[GM_PHI] = (float)vespo_phi(0, advantage, p);
    // As in TRL, a masked completion has a sequence ratio of 1, which can be outside the clip.
    int side = p->level == LEVEL_SEQUENCE ? clip_side(1, advantage, p) : 0;
    metric[GM_CLIP_LOW] = side < 0;
    metric[GM_CLIP_HIGH] = side > 0;
    metric[GM_CLIP_REGION] = side != 0;
    metric[GM_ADVANTAGE] = advantage;
    metric[GM_RATIO_MAX] = -INFINITY;
    metric[GM_RATIO_MIN] = INFINITY;
}
GRPO_SHARED void sequence_metrics(float *metric, int64_t n, float advantage, const TokenSums *sum,
                                  const SequenceTerms *s, const GrpoParams *p) {
    metric[GM_TOKENS] = (float)n;
    double policy = s->scale * (sum->loss + p->beta * sum->kl);
    // Without an entropy bonus a NaN entropy must not reach the loss.
    metric[GM_LOSS] = (float)(s->entropy_scale != 0 ? policy - s->entropy_scale * sum->policy_entropy : policy);
    metric[GM_POLICY] = (float)policy;
    metric[GM_POLICY_TOKENS] = (float)sum->policy_tokens;
    metric[GM_POLICY_ENTROPY] = (float)sum->policy_entropy;
    metric[GM_PHI] = (float)s->phi;
    metric[GM_KL] = (float)sum->kl;
    metric[GM_ENTROPY] = (float)sum->entropy;
    metric[GM_CLIP_LOW] = (float)sum->low;
    metric[GM_CLIP_HIGH] = (float)sum->high;
    metric[GM_CLIP_REGION] = (float)(sum->low + sum->high);
    metric[GM_RATIO_SUM] = (float)sum->ratio;
    metric[GM_RATIO_MAX] = isnan(sum->ratio) ? NAN : (float)sum->ratio_max;
    metric[GM_RATIO_MIN] = isnan(sum->ratio) ? NAN : (float)sum->ratio_min;
    metric[GM_ADVANTAGE] = advantage;
}

// Ends the program where an option needs a column that is absent: a bug of the caller.
static inline void grpo_loss_check(GrpoOut out, GrpoIn in, const GrpoParams *p) {
    if (p->beta != 0 && !present(in.ref_logp)) die("grpo_loss: beta is %g but there is no ref_logp", (double)p->beta);
    if ((p->entropy_coef != 0 || p->entropy_threshold > -INFINITY) && !present(in.entropy))
        die("grpo_loss: entropy_coef or an entropy threshold is set but there is no entropy");
    if (p->entropy_coef != 0 && !present(out.dentropy)) die("grpo_loss: entropy_coef is set but there is no dentropy");
}
