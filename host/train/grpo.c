// The GRPO step. A question's journey, in order: data set, chat, tokenizer -> rollout -> rewards -> reference
// -> log-probs -> grpo_loss -> backward -> optimizer. One generation feeds one or more optimizer steps; the first of
// them trains with the numbers the sampler kept.
#include "exchange.h"
#include "clock.h"
#include "device.h"
#include "grpo_math.h"
#include "grpo_scalars.h"
#include "optim.h"
#include "random.h"
#include "ranks.h"
#include "signals.h"
#include "train.h"
#include <math.h>
#include <stdlib.h>
#include <time.h>

static float training_temperature(const Config *c) { return c->temperature > 0 ? (float)c->temperature : 1; }

// Ends a step whose numbers are not finite: it changes no weight, and the name of the tensor at fault is kept for the
// log.
static StepResult bad_numbers(StepStats *stats, const char *what, const char *where) {
    snprintf(stats->bad, sizeof stats->bad, "%s%s%s", what, *where ? ": " : "", where);
    return STEP_SKIPPED;
}

static float *row_f(float *column, const Batch *b, int i) { return column + (size_t)i * (size_t)b->max_completion; }

// How many neighbouring completions share the computation of their prompt: a group, or 1.
static int sharing(const Config *c, const Batch *b) { return c->share_prompts ? b->group : 1; }

// Adds sequence i to the packing: its prompt's tokens without the first `shared`, then its completion, which is scored.
static bool pack_sequence(Generation *g, int i, size_t shared) {
    const Batch *b = &g->batch;
    const Ids *prompt = &b->prompt[i / b->group];
    size_t own = prompt->n - shared, len = (size_t)b->len[i];
    memcpy(g->joined, prompt->id + shared, own * 4);
    memcpy(g->joined + own, b->ids + (size_t)i * (size_t)b->max_completion, len * 4);
    return packing_add(&g->packing, g->joined, (int64_t)(own + len), (int64_t)own, NULL);
}

// Packs sequences; neighbours with the same prompt share its rows, except the last, which predicts each completion's
// first token.
static TrainWork pack_micro(Trainer *t, const int *seq, int n) {
    Packing *to = &t->generation.packing;
    int together = sharing(t->cfg, &t->generation.batch);
    packing_clear(to);
    bool fits = true;
    for (int j = 0, end; j < n; j = end) {
        int p = seq[j] / together;
        for (end = j + 1; end < n && seq[end] / together == p; end++) {
        }
        const Ids *prompt = &t->generation.batch.prompt[seq[j] / t->generation.batch.group];
        size_t shared = end - j > 1 ? prompt->n - 1 : 0;
        fits = fits && packing_prefix(to, prompt->id, (int64_t)shared);
        for (int k = j; k < end; k++) fits = fits && pack_sequence(&t->generation, seq[k], shared);
    }
    if (!fits)
        die("a micro-batch of %d completions (the first is %d) does not fit its %lld rows of %lld sequences", n, seq[0],
            (long long)to->max_tokens, (long long)to->max_sequences);
    return micro_pack(&t->learner, to);
}

// Whether the step trains the very weights that sampled: then the sampler's log-probs, logsumexps and entropies are
// what training would compute (see ops.h), and it need not.
static bool on_policy(const Generation *g, const TrainState *s) { return g->exact && s->fed == 0; }

// Starts copying a per-token column of the sequences, side by side, to the device tensor dst[N].
static void gather(Learner *l, Generation *g, Tensor dst, float *column, const int *seq, int n) {
    float *at = g->scored;
    for (int j = 0; j < n; at += g->batch.len[seq[j++]])
        memcpy(at, row_f(column, &g->batch, seq[j]), (size_t)g->batch.len[seq[j]] * 4);
    micro_upload(l, dst, g->scored);
}

// Waits for what micro-batches have left in work.held, a number a token of the sequences, and puts it into a column.
static void scatter(Learner *l, Generation *g, float *column, const int *seq, int n) {
    int64_t tokens = 0;
    for (int j = 0; j < n; j++) tokens += g->batch.len[seq[j]];
    micro_fetch(l, tokens, g->scored);
    const float *at = g->scored;
    for (int j = 0; j < n; at += g->batch.len[seq[j++]])
        memcpy(row_f(column, &g->batch, seq[j]), at, (size_t)g->batch.len[seq[j]] * 4);
}

// Says that the step is in a phase, `done` of `total`: to the terminal, to ranks that wait and to a profiler.
static void enter(Trainer *t, const char *phase, int64_t done, int64_t total) {
    progress_phase(t->report.progress, phase, done, total);
    ranks_phase(phase, t->state.step + 1);
    profile_phase(&t->report.profile, phase);
}

// Runs `m` over this rank's range of the sequences in micro-batches, keeping log-probs or entropies on the host; the
// other ranks bring the rest.
static StepResult score_tokens(Trainer *t, const Model *m, const int *seq, int n, float *column, Error *e) {
    int size = (int)t->cfg->per_device_train_batch_size, count;
    RankRange own = rank_range(t->learner.engine.comm, n);
    const char *phase = m == &t->learner.engine.policy ? "entropy" : "reference";
    StepResult s = STEP_DONE;
    int64_t held = 0;
    for (int at = own.first; at < own.end && s == STEP_DONE; at += count) {
        count = micro_take(seq + at, own.end - at, size, sharing(t->cfg, &t->generation.batch));
        if (stop_requested()) s = STEP_STOPPED;
        else {
            enter(t, phase, at - own.first, own.end - own.first);
            TrainWork w = pack_micro(t, seq + at, count);
            micro_forward(t->learner.engine.device, m, &w, training_temperature(t->cfg));
            micro_hold(&t->learner, held, m == &t->learner.engine.policy ? w.entropy : w.logp);
            held += w.logp.dim[0];
        }
    }
    if (s == STEP_DONE) scatter(&t->learner, &t->generation, column, seq + own.first, own.end - own.first);
    s = ranks_agree(&t->learner.engine, &t->stats, s, e);
    return s == STEP_DONE &&
                   !ranks_exchange_tokens(t->learner.engine.comm, &t->generation.batch, phase, column, seq, n, e)
               ? STEP_FAILED
               : s;
}

bool group_is_flat(const Batch *b, int p) {
    float first = NAN;
    for (int i = p * b->group; i < (p + 1) * b->group; i++) {
        if (isnan(b->reward[i])) continue;
        if (isnan(first)) first = b->reward[i];
        else if (b->reward[i] != first) return false;
    }
    return true;
}

// Draws a question for every group, or with `only_flat` for the flat ones anew; *drawn says for how many.
static bool draw_questions(Trainer *t, bool only_flat, int *drawn, Error *e) {
    Batch *b = &t->generation.batch;
    *drawn = 0;
    for (int p = 0; p < b->prompts; p++) {
        if (only_flat && !group_is_flat(b, p)) continue;
        batch_clear_prompt(b, p);
        if (!prompter_next(&t->questions.prompter, t->questions.data, b, p, e)) return false;
        for (int i = p * b->group; i < (p + 1) * b->group; i++) b->key[i] = t->generation.next_key++;
        ++*drawn;
    }
    return true;
}

static void take_decoded(void *arg, int i) {
    Trainer *t = arg;
    scorer_add(t->scoring.scorer, i);
    enter(t, "rollout", ++t->generation.decoded, t->generation.batch.n / comm_world(t->learner.engine.comm));
}

// Samples and scores this rank's questions; then every rank gets those of the others.
static StepResult rollout(Trainer *t, Error *e) {
    double start = clock_seconds();
    RankRange own = rank_range(t->learner.engine.comm, t->generation.batch.prompts);
    Batch own_batch = batch_slice(&t->generation.batch, own.first, own.end - own.first);
    t->generation.decoded = 0;
    enter(t, "rollout", 0, own_batch.n);
    scorer_begin(t->scoring.scorer, &own_batch);
    bool ok = rollout_run(&t->learner.engine.rollout, t->learner.engine.device, &t->learner.engine.policy,
                          t->learner.engine.tokenizer, engine_stop_rule(&t->learner.engine), sample_params(t->cfg),
                          &own_batch, (RolloutWatch){.done = take_decoded, .arg = t}, e);
    t->stats.rollout_time += clock_seconds() - start;
    start = clock_seconds();
    if (ok) enter(t, "rewards", 0, 0);
    ok = ok && engine_score(&t->learner.engine, &own_batch, e);
    ok = scorer_end(t->scoring.scorer, ok, e);
    t->stats.reward_time += clock_seconds() - start;
    if (!ok && e->code != EXIT_STOPPED) return STEP_FAILED;
    StepResult s = ranks_agree(&t->learner.engine, &t->stats, ok ? STEP_DONE : STEP_STOPPED, e);
    Comm *comm = t->learner.engine.comm;
    return s == STEP_DONE && !(ranks_exchange_completions(comm, &t->generation.batch, e) &&
                               ranks_exchange_rewards(comm, &t->scoring.rewards, e))
               ? STEP_FAILED
               : s;
}

static const char *first_bad_completion(const Batch *b, char *where, size_t n) {
    int i, j;
    if (batch_bad_logp(b, &i, &j)) {
        snprintf(where, n, "completion %d, token %d", i, j);
        return "sampled log-prob";
    }
    for (i = 0; i < b->n; i++)
        if (isinf(b->reward[i])) {
            snprintf(where, n, "completion %d", i);
            return "reward";
        }
    return NULL;
}

// Draws a new generation: questions, completions, scores, reference log-probs, all of which stay fixed while it is
// trained on.
static StepResult generate(Trainer *t, Error *e) {
    const Config *c = t->cfg;
    Batch *b = &t->generation.batch;
    int drawn;
    if (!draw_questions(t, false, &drawn, e)) return STEP_FAILED;
    for (int64_t round = 0;; round++) {
        StepResult s = rollout(t, e);
        if (s != STEP_DONE) return s;
        if (round >= c->dynamic_sampling) break;
        if (!draw_questions(t, true, &drawn, e)) return STEP_FAILED;
        if (!drawn) break;
    }
    if (c->shuffle_rewards) rewards_shuffle(b, (uint64_t)c->seed, (uint64_t)t->state.step);
    char where[64];
    const char *bad = first_bad_completion(b, where, sizeof where);
    if (bad) return bad_numbers(&t->stats, bad, where);

    StepResult s = STEP_DONE;
    if (c->beta != 0) {
        double start = clock_seconds();
        enter(t, "reference", 0, 0);
        if (!learner_reference(&t->learner, e)) return STEP_FAILED;
        grpo_order(t->generation.order, b->n, 1, 0, 0); // groups whole, whatever their steps
        s = score_tokens(t, &t->learner.reference, t->generation.order, b->n, b->ref_logp, e);
        t->stats.reference_time += clock_seconds() - start;
    }
    grpo_order(t->generation.order, b->n, t->generation.steps_per_pass, (uint64_t)c->seed, (uint64_t)b->key[0]);
    return s;
}

static int ascending(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

void grpo_order(int *order, int n, int steps, uint64_t seed, uint64_t stream) {
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = n - 1; i > 0 && steps > 1; i--) {
        int j = (int)(random_bits(seed, stream, (uint64_t)i) % (uint64_t)(i + 1)), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    for (int i = 0; i < steps; i++) qsort(order + i * (n / steps), (size_t)(n / steps), sizeof *order, ascending);
}

// Whether sequence i counts in the loss.
static bool counts(const Config *c, const Batch *b, int i) {
    return !(c->mask_truncated_completions && b->finish[i] == FINISH_LENGTH);
}

static int64_t masked_tokens(const Config *c, const Batch *b, const int *seq, int n) {
    int64_t sum = 0;
    for (int j = 0; j < n; j++) sum += counts(c, b, seq[j]) ? b->len[seq[j]] : 0;
    return sum;
}

// The coefficient of this step's entropy bonus. An adaptive one waits until a step's entropy was at or below the
// target.
static double entropy_coef(const Config *c, const TrainState *s) {
    if (!c->use_adaptive_entropy) return c->entropy_coef;
    bool measured = s->last_entropy >= 0;
    return measured && s->last_entropy <= c->entropy_target ? s->entropy_coef : 0;
}

// Adapts the coefficient to the mean entropy of the tokens that carried policy loss in the step over seq[0..n).
static void adapt_entropy_coef(TrainState *s, const Config *c, const Generation *g, const int *seq, int n) {
    if (!c->use_adaptive_entropy) return;
    double sum = 0, tokens = 0;
    for (int j = 0; j < n; j++) {
        sum += g->metric[seq[j]][GM_POLICY_ENTROPY];
        tokens += g->metric[seq[j]][GM_POLICY_TOKENS];
    }
    s->last_entropy = sum / fmax(tokens, 1);
    s->entropy_coef = grpo_next_entropy_coef(s->entropy_coef, s->last_entropy,
                                             (EntropyRule){.target = c->entropy_target,
                                                           .delta = c->entropy_coef_delta,
                                                           .min = c->entropy_coef_min,
                                                           .max = c->entropy_coef_max});
}

// The loss's scalars for the optimizer step over seq[0..n). Needs every entropy of the step where only some of the
// tokens carry the loss.
static StepResult loss_params(Trainer *t, const int *seq, int n, GrpoParams *p, Error *e) {
    const Config *c = t->cfg;
    Batch *b = &t->generation.batch;
    *p = (GrpoParams){.loss_type = (LossType)c->loss_type,
                      .level = (RatioLevel)c->importance_sampling_level,
                      .scale_rewards = (ScaleRewards)c->scale_rewards,
                      .aggregation = (RewardAggregation)c->multi_objective_aggregation,
                      .epsilon = (float)c->epsilon,
                      .epsilon_high = (float)config_epsilon_high(c),
                      .delta = (float)c->delta,
                      .beta = (float)c->beta,
                      .kl_ratio = c->use_bias_correction_kl,
                      .entropy_coef = (float)entropy_coef(c, &t->state),
                      .sapo_tau_pos = (float)c->sapo_temperature_pos,
                      .sapo_tau_neg = (float)c->sapo_temperature_neg,
                      .vespo_k_pos = (float)c->vespo_k_pos,
                      .vespo_lambda_pos = (float)c->vespo_lambda_pos,
                      .vespo_k_neg = (float)c->vespo_k_neg,
                      .vespo_lambda_neg = (float)c->vespo_lambda_neg,
                      .entropy_threshold = -INFINITY,
                      .off_policy_threshold = (float)c->off_policy_mask_threshold};
    int64_t tokens = masked_tokens(c, b, seq, n), counted = tokens;
    if (c->top_entropy_quantile < 1) {
        StepResult s = on_policy(&t->generation, &t->state)
                           ? STEP_DONE
                           : score_tokens(t, &t->learner.engine.policy, seq, n, b->entropy, e);
        if (s != STEP_DONE) return s;
        float *all = xmalloc((size_t)(tokens ? tokens : 1) * sizeof *all), *at = all;
        for (int j = 0; j < n; j++) {
            if (!counts(c, b, seq[j])) continue;
            memcpy(at, row_f(b->entropy, b, seq[j]), (size_t)b->len[seq[j]] * 4);
            at += b->len[seq[j]];
        }
        p->entropy_threshold = grpo_entropy_threshold(all, tokens, c->top_entropy_quantile, &counted);
        free(all);
    }
    p->entropy_scale = 1.0f / (float)(counted > 0 ? counted : 1);
    p->loss_scale =
        grpo_loss_scale(p->loss_type, (LossCounts){.sequences = n,
                                                   .tokens = tokens,
                                                   .generation_sequences = b->n,
                                                   .generation_tokens = masked_tokens(c, b, t->generation.order, b->n),
                                                   .max_completion_length = c->max_completion_length});
    p->batch_std = grpo_batch_std(b->score, t->scoring.weights, b->prompts, b->group, b->n_rewards, p->aggregation);
    // Of the whole generation, also where this step trains on a part of it: completions.jsonl has all of them.
    for (int i = 0; i < b->n; i++)
        b->advantage[i] = (float)grpo_advantage(b->score, i, b->group, t->scoring.weights, b->n_rewards, p);
    return STEP_DONE;
}

// The model over one micro-batch, and the log-probs, logsumexps and entropies of its completions: computed, or as kept.
static void forward(Trainer *t, TrainWork *w, const int *seq, int n) {
    Learner *l = &t->learner;
    Batch *b = &t->generation.batch;
    gather(l, &t->generation, w->old_logp, b->logp, seq, n);
    if (!on_policy(&t->generation, &t->state)) {
        micro_forward(l->engine.device, &l->engine.policy, w, training_temperature(t->cfg));
        return;
    }
    w->logp = w->old_logp;
    gather(l, &t->generation, w->lse, b->lse, seq, n);
    gather(l, &t->generation, w->entropy, b->entropy, seq, n);
    micro_hidden(l->engine.device, &l->engine.policy, w);
}

// Queues log-probs, loss and gradients of one micro-batch (the step's last?) on the device; its metrics [n,GM_COUNT]
// stay there for now.
static void train_micro(Trainer *t, const int *seq, int n, GrpoParams p, Tensor metrics, bool last) {
    Learner *l = &t->learner;
    Device *d = l->engine.device;
    Batch *b = &t->generation.batch;
    TrainWork w = pack_micro(t, seq, n);
    t->stats.rows += (double)t->generation.packing.T;
    t->stats.rows_alone += (double)t->generation.packing.alone;
    forward(t, &w, seq, n);
    if (p.beta != 0) gather(l, &t->generation, w.ref_logp, b->ref_logp, seq, n);
    int32_t *index = xmalloc((size_t)n * sizeof *index);
    uint8_t *mask = xmalloc((size_t)n);
    for (int j = 0; j < n; j++) {
        index[j] = seq[j];
        mask[j] = counts(t->cfg, b, seq[j]);
    }
    micro_upload(l, w.index, index);
    micro_upload(l, w.mask, mask);
    micro_upload(l, w.rewards, b->score);
    micro_upload(l, w.weights, t->scoring.weights);
    free(index);
    free(mask);
    GrpoIn in = {.groups = b->prompts,
                 .group_size = b->group,
                 .n_rewards = b->n_rewards,
                 .rewards = w.rewards,
                 .weights = w.weights,
                 .index = w.index,
                 .offsets = w.offsets,
                 .logp = w.logp,
                 .old_logp = w.old_logp,
                 .ref_logp = p.beta != 0 ? w.ref_logp : NONE,
                 .entropy = w.entropy,
                 .mask = w.mask};
    bool bonus = p.entropy_coef != 0;
    GrpoOut out = {w.advantage, w.dlogp, bonus ? w.dentropy : NONE, metrics};
    d->grpo_loss(d, out, in, p);
    micro_backward(l, &w, training_temperature(t->cfg), bonus, last);
}

// Waits for the device and fetches the metrics of n sequences.
static StepResult take_metrics(Trainer *t, const int *seq, int n) {
    char where[64] = "";
    micro_fetch(&t->learner, (int64_t)n * GM_COUNT, t->generation.scored);
    for (int j = 0; j < n; j++) {
        float *metric = memcpy(t->generation.metric[seq[j]], t->generation.scored + (size_t)j * GM_COUNT,
                               sizeof t->generation.metric[0]);
        t->generation.batch.loss[seq[j]] = metric[GM_LOSS];
        t->generation.batch.state[seq[j]] = SEQ_TRAINED;
        if (!isfinite(metric[GM_LOSS]) && !*where) snprintf(where, sizeof where, "completion %d", seq[j]);
    }
    return *where ? bad_numbers(&t->stats, "loss", where) : STEP_DONE;
}

// Makes one optimizer step: this rank's range of the gradients, micro-batch by micro-batch; then the update.
static StepResult train_on(Trainer *t, const int *seq, int n, Error *e) {
    Learner *l = &t->learner;
    double start = clock_seconds();
    GrpoParams p;
    StepResult s = loss_params(t, seq, n, &p, e);
    if (s != STEP_DONE) return s;
    l->engine.device->fill(l->engine.device, model_trained(&l->grad).slab, 0);
    int size = (int)t->cfg->per_device_train_batch_size, count;
    RankRange own = rank_range(l->engine.comm, n);
    for (int at = own.first; at < own.end && s == STEP_DONE; at += count) {
        count = micro_take(seq + at, own.end - at, size, sharing(t->cfg, &t->generation.batch));
        if (stop_requested()) s = STEP_STOPPED;
        else {
            enter(t, "train", at - own.first, own.end - own.first);
            Tensor held = tensor_rows(l->work.held, (int64_t)(at - own.first) * GM_COUNT, (int64_t)count * GM_COUNT);
            train_micro(t, seq + at, count, p, tensor2(held.data, F32, count, GM_COUNT), at + count == own.end);
        }
    }
    if (s == STEP_DONE) s = take_metrics(t, seq + own.first, own.end - own.first);
    t->stats.train_time += clock_seconds() - start;
    start = clock_seconds();
    if (!optim_reduce(l, e)) return STEP_FAILED;
    t->stats.optimizer_time += clock_seconds() - start;
    s = ranks_agree(&t->learner.engine, &t->stats, s, e);
    double rows[] = {t->stats.rows, t->stats.rows_alone};
    if (s == STEP_DONE && (!ranks_exchange_metrics(l->engine.comm, &t->generation, seq, n, e) ||
                           !comm_all_reduce(l->engine.comm, "rows", rows, 2, e)))
        s = STEP_FAILED;
    t->stats.rows = rows[0], t->stats.rows_alone = rows[1];
    if (s != STEP_DONE) return s;
    start = clock_seconds();
    const char *bad;
    enter(t, "optimizer", 0, 0);
    if (!optim_grad_norm(l, &t->stats.grad_norm, &bad, e)) return STEP_FAILED;
    if (!isfinite(t->stats.grad_norm)) return bad_numbers(&t->stats, "gradient", bad ? bad : "global norm");
    t->stats.learning_rate = optim_learning_rate(t->cfg, t->state.step, t->total_steps);
    if (!optim_step(l, t->stats.learning_rate, t->stats.grad_norm, t->state.updates + 1, e)) return STEP_FAILED;
    l->engine.device->sync(l->engine.device);
    t->stats.optimizer_time += clock_seconds() - start;
    return STEP_DONE;
}

static void sync_reference(Trainer *t) {
    const Config *c = t->cfg;
    if (!c->sync_ref_model || (t->state.step + 1) % c->ref_model_sync_steps) return;
    t->learner.engine.device->lerp(t->learner.engine.device, t->learner.reference.slab, t->learner.engine.policy.slab,
                                   (float)c->ref_model_mixup_alpha);
}

StepResult grpo_step(Trainer *t, Error *e) {
    double start = clock_seconds();
    t->stats = (StepStats){0};
    int n = optim_step_rows(t->cfg);
    int64_t fed = t->state.fed; // optimizer steps that this generation was used for before this one
    StepResult s = STEP_DONE;
    t->stats.generated = fed == 0;
    t->stats.first = (int)(fed % t->generation.steps_per_pass) * n;
    if (fed == 0) s = generate(t, e);
    if (s == STEP_DONE) s = train_on(t, t->generation.order + t->stats.first, n, e);
    if (!device_ok(t->learner.engine.device, e)) return STEP_FAILED; // what was computed is not to be trusted
    if (s == STEP_FAILED || s == STEP_STOPPED) return s;

    // From here on the step counts: the state moves from one consistent point to the next.
    if (s == STEP_DONE) {
        sync_reference(t);
        adapt_entropy_coef(&t->state, t->cfg, &t->generation, t->generation.order + t->stats.first, n);
        t->state.updates++;
        t->state.skipped = 0;
    } else t->state.skipped++;
    if (fed == 0)
        for (int i = 0; i < t->generation.batch.n; i++)
            t->state.seen_tokens +=
                (int64_t)t->generation.batch.prompt[i / t->generation.batch.group].n + t->generation.batch.len[i];
    t->state.step++;
    t->state.fed = s == STEP_SKIPPED ? 0 : (fed + 1) % (t->generation.steps_per_pass * t->cfg->num_iterations);
    t->state.cursor = mix_cursor(t->questions.data);
    t->state.next_key = t->generation.next_key;
    t->stats.step_time = clock_seconds() - start;
    return s;
}
