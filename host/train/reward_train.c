// grpo reward_model: trains a model that gives a text a score, on pairs of which one text was preferred (Bradley and Terry
// 1952; Ouyang et al. 2022). Loss: the mean over the pairs of an optimizer step of -log sigmoid(chosen - rejected - margin),
// and center_rewards_coefficient x (chosen + rejected)^2 (Eisenstein et al. 2023): TRL 1.16's RewardTrainer.
#include "chat.h"
#include "clock.h"
#include "device.h"
#include "notes.h"
#include "optim.h"
#include "mix.h"
#include "pairs.h"
#include "ranks.h"
#include "signals.h"
#include "train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// What pairs come to: sums over them, and extremes.
typedef struct {
    double loss, right, margin, scores, least, most; // scores: of both texts
} PairSums;

typedef struct {
    const Config *cfg;
    Learner learner;
    PairReader reader;
    Mix *data;
    Dataset *held_out; // NULL: none
    Pair *pair;        // [pairs of a micro-batch]
    Packing packing;   // of them: chosen, rejected, chosen, ...
    float *score;      // [RunShape.train_tokens] of every row
    void *gradient;    // [RunShape.train_tokens] of the policy's dtype: d(loss)/d(score)
    TrainState at;
    int64_t total_steps, steps_per_epoch;
    Metrics *metrics;
    Progress *progress;
    LiveReport *live;
    Hooks *hooks;
    Profile profile;
} RewardTrainer;

static int step_pairs(const Config *c) {
    return (int)(c->per_device_train_batch_size * c->gradient_accumulation_steps * c->gpus);
}

static bool next_pair(RewardTrainer *t, Pair *p, Error *e) {
    Row row;
    if (!mix_next(t->data, &row, e)) return false;
    bool ok = pair_read(&t->reader, row.example, p, e);
    if (!ok) error_prefix(e, "%s:%lld", row.path, (long long)row.line);
    row_free(&row);
    return ok;
}

// ---- one micro-batch -------------------------------------------------------------------------------------------------

// Adds ids from `shared` on. What a packing has last is only ever a target.
static bool pack_text(Packing *to, Ids *x, size_t shared) {
    ids_add(x, 0);
    bool fits = packing_add(to, x->id + shared, (int64_t)(x->n - shared), (int64_t)(x->n - shared) - 1, NULL);
    x->n--;
    return fits;
}

// The texts of a pair share what both begin with.
static void pack(RewardTrainer *t, int n) {
    packing_clear(&t->packing);
    bool fits = true;
    for (int k = 0; k < n; k++) {
        Ids *a = &t->pair[k].chosen, *b = &t->pair[k].rejected;
        size_t shared = 0, most = (a->n < b->n ? a->n : b->n) - 1;
        while (t->cfg->share_prompts && shared < most && a->id[shared] == b->id[shared]) shared++;
        fits = fits && packing_prefix(&t->packing, a->id, (int64_t)shared) && pack_text(&t->packing, a, shared) &&
               pack_text(&t->packing, b, shared);
    }
    if (!fits) die("pairs do not fit their micro-batch");
}

// -log sigmoid(z), whatever its size.
static double softplus(double z) { return (z > 0 ? 0 : -z) + log1p(exp(-fabs(z))); }

// The loss of n packed pairs of `all`, and where their gradients go.
static void take_pairs(RewardTrainer *t, int n, double all, Tensor gradient, PairSums *sums) {
    const double centre = t->cfg->center_rewards_coefficient;
    for (int k = 0; k < n; k++) {
        int32_t row_chosen = t->packing.rows[2 * k], row_rejected = t->packing.rows[2 * k + 1];
        double chosen = t->score[row_chosen], rejected = t->score[row_rejected], both = chosen + rejected;
        double z = chosen - rejected - t->pair[k].margin, slope = -1 / (1 + exp(z));
        sums->loss += softplus(z) + centre * both * both;
        sums->right += chosen > rejected;
        sums->margin += chosen - rejected;
        sums->scores += both;
        sums->least = fmin(sums->least, fmin(chosen, rejected));
        sums->most = fmax(sums->most, fmax(chosen, rejected));
        if (!present(gradient)) continue;
        tensor_set(gradient, row_chosen, (float)((slope + 2 * centre * both) / all));
        tensor_set(gradient, row_rejected, (float)((-slope + 2 * centre * both) / all));
    }
}

// Scores the pairs that were read; where `all` pairs make a step (else 0), adds their gradients.
static void run_micro(RewardTrainer *t, int n, double all, PairSums *sums) {
    Learner *l = &t->learner;
    Device *d = l->engine.device;
    pack(t, n);
    TrainWork w = micro_pack(l, &t->packing);
    micro_score(l, &l->engine.policy, &w);
    d->copy(d, t->score, w.score.data, tensor_bytes(w.score));
    Tensor gradient = w.dscore;
    gradient.data = all > 0 ? t->gradient : NULL;
    if (all > 0) memset(t->gradient, 0, tensor_bytes(gradient));
    take_pairs(t, n, all, gradient, sums);
    if (all <= 0) return;
    micro_upload(l, w.dscore, t->gradient);
    micro_score_backward(l, &w);
}

// ---- steps -----------------------------------------------------------------------------------------------------------

// The ranks' sums together. NaN stays NaN.
static bool add_ranks(Comm *c, PairSums *s, double *more, int n, Error *e) {
    double own[4] = {s->loss, s->right, s->margin, s->scores}, range[2] = {s->least, s->most};
    double(*all)[2] = xcalloc((size_t)comm_world(c), sizeof *all);
    bool ok = comm_all_reduce(c, "pairs", own, 4, e) && comm_all_reduce(c, "counts", more, n, e) &&
              comm_gather(c, "extremes", range, sizeof range, all, e);
    for (int r = 0; r < comm_world(c) && c && ok; r++)
        range[0] = fmin(range[0], all[r][0]), range[1] = fmax(range[1], all[r][1]);
    *s = (PairSums){own[0], own[1], own[2], own[3], range[0], range[1]};
    free(all);
    return ok;
}

// The gradients of this rank's share of a step's pairs. False: stopped by a signal (e->code EXIT_OK), or an error.
static bool run_step(RewardTrainer *t, PairSums *sums, double *tokens, Error *e) {
    Learner *l = &t->learner;
    int n = step_pairs(t->cfg), micro = (int)t->cfg->per_device_train_batch_size, held = 0;
    RankShare own = rank_share(l->engine.comm, n);
    double more[2] = {0}; // tokens, stopped
    *sums = (PairSums){.least = INFINITY, .most = -INFINITY};
    l->engine.device->fill(l->engine.device, l->grad.slab, 0);
    for (int i = 0; i < n && !more[1]; i++) {
        bool mine = i >= own.first && i < own.end;
        if (!next_pair(t, &t->pair[held], e)) return false;
        if (!mine) continue;
        if (++held < micro && i + 1 < own.end) continue;
        more[1] = stop_requested();
        if (more[1]) break;
        progress_phase(t->progress, "train", i + 1 - own.first, own.end - own.first);
        ranks_phase("train", t->at.step + 1);
        profile_phase(&t->profile, "train");
        run_micro(t, held, n, sums);
        more[0] += (double)t->packing.alone;
        held = 0;
    }
    if (!add_ranks(l->engine.comm, sums, more, 2, e) || more[1] > 0) return false;
    *tokens = more[0];
    return true;
}

// Accuracy on the held-out pairs: a line of metrics.jsonl.
static bool evaluate(RewardTrainer *t, Error *e) {
    int64_t rows = dataset_rows(t->held_out);
    if (t->cfg->eval_limit > 0 && t->cfg->eval_limit < rows) rows = t->cfg->eval_limit;
    RankShare own = rank_share(t->learner.engine.comm, (int)rows);
    PairSums sums = {.least = INFINITY, .most = -INFINITY};
    int micro = (int)t->cfg->per_device_train_batch_size, held = 0;
    progress_phase(t->progress, "eval", 0, 0);
    ranks_phase("eval", t->at.step);
    for (int i = own.first; i < own.end; i++) {
        Row row;
        if (!dataset_row(t->held_out, i, &row, e)) return false;
        bool ok = pair_read(&t->reader, row.example, &t->pair[held], e);
        row_free(&row);
        if (!ok) return false;
        if (++held < micro && i + 1 < own.end) continue;
        run_micro(t, held, 0, &sums);
        held = 0;
    }
    double none[1] = {0};
    if (!device_ok(t->learner.engine.device, e) || !add_ranks(t->learner.engine.comm, &sums, none, 1, e)) return false;
    if (comm_rank(t->learner.engine.comm)) return true;
    metrics_add_int(t->metrics, "step", t->at.step);
    metrics_add(t->metrics, "eval/loss", sums.loss / (double)rows);
    metrics_add(t->metrics, "eval/accuracy", sums.right / (double)rows);
    metrics_add(t->metrics, "eval/margin", sums.margin / (double)rows);
    progress_say(t->progress, "step %lld: eval accuracy %.1f %%, loss %.4f, margin %.3f (%lld pairs)",
                 (long long)t->at.step, 100 * sums.right / (double)rows, sums.loss / (double)rows,
                 sums.margin / (double)rows, (long long)rows);
    if (!metrics_commit(t->metrics, e)) return false;
    hooks_start(t->hooks, HOOK_EVAL, t->cfg->output_dir, t->at.step, metrics_last(t->metrics), 0);
    return true;
}

static void log_step(RewardTrainer *t, const PairSums *s, double norm, double rate, double seconds) {
    double pairs = step_pairs(t->cfg);
    metrics_add_int(t->metrics, "step", t->at.step);
    metrics_add(t->metrics, "epoch", (double)t->at.step / (double)t->steps_per_epoch);
    metrics_add(t->metrics, "loss", s->loss / pairs);
    metrics_add(t->metrics, "grad_norm", norm);
    metrics_add(t->metrics, "learning_rate", rate);
    metrics_add(t->metrics, "accuracy", s->right / pairs);
    metrics_add(t->metrics, "margin", s->margin / pairs);
    metrics_add(t->metrics, "min_reward", s->least);
    metrics_add(t->metrics, "mean_reward", s->scores / (2 * pairs));
    metrics_add(t->metrics, "max_reward", s->most);
    metrics_add_int(t->metrics, "num_tokens", t->at.seen_tokens);
    metrics_add(t->metrics, "step_time", seconds);
}

// One optimizer step. False: stopped by a signal (e->code EXIT_OK), or an error.
static bool train_step(RewardTrainer *t, Error *e) {
    Learner *l = &t->learner;
    double start = clock_seconds(), tokens, norm, rate = optim_learning_rate(t->cfg, t->at.step, t->total_steps);
    PairSums sums;
    const char *bad = NULL;
    if (!run_step(t, &sums, &tokens, e)) return false;
    profile_phase(&t->profile, "optimizer");
    if (!optim_grad_norm(l, &norm, &bad, e)) return false;
    bool good = isfinite(sums.loss) && isfinite(norm);
    if (good && !optim_step(l, rate, norm, ++t->at.updates, e)) return false;
    l->engine.device->sync(l->engine.device);
    if (!device_ok(l->engine.device, e)) return false; // what was computed since is void
    t->at.skipped = good ? 0 : t->at.skipped + 1;
    t->at.step++;
    t->at.seen_tokens += (int64_t)tokens;
    t->at.cursor = mix_cursor(t->data);
    double seconds = clock_seconds() - start;
    ProgressStep shown = {.reward = NAN,
                          .accuracy = sums.right / step_pairs(t->cfg),
                          .kl = NAN,
                          .length = NAN,
                          .loss = sums.loss / step_pairs(t->cfg),
                          .tokens_per_second = tokens / seconds};
    progress_step(t->progress, t->at.step, &shown);
    if (!good)
        progress_say(t->progress, "step %lld skipped: %s is not finite; weights and optimizer are as before",
                     (long long)t->at.step,
                     !isfinite(sums.loss) ? "the loss"
                     : bad                ? bad
                                          : "the gradient's norm");
    if (t->at.skipped >= t->cfg->max_bad_steps)
        return error_set(e, EXIT_NUMERIC, "%lld steps in a row were not finite; lower learning_rate",
                         (long long)t->at.skipped);
    if (comm_rank(l->engine.comm)) return true;
    if (t->at.step % t->cfg->logging_steps == 0 || t->at.step == t->total_steps || !good)
        log_step(t, &sums, norm, rate, seconds);
    return metrics_commit(t->metrics, e);
}

// ---- the run ---------------------------------------------------------------------------------------------------------

static bool open_data(RewardTrainer *t, Error *e) {
    const Config *c = t->cfg;
    Engine *en = &t->learner.engine;
    RowCheck check = {pair_check, &t->reader};
    HfConfig hf = en->hf;
    hf_scoring(&hf);
    t->reader = (PairReader){.cfg = c, .max = c->max_length};
    if (!scored_text_open(&t->reader.text, c->raw ? "raw" : c->chat_template, c->model, &hf, en->tokenizer, e))
        return false;
    if (c->max_length > hf.dims.max_positions)
        return error_set(e, EXIT_CONFIG, "max_length %lld is more than the model's context of %d tokens; lower it",
                         (long long)c->max_length, hf.dims.max_positions);
    t->data = mix_open(c, dataset_open_pairs, &check, e);
    if (!t->data || !*c->eval_file) return t->data;
    t->held_out = dataset_open_pairs(c->eval_file, c, &check, e);
    return t->held_out;
}

static bool open_run(RewardTrainer *t, const Config *c, Error *e) {
    t->cfg = c;
    t->at.command = "reward_model";
    RunShape shape = shape_for_pairs(c);
    Learner *l = &t->learner;
    if (!engine_prepare(&l->engine, c, e) || !open_data(t, e) || !learner_open(l, c, shape, e)) return false;
    int n = step_pairs(c);
    t->packing = packing_new(shape.train_tokens, shape.train_seqs);
    t->pair = xcalloc((size_t)c->per_device_train_batch_size, sizeof *t->pair);
    t->score = xcalloc((size_t)shape.train_tokens, sizeof *t->score);
    t->gradient = xcalloc((size_t)shape.train_tokens, sizeof(float));
    t->steps_per_epoch = mix_rows(t->data) > n ? mix_rows(t->data) / n : 1;
    t->total_steps = optim_total_steps(c, t->steps_per_epoch);
    if (!comm_rank(l->engine.comm)) t->progress = progress_open(stdout, c->progress, 0, t->total_steps);
    progress_say(t->progress, "%s%s; %lld pairs checked%s, %lld steps of %d", ranks_about(c), l->engine.device->about,
                 (long long)mix_rows(t->data), mix_about(t->data), (long long)t->total_steps, n);
    t->profile = profile_open(l->engine.device, c, t->progress);
    if (!run_resume(l, &t->at, t->progress, &t->metrics, e)) return false;
    if (t->metrics) t->hooks = hooks_open(c);
    t->live = live_open(c->output_dir, t->metrics, c->report);
    run_record(l, &t->at, mix_rows(t->data), t->total_steps);
    mix_seek(t->data, &t->at.cursor);
    return true;
}

static void close_run(RewardTrainer *t) {
    profile_close(&t->profile);
    hooks_close(t->hooks);
    live_close(t->live);
    metrics_close(t->metrics);
    progress_close(t->progress);
    packing_free(&t->packing);
    for (int64_t k = 0; t->pair && k < t->cfg->per_device_train_batch_size; k++) pair_free(&t->pair[k]);
    free(t->pair);
    free(t->score);
    free(t->gradient);
    free(t->at.batch);
    mix_free(t->data);
    dataset_free(t->held_out);
    learner_close(&t->learner);
}

static ExitCode train(RewardTrainer *t, Error *e) {
    const Config *c = t->cfg;
    int64_t saved = t->at.step;
    run_say_done(&t->at, t->total_steps, t->progress);
    while (t->at.step < t->total_steps) {
        e->code = EXIT_OK;
        profile_step(&t->profile, t->at.step + 1);
        bool ok = train_step(t, e);
        profile_phase(&t->profile, NULL);
        if (!ok && e->code != EXIT_OK) return e->code;
        bool last = t->at.step == t->total_steps, eval_due = c->eval_steps > 0 && t->at.step % c->eval_steps == 0;
        if (ok && t->held_out && (eval_due || last) && !evaluate(t, e)) return e->code;
        bool due = c->save_steps > 0 && t->at.step % c->save_steps == 0;
        if ((!ok || due || last) && saved != t->at.step) {
            if (!run_save(&t->learner, &t->at, t->metrics, t->hooks, e)) return e->code;
            saved = t->at.step;
            progress_say(t->progress, "saved %s/step_%lld", c->output_dir, (long long)t->at.step);
        }
        live_step(t->live);
        hooks_look(t->hooks);
        if (ok) continue;
        error_set(e, EXIT_STOPPED, "stopped after step %lld; the same command goes on from there",
                  (long long)t->at.step);
        return EXIT_STOPPED;
    }
    return EXIT_OK;
}

ExitCode command_reward_model(int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, "reward_model", argc, argv, e)) return e->code;
    signals_install(true);
    notes_begin();
    RewardTrainer t = {0};
    ExitCode code;
    if (!ranks_start(&c, &code, e)) {
        config_free(&c);
        return code;
    }
    code = open_run(&t, &c, e) ? train(&t, e) : e->code;
    if (t.hooks) hooks_start(t.hooks, HOOK_END, c.output_dir, t.at.step, metrics_last(t.metrics), (int)code);
    if (*e->text) notes_add(e->text);
    close_run(&t);
    notes_close();
    config_free(&c);
    return code;
}
