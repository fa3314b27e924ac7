// grpo_loss: advantages, ratios, clipping, KL, entropy bonus, the loss and its gradients, one pass a sequence.
//
// With l the policy's log-prob of a token, w its ratio to the sampled one, A the completion's advantage:
//
//   ratio      token: w_t = exp(l - l_old)         sequence (GSPO): w = exp(mean over the completion of l - l_old)
//   policy     grpo, bnpo, dr_grpo, dapo: -min(min(w, delta) A, clip(w, 1 - epsilon, 1 + epsilon_high) A)
//              cispo: -stop(min(w, epsilon_high)) A l        sapo: -(4 / tau) sigmoid(tau (w - 1)) A
//   KL         beta (exp(l_ref - l) - (l_ref - l) - 1), Schulman's k3; added last: no mask on the policy term touches it
//   entropy    - entropy_coef entropy, over the tokens that carry policy loss
//
// and the loss is scale * (sum of policy + KL) + entropy_scale * (sum of entropy terms), where scale is loss_scale,
// for grpo and sapo also divided by the completion's length.
//
// Everything inside is f64 and runs in token order, so a sequence's results are the same bits in whatever micro-batch
// it arrives. Masked tokens are skipped, not multiplied by zero: inf times zero is NaN.
// Follows TRL 1.16.0 with accumulation 1 on one rank; there bnpo's and dapo's normalisers and the entropy threshold
// depend on how the batch is cut, here they are scalars of the whole batch (see grpo.h).
#include "error.h"
#include "grpo_math.h"
#include "ops.h"

// Unlike fmin and fmax these keep a NaN: a broken log-prob must show in the loss.
static double at_most(double x, double high) { return x > high ? high : x; }
static double at_least(double x, double low) { return x < low ? low : x; }

// e^700 is the largest: inf times an advantage of 0, or times the slope 0 of a clipped ratio, would be NaN.
static double ratio(double log_ratio) { return exp(at_most(log_ratio, 700)); }

// A token's policy loss, its derivative through the ratio, and its derivative by l beside the ratio.
typedef struct {
    double value, dw, dl;
} Policy;

static Policy policy_loss(double w, double l, double a, const GrpoParams *p) {
    if (p->loss_type == LOSS_CISPO) {
        double weight = at_most(w, p->epsilon_high);
        return (Policy){-weight * a * l, 0, -weight * a};
    }
    if (p->loss_type == LOSS_SAPO) {
        double tau = a > 0 ? p->sapo_tau_pos : p->sapo_tau_neg, s = 1 / (1 + exp(-tau * (w - 1)));
        return (Policy){-4 / tau * s * a, -4 * s * (1 - s) * a, 0};
    }
    double capped = p->delta > 0 ? at_most(w, p->delta) : w;
    double clipped = at_most(at_least(w, 1 - (double)p->epsilon), 1 + (double)p->epsilon_high);
    double chosen = capped * a <= clipped * a ? capped : clipped;
    return (Policy){-chosen * a, chosen == w ? -a : 0, 0}; // flat where it differs from w
}

// 1 where the ratio is clipped above, -1 where below, 0 where it counts as it is.
static int clip_side(double w, double a, const GrpoParams *p) {
    if (p->loss_type == LOSS_SAPO) return 0;
    if (p->loss_type == LOSS_CISPO) return w > p->epsilon_high && a > 0;
    return (w > 1 + (double)p->epsilon_high && a > 0) - (w < 1 - (double)p->epsilon && a < 0);
}

// False for the tokens of low entropy that top_entropy_quantile leaves out.
static bool carries_policy(const float *entropy, int64_t t, const GrpoParams *p) {
    return p->entropy_threshold == -INFINITY || entropy[t] >= p->entropy_threshold;
}

// One completion; n tokens from `first` in every [N] column.
static void sequence_loss(GrpoOut out, GrpoIn in, const GrpoParams *p, int64_t b) {
    int64_t first = i32(in.offsets)[b], n = i32(in.offsets)[b + 1] - first;
    const float *logp = f32(in.logp) + first, *old_logp = f32(in.old_logp) + first; // [n]
    const float *ref_logp = p->beta != 0 ? f32(in.ref_logp) + first : NULL;         // [n]?
    const float *entropy = present(in.entropy) ? f32(in.entropy) + first : NULL;    // [n]?
    float *dlogp = f32(out.dlogp) + first;                                          // [n]
    float *dentropy = present(out.dentropy) ? f32(out.dentropy) + first : NULL;     // [n]?
    float *metric = f32(out.metrics) + b * GM_COUNT;                                // [GM_COUNT]
    float advantage =
        (float)grpo_advantage(f32(in.rewards), i32(in.index)[b], in.group_size, f32(in.weights), in.n_rewards, p);
    double a = advantage;
    bool by_sequence = p->level == LEVEL_SEQUENCE;

    f32(out.advantage)[b] = advantage;
    for (int64_t t = 0; t < n; t++) dlogp[t] = 0;
    for (int64_t t = 0; dentropy && t < n; t++) dentropy[t] = 0;
    for (int k = 0; k < GM_COUNT; k++) metric[k] = 0;
    metric[GM_ADVANTAGE] = advantage;
    metric[GM_RATIO_MAX] = -INFINITY;
    metric[GM_RATIO_MIN] = INFINITY;
    if (n == 0 || !((const uint8_t *)in.mask.data)[b]) return;

    double log_ratio = 0; // sum over the completion
    int64_t kept = 0;     // tokens that carry policy loss
    for (int64_t t = 0; t < n; t++) {
        log_ratio += (double)logp[t] - old_logp[t];
        kept += carries_policy(entropy, t, p);
    }
    double mean_log_ratio = log_ratio / (double)n;
    // DeepSeek-V3.2's off-policy sequence mask: bad completions that the policy has already left teach it nothing.
    bool off_policy = p->off_policy_threshold > 0 && a < 0 && -mean_log_ratio > p->off_policy_threshold;
    bool by_length = p->loss_type == LOSS_GRPO || p->loss_type == LOSS_SAPO;
    double scale = by_length ? p->loss_scale / (double)n : p->loss_scale;
    double entropy_scale = p->entropy_coef != 0 ? (double)p->entropy_coef * p->entropy_scale : 0;

    double loss = 0, bonus = 0, kl = 0, entropy_sum = 0, ratio_sum = 0, ratio_max = 0, ratio_min = INFINITY;
    int64_t low = 0, high = 0;
    for (int64_t t = 0; t < n; t++) {
        double l = logp[t], w = ratio(by_sequence ? mean_log_ratio : l - old_logp[t]), dl = 0;
        bool keep = carries_policy(entropy, t, p);
        if (!off_policy) {
            Policy f = policy_loss(w, l, a, p);
            if (keep) loss += f.value, dl += f.dl;
            // The sequence's ratio moves by w / n with every token, and carries the loss of every kept one.
            dl += f.dw * w * (by_sequence ? (double)kept / (double)n : keep);
        }
        if (ref_logp) {
            double difference = ref_logp[t] - l, ratio_less_1 = expm1(difference);
            kl += ratio_less_1 - difference;
            dl -= p->beta * ratio_less_1;
        }
        dlogp[t] = (float)(scale * dl);
        if (entropy) entropy_sum += entropy[t];
        if (dentropy && keep) {
            bonus += entropy[t];
            dentropy[t] = (float)-entropy_scale;
        }
        int side = clip_side(w, a, p);
        low += side < 0;
        high += side > 0;
        ratio_sum += w;
        ratio_max = at_least(w, ratio_max);
        ratio_min = at_most(w, ratio_min);
    }

    metric[GM_TOKENS] = (float)n;
    metric[GM_LOSS] = (float)(scale * (loss + p->beta * kl) - entropy_scale * bonus);
    metric[GM_KL] = (float)kl;
    metric[GM_ENTROPY] = (float)entropy_sum;
    metric[GM_CLIP_LOW] = (float)low;
    metric[GM_CLIP_HIGH] = (float)high;
    metric[GM_CLIP_REGION] = (float)(low + high);
    metric[GM_RATIO_SUM] = (float)ratio_sum;
    metric[GM_RATIO_MAX] = (float)ratio_max;
    metric[GM_RATIO_MIN] = (float)ratio_min;
}

void cpu_grpo_loss(Device *d, GrpoOut out, GrpoIn in, GrpoParams p) {
    if (p.beta != 0 && !present(in.ref_logp)) die("grpo_loss: beta is %g but there is no ref_logp", p.beta);
    if ((p.entropy_coef != 0 || p.entropy_threshold > -INFINITY) && !present(in.entropy))
        die("grpo_loss: entropy_coef or an entropy threshold is set but there is no entropy");
    if (p.entropy_coef != 0 && !present(out.dentropy)) die("grpo_loss: entropy_coef is set but there is no dentropy");
#pragma omp parallel for schedule(dynamic)
    for (int64_t b = 0; b < in.index.dim[0]; b++) sequence_loss(out, in, &p, b);
}
