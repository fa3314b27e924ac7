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

typedef struct {
    double value, slope; // L(w), dL/dw
} Policy;

static Policy policy_clipped(double w, double a, const GrpoParams *p) {
    double low = 1 - (double)p->epsilon, high = 1 + (double)p->epsilon_high;
    double capped = p->delta > 0 && w > p->delta ? p->delta : w;
    double clipped = w < low ? low : w > high ? high : w;
    // Both are flat where they differ from w.
    double chosen = capped * a <= clipped * a ? capped : clipped;
    return (Policy){-chosen * a, chosen == w ? -a : 0};
}

static Policy policy_sapo(double w, double a, const GrpoParams *p) {
    double tau = a > 0 ? p->sapo_tau_pos : p->sapo_tau_neg;
    double s = 1 / (1 + exp(-tau * (w - 1)));
    return (Policy){-4 / tau * s * a, -4 * s * (1 - s) * a};
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
    bool by_entropy = p->entropy_threshold > -INFINITY, by_sequence = p->level == LEVEL_SEQUENCE;

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
        kept += !by_entropy || entropy[t] >= p->entropy_threshold;
    }
    double mean_log_ratio = log_ratio / (double)n;
    // DeepSeek-V3.2's off-policy sequence mask: bad completions that the policy has already left teach it nothing.
    bool off_policy = p->off_policy_threshold > 0 && a < 0 && -mean_log_ratio > p->off_policy_threshold;
    // Where A is 0 the policy term is 0, even if a ratio overflowed.
    bool has_policy = a != 0 && !off_policy;
    double scale = p->loss_scale;
    if (p->loss_type == LOSS_GRPO || p->loss_type == LOSS_SAPO) scale /= (double)n;
    double entropy_scale = p->entropy_coef != 0 ? (double)p->entropy_coef * p->entropy_scale : 0;

    double policy_sum = 0, kl_sum = 0, bonus_sum = 0, entropy_sum = 0, ratio_sum = 0, ratio_max = 0,
           ratio_min = INFINITY;
    int64_t low = 0, high = 0;
    for (int64_t t = 0; t < n; t++) {
        double l = logp[t], w = exp(by_sequence ? mean_log_ratio : l - old_logp[t]), dl = 0;
        bool keep = !by_entropy || entropy[t] >= p->entropy_threshold;
        if (p->loss_type == LOSS_CISPO) {
            double weight = w < p->epsilon_high ? w : p->epsilon_high;
            if (has_policy && keep) policy_sum -= weight * a * l, dl -= weight * a;
            high += w > p->epsilon_high && a > 0;
        } else if (has_policy) {
            Policy policy = p->loss_type == LOSS_SAPO ? policy_sapo(w, a, p) : policy_clipped(w, a, p);
            if (keep) policy_sum += policy.value;
            // The sequence's ratio moves by w / n with every token, and carries the loss of every kept one.
            if (by_sequence) dl += policy.slope * w * (double)kept / (double)n;
            else if (keep) dl += policy.slope * w;
        }
        if (p->loss_type != LOSS_CISPO && p->loss_type != LOSS_SAPO) {
            low += w < 1 - (double)p->epsilon && a < 0;
            high += w > 1 + (double)p->epsilon_high && a > 0;
        }
        if (ref_logp) {
            double difference = ref_logp[t] - l, ratio_less_1 = expm1(difference);
            kl_sum += ratio_less_1 - difference;
            dl -= p->beta * ratio_less_1;
        }
        dlogp[t] = (float)(scale * dl);
        if (entropy) entropy_sum += entropy[t];
        if (dentropy && keep) {
            bonus_sum += entropy[t];
            dentropy[t] = (float)-entropy_scale;
        }
        ratio_sum += w;
        if (w > ratio_max) ratio_max = w;
        if (w < ratio_min) ratio_min = w;
    }

    metric[GM_TOKENS] = (float)n;
    metric[GM_LOSS] = (float)(scale * (policy_sum + p->beta * kl_sum) - entropy_scale * bonus_sum);
    metric[GM_KL] = (float)kl_sum;
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
