// grpo reward_model: trains a model that gives a text a score, on pairs of which one text was preferred (Bradley and
// Terry 1952; Ouyang et al. 2022). Loss: the mean over the pairs of an optimizer step of -log sigmoid(chosen - rejected
// - margin), and center_rewards_coefficient x (chosen + rejected)^2 (Eisenstein et al. 2023): TRL 1.16's RewardTrainer.
#include "exchange.h"
#include "chat.h"
#include "clock.h"
#include "device.h"
#include "pairs.h"
#include "optim.h"
#include "ranks.h"
#include "signals.h"
#include "supervised.h"
#include "train_commands.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// What pairs come to: sums over them, and extremes.
typedef struct {
    double loss, right, margin, scores, least, most; // scores: of both texts
} PairSums;

typedef struct {
    Supervised run;
    PairReader reader;
    Dataset *held_out; // NULL: none
    Pair *pair;        // [pairs of a micro-batch]
    Packing packing;   // of them: chosen, rejected, chosen, ...
    float *score;      // [RunShape.train_tokens] of every row
    void *gradient;    // [RunShape.train_tokens] as TrainWork's dscore: d(loss)/d(score)
} RewardTrainer;

static bool next_pair(RewardTrainer *t, Pair *p, Error *e) {
    Row row;
    if (!mix_next(t->run.data, &row, e)) return false;
    bool ok = pair_read(&t->reader, row.example, p, e);
    if (!ok) error_prefix(e, "%s:%lld", row.path, (long long)row.line);
    row_free(&row);
    return ok;
}

// ---- one micro-batch ------------------------------------------------------------------------------------------------

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
        while (t->run.cfg->share_prompts && shared < most && a->id[shared] == b->id[shared]) shared++;
        fits = fits && packing_prefix(&t->packing, a->id, (int64_t)shared) && pack_text(&t->packing, a, shared) &&
               pack_text(&t->packing, b, shared);
    }
    if (!fits) die("pairs do not fit their micro-batch");
}

// -log sigmoid(z), whatever its size.
static double softplus(double z) { return (z > 0 ? 0 : -z) + log1p(exp(-fabs(z))); }

// The loss of n packed pairs of `all`, and where their gradients go.
static void take_pairs(RewardTrainer *t, int n, double all, Tensor gradient, PairSums *sums) {
    const double centre = t->run.cfg->center_rewards_coefficient;
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

// Scores the pairs that were read; where `all` pairs make a step (else 0), adds their gradients, the step's last ones?
static void run_micro(RewardTrainer *t, int n, double all, bool last, PairSums *sums) {
    Learner *l = &t->run.learner;
    Device *d = l->engine.device;
    pack(t, n);
    TrainWork w = micro_pack(l, &t->packing);
    micro_score(l->engine.device, &l->engine.policy, &w);
    d->copy(d, t->score, w.score.data, tensor_bytes(w.score));
    Tensor gradient = w.dscore;
    gradient.data = all > 0 ? t->gradient : NULL;
    if (all > 0) memset(t->gradient, 0, tensor_bytes(gradient));
    take_pairs(t, n, all, gradient, sums);
    if (all <= 0) return;
    micro_upload(l, w.dscore, t->gradient);
    micro_score_backward(l, &w, last);
}

// ---- steps ----------------------------------------------------------------------------------------------------------

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

// The gradients of this rank's range of a step's pairs. False: stopped by a signal (e->code EXIT_OK), or an error.
static bool run_step(RewardTrainer *t, PairSums *sums, double *tokens, Error *e) {
    Learner *l = &t->run.learner;
    int n = optim_step_rows(t->run.cfg), micro = (int)t->run.cfg->per_device_train_batch_size, held = 0;
    RankRange own = rank_range(l->engine.comm, n);
    double more[2] = {0}; // tokens, stopped
    *sums = (PairSums){.least = INFINITY, .most = -INFINITY};
    l->engine.device->fill(l->engine.device, model_trained(&l->grad).slab, 0);
    for (int i = 0; i < n && !more[1]; i++) {
        bool mine = i >= own.first && i < own.end;
        if (!next_pair(t, &t->pair[held], e)) return false;
        if (!mine) continue;
        if (++held < micro && i + 1 < own.end) continue;
        more[1] = stop_requested();
        if (more[1]) break;
        progress_phase(t->run.report.progress, "train", i + 1 - own.first, own.end - own.first);
        ranks_phase("train", t->run.state.step + 1);
        profile_phase(&t->run.report.profile, "train");
        run_micro(t, held, n, i + 1 == own.end, sums);
        more[0] += (double)t->packing.alone;
        held = 0;
    }
    if (!optim_reduce(l, e) || !add_ranks(l->engine.comm, sums, more, 2, e) || more[1] > 0) return false;
    *tokens = more[0];
    return true;
}

// Accuracy on the held-out pairs: a line of metrics.jsonl.
static bool evaluate(Supervised *run, Error *e) {
    RewardTrainer *t = (RewardTrainer *)run;
    if (!t->held_out) return true;
    int64_t rows = dataset_rows(t->held_out);
    if (t->run.cfg->eval_limit > 0 && t->run.cfg->eval_limit < rows) rows = t->run.cfg->eval_limit;
    RankRange own = rank_range(t->run.learner.engine.comm, (int)rows);
    PairSums sums = {.least = INFINITY, .most = -INFINITY};
    int micro = (int)t->run.cfg->per_device_train_batch_size, held = 0;
    progress_phase(t->run.report.progress, "eval", 0, 0);
    ranks_phase("eval", t->run.state.step);
    for (int i = own.first; i < own.end; i++) {
        Row row;
        if (!dataset_row(t->held_out, i, &row, e)) return false;
        bool ok = pair_read(&t->reader, row.example, &t->pair[held], e);
        row_free(&row);
        if (!ok) return false;
        if (++held < micro && i + 1 < own.end) continue;
        run_micro(t, held, 0, false, &sums);
        held = 0;
    }
    double none[1] = {0};
    if (!device_ok(t->run.learner.engine.device, e) || !add_ranks(t->run.learner.engine.comm, &sums, none, 1, e))
        return false;
    if (comm_rank(t->run.learner.engine.comm)) return true;
    metrics_add_int(t->run.report.metrics, "step", t->run.state.step);
    metrics_add(t->run.report.metrics, "eval/loss", sums.loss / (double)rows);
    metrics_add(t->run.report.metrics, "eval/accuracy", sums.right / (double)rows);
    metrics_add(t->run.report.metrics, "eval/margin", sums.margin / (double)rows);
    progress_say(t->run.report.progress, "step %lld: eval accuracy %.1f %%, loss %.4f, margin %.3f (%lld pairs)",
                 (long long)t->run.state.step, 100 * sums.right / (double)rows, sums.loss / (double)rows,
                 sums.margin / (double)rows, (long long)rows);
    if (!metrics_commit(t->run.report.metrics, e)) return false;
    HookCall call = {t->run.cfg->output_dir, t->run.state.step, metrics_last(t->run.report.metrics),
                     metrics_last_eval(t->run.report.metrics), 0};
    hooks_start(t->run.report.hooks, HOOK_EVAL, &call);
    return true;
}

// One optimizer step. False: stopped by a signal (e->code EXIT_OK), or an error.
static bool train_step(Supervised *run, Error *e) {
    RewardTrainer *t = (RewardTrainer *)run;
    double start = clock_seconds(), tokens, pairs = optim_step_rows(run->cfg);
    PairSums sums;
    bool log;
    if (!run_step(t, &sums, &tokens, e) ||
        !supervised_update(run, start, sums.loss / pairs, sums.right / pairs, (int64_t)tokens, &log, e))
        return false;
    if (!log) return true;
    metrics_add(run->report.metrics, "accuracy", sums.right / pairs);
    metrics_add(run->report.metrics, "margin", sums.margin / pairs);
    metrics_add(run->report.metrics, "min_reward", sums.least);
    metrics_add(run->report.metrics, "mean_reward", sums.scores / (2 * pairs));
    metrics_add(run->report.metrics, "max_reward", sums.most);
    metrics_add_int(run->report.metrics, "num_tokens", run->state.seen_tokens);
    metrics_add(run->report.metrics, "step_time", clock_seconds() - start);
    return true;
}

// ---- the run --------------------------------------------------------------------------------------------------------

static bool open_data(RewardTrainer *t, Error *e) {
    const Config *c = t->run.cfg;
    Engine *en = &t->run.learner.engine;
    RowCheck check = {pair_check, &t->reader};
    HfConfig hf = en->hf;
    hf_scoring(&hf);
    t->reader = (PairReader){.cfg = c, .max = c->max_length};
    if (!scored_text_open(&t->reader.text, c->raw ? "raw" : c->chat_template, c->model, &hf, en->tokenizer, e))
        return false;
    if (!max_length_fits(c, &hf, e)) return false;
    t->run.data = mix_open(c, dataset_open_pairs, &check, e);
    if (!t->run.data || !*c->eval_file) return t->run.data;
    t->held_out = dataset_open_pairs(c->eval_file, c, &check, e);
    return t->held_out;
}

static bool open_run(Supervised *run, Error *e) {
    RewardTrainer *t = (RewardTrainer *)run;
    const Config *c = run->cfg;
    RunShape shape = shape_for_pairs(c);
    Learner *l = &run->learner;
    if (!engine_prepare(&l->engine, c, e) || !open_data(t, e) || !learner_open(l, c, shape, e)) return false;
    t->packing = packing_new(shape.train_tokens, shape.train_seqs);
    t->pair = xcalloc((size_t)c->per_device_train_batch_size, sizeof *t->pair);
    t->score = xcalloc((size_t)shape.train_tokens, sizeof *t->score);
    t->gradient = xcalloc((size_t)shape.train_tokens, sizeof(float));
    return true;
}

static void close_run(Supervised *run) {
    RewardTrainer *t = (RewardTrainer *)run;
    packing_free(&t->packing);
    for (int64_t k = 0; t->pair && k < run->cfg->per_device_train_batch_size; k++) pair_free(&t->pair[k]);
    free(t->pair);
    free(t->score);
    free(t->gradient);
    dataset_free(t->held_out);
}

ExitCode command_reward_model(int argc, char **argv, Error *e) {
    static const SupervisedKind kind = {"reward_model", "pairs", open_run, train_step, evaluate, close_run};
    RewardTrainer t = {0};
    return supervised_command(&kind, &t.run, argc, argv, e);
}
