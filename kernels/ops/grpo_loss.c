// grpo_loss: advantages, ratios, clipping, KL, entropy bonus, the loss and its gradients, in one pass over each
// sequence.
//
// With l the policy's log-prob of a token, w its ratio to the sampled one, A the completion's advantage:
//
//   ratio      token: w_t = exp(l - l_old)         sequence (GSPO): w = exp(mean over the completion of l - l_old)
//   policy     grpo, bnpo, dr_grpo, dapo, luspo: -min(min(w, delta) A, clip(w, 1 - epsilon, 1 + epsilon_high) A)
//              cispo: -stop(min(w, epsilon_high)) A l        sapo: -(4 / tau) sigmoid(tau (w - 1)) A
//              vespo: -stop(phi) A l, log phi = lambda + k log W - lambda W, W = exp(sum over the completion of
//              l - l_old)
//   KL         beta (exp(l_ref - l) - (l_ref - l) - 1), Schulman's k3, times w with kl_ratio; added last: no mask on
//              the policy term touches it
//   entropy    - entropy_coef entropy, over the tokens that carry policy loss
//
// and the loss is scale * (sum of policy + KL) + entropy_scale * (sum of entropy terms), where scale is loss_scale,
// for a mean of sequences' means also divided by the completion's length.
//
// Everything inside is f64 and runs in token order, so a sequence's results are the same bits in every micro-batch. The
// formulas for one token are in grpo_token.h, for both devices. Masked tokens are skipped, not multiplied by zero: inf
// times zero is NaN. Follows TRL 1.16.0 with accumulation 1 on one rank; in TRL bnpo's and dapo's normalisers and the
// entropy threshold depend on how the batch is cut, here they are scalars of the whole batch (grpo.h).
#include "grpo_token.h"
#include "ops.h"

// The loss of one completion, number b of the micro-batch; its tokens are the same n of every [N] column.
static void sequence_loss(GrpoOut out, GrpoIn in, const GrpoParams *p, int64_t b) {
    int64_t first = i32(in.offsets)[b];
    Completion c = {.n = i32(in.offsets)[b + 1] - first,
                    .logp = f32(in.logp) + first,
                    .old_logp = f32(in.old_logp) + first,
                    .ref_logp = p->beta != 0 ? f32(in.ref_logp) + first : NULL,
                    .entropy = present(in.entropy) ? f32(in.entropy) + first : NULL,
                    .dlogp = f32(out.dlogp) + first,
                    .dentropy = present(out.dentropy) ? f32(out.dentropy) + first : NULL};
    float *metric = f32(out.metrics) + b * GM_COUNT; // [GM_COUNT]
    float advantage =
        (float)grpo_advantage(f32(in.rewards), i32(in.index)[b], in.group_size, f32(in.weights), in.n_rewards, p);
    f32(out.advantage)[b] = advantage;
    if (c.n == 0 || !((const uint8_t *)in.mask.data)[b]) {
        for (int64_t t = 0; t < c.n; t++) c.dlogp[t] = 0;
        for (int64_t t = 0; c.dentropy && t < c.n; t++) c.dentropy[t] = 0;
        masked_metrics(metric, advantage, p);
        return;
    }
    SequenceSums whole = sequence_sums();
    for (int64_t t = 0; t < c.n && needs_sequence_sums(p); t++) sequence_add(&whole, token_at(&c, t), p);
    SequenceTerms s = sequence_terms(c.n, advantage, &whole, p);
    TokenSums sum = token_sums();
    for (int64_t t = 0; t < c.n; t++) token_leave(&c, t, token_loss(&sum, token_at(&c, t), &s, p));
    sequence_metrics(metric, c.n, advantage, &sum, &s, p);
}

void cpu_grpo_loss(Device *d, GrpoOut out, GrpoIn in, GrpoParams p) {
    grpo_loss_check(out, in, &p);
#pragma omp parallel for schedule(dynamic)
    for (int64_t b = 0; b < in.index.dim[0]; b++) sequence_loss(out, in, &p, b);
}
