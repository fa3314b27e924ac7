// Logs a step: a line of metrics.jsonl with TRL's names, a line of completions.jsonl for each completion, and the line
// on the terminal.
#include "exchange.h"
#include "eval.h"
#include "grpo_math.h"
#include "grpo_scalars.h"
#include "machine.h"
#include "optim.h"
#include "pieces.h"
#include "train.h"
#include <math.h>
#include <stdlib.h>

// What a column of numbers looks like; NaNs are left out of it.
typedef struct {
    int64_t n;
    double mean, std; // NaN of no number, and of fewer than two; n - 1 in the denominator, as torch.std
    double min, max;  // 0 of no number
} Spread;

// Computes the spread of the n numbers x[0], x[stride], ...
static Spread spread_of(const float *x, int n, int stride) {
    Moments m = {0};
    Spread s = {0};
    for (int i = 0; i < n; i++) {
        double v = x[i * stride];
        if (isnan(v)) continue;
        s.min = m.n ? fmin(s.min, v) : v;
        s.max = m.n ? fmax(s.max, v) : v;
        moments_add(&m, v);
    }
    for (int i = 0; i < n; i++) moments_spread(&m, x[i * stride]);
    s.n = m.n;
    s.mean = moments_mean(&m);
    s.std = m.n > 1 ? moments_std(&m) : NAN;
    return s;
}

static void add_lengths(Metrics *m, const Batch *b) {
    float *length = xmalloc((size_t)b->n * sizeof *length); // [n]
    for (int i = 0; i < b->n; i++) length[i] = (float)b->len[i];
    Spread all = spread_of(length, b->n, 1);
    for (int i = 0; i < b->n; i++)
        if (b->finish[i] == FINISH_LENGTH) length[i] = NAN;
    Spread ended = spread_of(length, b->n, 1);
    free(length);
    metrics_add(m, "completions/mean_length", all.mean);
    metrics_add(m, "completions/min_length", all.min);
    metrics_add(m, "completions/max_length", all.max);
    metrics_add(m, "completions/clipped_ratio", 1 - (double)ended.n / b->n);
    metrics_add(m, "completions/mean_terminated_length", ended.n ? ended.mean : 0);
    metrics_add(m, "completions/min_terminated_length", ended.min);
    metrics_add(m, "completions/max_terminated_length", ended.max);
}

// Logs how often reward k failed since the last step; for rewards that can fail.
static void add_faults(Metrics *m, Scoring *scoring, int k) {
    const Reward *r = &scoring->rewards.reward[k];
    for (int f = 0; f < REWARD_FAULTS; f++) {
        if (!(r->info->faults >> f & 1)) continue;
        char name[128];
        int64_t now = reward_faults_of_all(r, (RewardFault)f);
        snprintf(name, sizeof name, "rewards/%s/%s", r->name, reward_fault_name[f]);
        metrics_add(m, name, (double)(now - scoring->logged[k][f]));
        scoring->logged[k][f] = now;
    }
}

// Logs rewards: the mean and the deviation of each, of their sum, and how many groups are flat. reward_std and
// frac_reward_zero_std are TRL's: the deviation over the whole batch, whatever advantages are divided by; and the
// fraction of groups whose rewards are equal, but where one deviation serves the whole batch, 1 if that is 0. What
// groups have then stands under names of ours.
static void add_rewards(Metrics *m, const Config *c, Scoring *scoring, const Batch *b) {
    for (int k = 0; k < scoring->rewards.n; k++) {
        const Reward *r = &scoring->rewards.reward[k];
        char name[96];
        Spread s = spread_of(b->score + k, b->n, b->n_rewards);
        snprintf(name, sizeof name, "rewards/%s/mean", r->name);
        metrics_add(m, name, s.mean);
        snprintf(name, sizeof name, "rewards/%s/std", r->name);
        metrics_add(m, name, s.std);
        add_faults(m, scoring, k);
    }
    RewardAggregation aggregation = (RewardAggregation)c->multi_objective_aggregation;
    bool by_batch = aggregation == NORMALIZE_THEN_SUM || c->scale_rewards == SCALE_BATCH;
    float *group_std = xmalloc((size_t)b->prompts * sizeof *group_std); // [prompts]
    int flat = 0;
    for (int p = 0; p < b->prompts; p++) {
        Spread g = spread_of(b->reward + p * b->group, b->group, 1);
        group_std[p] = (float)g.std;
        flat += g.n > 1 && g.min == g.max;
    }
    Spread all = spread_of(b->reward, b->n, 1);
    metrics_add(m, "reward", all.mean);
    metrics_add(m, "reward_std", all.std);
    metrics_add(m, "reward_group_std", spread_of(group_std, b->prompts, 1).mean);
    free(group_std);
    double fraction = (double)flat / b->prompts;
    if (by_batch) {
        float std = grpo_batch_std(b->score, scoring->weights, b->prompts, b->group, b->n_rewards, aggregation);
        metrics_add(m, "frac_reward_zero_std", all.n > 1 && std == 0);
        metrics_add(m, "frac_groups_equal", fraction);
    } else metrics_add(m, "frac_reward_zero_std", fraction);
}

// Sums of grpo_loss over the sequences this step trained on, in batch order.
typedef struct {
    double v[GM_COUNT];
    double low_min, high_max; // of the sequences' own clip ratios, as TRL
} Totals;

static bool has_bonus(const Config *c) { return c->entropy_coef != 0 || c->use_adaptive_entropy; }

// The sequences an optimizer step trained on: seq[n], indices into the generation's columns.
typedef struct {
    const Generation *of;
    const int *seq;
    int n;
} StepRows;

static StepRows rows_of_step(const Trainer *t) {
    return (StepRows){&t->generation, t->generation.order + t->stats.first, optim_step_rows(t->cfg)};
}

// The fraction that was clipped: of tokens, or of sequences where they have one ratio each; as TRL.
static double clipped(const Totals *s, const StepRows *rows, const Config *c, GrpoMetric k) {
    if (c->importance_sampling_level == LEVEL_TOKEN) return s->v[GM_TOKENS] > 0 ? s->v[k] / s->v[GM_TOKENS] : 0;
    int hit = 0;
    for (int j = 0; j < rows->n; j++) hit += rows->of->metric[rows->seq[j]][k] > 0;
    return (double)hit / rows->n;
}

static double per_token(const Totals *s, GrpoMetric k) { return s->v[GM_TOKENS] > 0 ? s->v[k] / s->v[GM_TOKENS] : 0; }

static Totals step_totals(const StepRows *rows, const Config *c) {
    Totals s = {.low_min = INFINITY};
    for (int j = 0; j < rows->n; j++) {
        const float *m = rows->of->metric[rows->seq[j]];
        for (int k = 0; k < GM_COUNT; k++) s.v[k] += m[k];
        if (m[GM_TOKENS] == 0) {
            // With one ratio for a sequence, a masked one has a ratio, too.
            if (c->importance_sampling_level == LEVEL_SEQUENCE) {
                s.low_min = fmin(s.low_min, m[GM_CLIP_LOW]);
                s.high_max = fmax(s.high_max, m[GM_CLIP_HIGH]);
            }
            continue;
        }
        s.low_min = fmin(s.low_min, m[GM_CLIP_LOW] / m[GM_TOKENS]);
        s.high_max = fmax(s.high_max, m[GM_CLIP_HIGH] / m[GM_TOKENS]);
    }
    if (isinf(s.low_min)) s.low_min = 0;
    return s;
}

// The mean over a file's completions of the numbers x[0], x[stride], ...; NaNs are left out of it.
static double mean_of_file(const Batch *b, int file, const float *x, int stride) {
    double sum = 0, n = 0;
    for (int i = 0; i < b->n; i++)
        if (b->file[i / b->group] == file && !isnan(x[i * stride])) sum += (double)x[i * stride], n++;
    return sum / n;
}

static void add_of_file(Metrics *m, const char *label, const char *name, double value) {
    char *whole = xasprintf("files/%s/%s", label, name);
    metrics_add(m, whole, value);
    free(whole);
}

// What the questions of one of several training files gave; NaN, so null, where none was drawn.
static void add_file(Metrics *m, const Rewards *rw, const Batch *b, int f, const char *label) {
    double n = 0, questions = 0, right = 0, cut = 0, flat = 0, length = 0;
    for (int p = 0; p < b->prompts; p++) {
        if (b->file[p] != f) continue;
        questions++;
        flat += group_is_flat(b, p);
        for (int i = p * b->group; i < (p + 1) * b->group; i++, n++) {
            right += b->text[i] && grade_strict(b->text[i], b->answer[p]);
            cut += b->finish[i] == FINISH_LENGTH;
            length += b->len[i];
        }
    }
    add_of_file(m, label, "questions", questions);
    add_of_file(m, label, "reward", mean_of_file(b, f, b->reward, 1));
    add_of_file(m, label, "accuracy", right / n);
    add_of_file(m, label, "frac_reward_zero_std", flat / questions);
    add_of_file(m, label, "completions/mean_length", length / n);
    add_of_file(m, label, "completions/clipped_ratio", cut / n);
    for (int k = 0; k < rw->n; k++) {
        char name[96];
        snprintf(name, sizeof name, "rewards/%s/mean", rw->reward[k].name);
        if (rewards_score(rw, f, k)) add_of_file(m, label, name, mean_of_file(b, f, b->score + k, b->n_rewards));
    }
}

static void add_step(Metrics *m, Trainer *t, const StepRows *rows, const Totals *s) {
    metrics_add(m, "loss", s->v[GM_LOSS]);
    metrics_add(m, "grad_norm", t->stats.grad_norm);
    metrics_add(m, "learning_rate", t->stats.learning_rate);
    metrics_add_int(m, "num_tokens", t->state.seen_tokens);
    add_lengths(m, &t->generation.batch);
    const Config *c = t->cfg;
    add_rewards(m, c, &t->scoring, &t->generation.batch);
    if (c->beta != 0) metrics_add(m, "kl", per_token(s, GM_KL));
    metrics_add(m, "entropy", per_token(s, GM_ENTROPY));
    if (has_bonus(c)) {
        metrics_add(m, "policy_loss", s->v[GM_POLICY]);
        metrics_add(m, "entropy_coef", t->state.entropy_coef); // of the next step
    }
    if (c->loss_type == LOSS_VESPO) metrics_add(m, "vespo/phi_seq_mean", s->v[GM_PHI] / rows->n);
    LossClip clip = loss_kind((LossType)c->loss_type).clip;
    if (clip == CLIP_CAP) metrics_add(m, "cispo_clip_ratio", clipped(s, rows, c, GM_CLIP_HIGH));
    if (clip == CLIP_RANGE) {
        metrics_add(m, "clip_ratio/low_mean", clipped(s, rows, c, GM_CLIP_LOW));
        metrics_add(m, "clip_ratio/low_min", s->low_min);
        metrics_add(m, "clip_ratio/high_mean", clipped(s, rows, c, GM_CLIP_HIGH));
        metrics_add(m, "clip_ratio/high_max", s->high_max);
        metrics_add(m, "clip_ratio/region_mean", clipped(s, rows, c, GM_CLIP_REGION));
    }
    for (int f = 0; f < c->train_file.n && c->train_file.n > 1; f++)
        add_file(m, &t->scoring.rewards, &t->generation.batch, f, mix_label(t->questions.data, f));
    metrics_add(m, "ratio_mean", per_token(s, GM_RATIO_SUM));
    metrics_add(m, "frac_rows_saved", 1 - t->stats.rows / t->stats.rows_alone);
}

// Time and memory of a rank: rank 0's under the names that one rank has, another's with its number behind them.
static void add_costs(Metrics *m, const StepStats *st, int rank) {
    const double GiB = 1 << 30;
    const struct {
        const char *name;
        double value;
    } cost[] = {{"time/rollout", st->rollout_time},
                {"time/reward", st->reward_time},
                {"time/reference", st->reference_time},
                {"time/train", st->train_time},
                {"time/optimizer", st->optimizer_time},
                {"memory/process_gib", st->process_memory / GiB},
                {"memory/device_gib", st->device_memory / GiB}};
    for (size_t i = 0; i < sizeof cost / sizeof *cost; i++) {
        if (!cost[i].value && !strncmp(cost[i].name, "memory/", 7)) continue;
        char name[64];
        snprintf(name, sizeof name, rank ? "%s/rank_%d" : "%s", cost[i].name, rank);
        metrics_add(m, name, cost[i].value);
    }
}

static void add_completions(Metrics *m, const Trainer *t) {
    const Batch *b = &t->generation.batch;
    const char *names[MAX_REWARDS];
    for (int k = 0; k < t->scoring.rewards.n; k++) names[k] = t->scoring.rewards.reward[k].name;
    for (int i = 0; i < b->n; i++) {
        CompletionRecord r = {.step = t->state.step,
                              .file =
                                  t->cfg->train_file.n > 1 ? mix_label(t->questions.data, b->file[i / b->group]) : NULL,
                              .prompt = b->question[i / b->group],
                              .completion = b->text[i],
                              .answer = b->answer[i / b->group],
                              .reward_names = names,
                              .score = b->score + i * b->n_rewards,
                              .n_rewards = t->scoring.rewards.n,
                              .reward = b->reward[i],
                              .advantage = b->advantage[i],
                              .truncated = b->finish[i] == FINISH_LENGTH};
        char **piece = NULL;
        if (t->cfg->log_tokens) {
            size_t at = (size_t)i * (size_t)b->max_completion;
            piece = token_pieces(t->learner.engine.tokenizer, b->ids + at, b->len[i]);
            r.piece = (const char *const *)piece;
            r.logp = b->logp + at, r.entropy = b->entropy + at;
            r.n_tokens = b->len[i];
        }
        metrics_completion(m, &r);
        for (int k = 0; k < r.n_tokens; k++) free(piece[k]);
        free(piece);
    }
}

static void show_step(const Trainer *t, const Totals *s, double accuracy) {
    const Batch *b = &t->generation.batch;
    int64_t tokens = 0, length = 0;
    for (int i = 0; i < b->n; i++) {
        length += b->len[i];
        tokens += b->len[i] + (int64_t)b->prompt[i / b->group].n;
    }
    ProgressStep shown = {.reward = spread_of(b->reward, b->n, 1).mean,
                          .accuracy = accuracy,
                          .kl = t->cfg->beta != 0 ? per_token(s, GM_KL) : NAN,
                          .length = (double)length / b->n,
                          .loss = s->v[GM_LOSS],
                          .tokens_per_second = (double)tokens / t->stats.step_time};
    progress_step(t->report.progress, t->state.step, &shown);
}

// Model FLOP utilization of training: what its products and attention need, of what the slowest rank's card could have
// done meanwhile. The second pass over activations that checkpointing makes counts as time alone. Frozen weights,
// beside an adapter, have no gradient of their own: a third less.
static void add_mfu(Metrics *m, const Engine *en, const StepRows *rows, const StepStats *all) {
    if (!en->device->peak_flops || en->cfg->dtype != BF16) return;
    double longest = 0, completions = 0;
    int ranks = comm_world(en->comm);
    for (int r = 0; r < ranks; r++) longest = fmax(longest, all[r].train_time);
    for (int j = 0; j < rows->n; j++) completions += rows->of->batch.len[rows->seq[j]];
    double flop =
        (en->lora.rank ? 2 : 3) * model_forward_flop(en->hf.dims, all->rows, all->rows_alone / rows->n, completions);
    metrics_add(m, "mfu", flop / (longest * ranks * en->device->peak_flops));
}

// Writes what all[ranks] have done to this rank's logs.
static bool write_log(Trainer *t, StepResult result, const StepStats *all, Error *e) {
    const Config *c = t->cfg;
    const Batch *b = &t->generation.batch;
    Metrics *m = t->report.metrics;
    bool done = result == STEP_DONE;
    StepRows rows = rows_of_step(t);
    Totals s = step_totals(&rows, c);
    int right = 0, strictly = 0;
    for (int i = 0; i < b->n; i++) {
        right += b->text[i] && grade_lenient(b->text[i], b->answer[i / b->group]);
        strictly += b->text[i] && grade_strict(b->text[i], b->answer[i / b->group]);
    }
    double accuracy = (double)right / b->n;
    if (t->state.step % c->logging_steps == 0 || t->state.step == t->total_steps || !done) {
        metrics_add_int(m, "step", t->state.step);
        metrics_add(m, "epoch", (double)t->state.step / (double)t->questions.steps_per_epoch);
        if (done) add_step(m, t, &rows, &s);
        else metrics_add_int(m, "skipped", t->state.skipped);
        metrics_add(m, "accuracy", (double)strictly / b->n);
        metrics_add(m, "lenient_accuracy", accuracy);
        metrics_add(m, "step_time", t->stats.step_time);
        if (done) add_mfu(m, &t->learner.engine, &rows, all);
        for (int r = 0; r < comm_world(t->learner.engine.comm); r++) add_costs(m, &all[r], r);
    }
    if (c->log_completions && t->stats.generated && done) add_completions(m, t);
    show_step(t, &s, accuracy);
    if (!done) run_say_skipped(&t->state, t->stats.bad, t->report.progress);
    else if (t->state.updates == 1 && c->num_iterations == 1)
        progress_say(t->report.progress,
                     "a loss near 0 is right here: the policy is the one that sampled, every ratio is 1, "
                     "and advantages of a group sum to 0; the gradient is not 0");
    return metrics_commit(m, e);
}

bool train_log(Trainer *t, StepResult result, Error *e) {
    Comm *comm = t->learner.engine.comm;
    Device *d = t->learner.engine.device;
    t->stats.process_memory = (double)machine_memory_peak();
    t->stats.device_memory = d->on_host ? 0 : (double)d->memory_used(d);
    StepStats *all = xcalloc((size_t)comm_world(comm), sizeof *all);
    // Rank 0 has everything else that it logs.
    bool ok = ranks_exchange_stats(comm, &t->stats, all, e) && (comm_rank(comm) || write_log(t, result, all, e));
    free(all);
    return ok;
}
