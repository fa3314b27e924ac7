// grpo sft: supervised fine-tuning on what the assistant says. Loss: mean negative log-likelihood of the tokens of the
// answers, over an optimizer step; prompts are read, not learned.
#include "chat.h"
#include "clock.h"
#include "device.h"
#include "example.h"
#include "notes.h"
#include "optim.h"
#include "ranks.h"
#include "signals.h"
#include "train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// The next example with something to learn within max_length; longer ones are cut at the end.
static bool next_example(const Prompter *p, Mix *data, Example *x, Error *e) {
    const Config *c = p->cfg;
    const char *path = "";
    for (int64_t tried = 0; tried <= mix_rows(data); tried++) {
        Row row;
        if (!mix_next(data, &row, e)) return false;
        path = row.path;
        x->file = row.file;
        bool ok = example_read(p, row.example, x, e);
        if (!ok) error_prefix(e, "%s:%lld", row.path, (long long)row.line);
        row_free(&row);
        if (!ok) return false;
        if (example_cut(x, c->max_length)) return true;
        mix_again(data);
    }
    return error_set(e, EXIT_INPUT, "%s: no answer begins within max_length=%lld tokens; raise it", path,
                     (long long)c->max_length);
}

// What an example has of its micro-batch's learned tokens.
typedef struct {
    int file;
    int64_t targets;
} Part;
// Sums over the learned tokens of a step: of all, and of each file's.
typedef struct {
    double loss, entropy, of_file[MAX_FILES], targets[MAX_FILES]; // of_file: negative log-likelihoods
} Sums;

typedef struct {
    const Config *cfg;
    Learner learner;
    Prompter prompter;
    Mix *data;
    Example *example; // [examples of a step + 1] this rank's, and one for all others
    Packing *packing; // [gradient_accumulation_steps] the micro-batches of one optimizer step
    int micros;       // those in use
    Part *part;       // [parts] the examples in them, in their order
    int parts;
    float *scored; // [RunShape.held] staging
    TrainState at;
    int64_t total_steps, steps_per_epoch;
    Metrics *metrics;
    Progress *progress;
    LiveReport *live;
    Hooks *hooks;
    Profile profile;
} Sft;

static int step_examples(const Config *c) {
    return (int)(c->per_device_train_batch_size * c->gradient_accumulation_steps * c->gpus);
}

// How many ids come before the first one that is learned.
static size_t prompt_length(const Example *x) {
    size_t n = 1;
    while (!x->wanted[n]) n++;
    return n;
}
static bool same_prompt(const Example *a, const Example *b) {
    size_t n = prompt_length(a);
    return n == prompt_length(b) && !memcmp(a->ids.id, b->ids.id, n * sizeof *a->ids.id);
}

// Adds one example to the last micro-batch, or begins another with it. It shares its first `shared` ids with those before
// and after it; *open: they stand in the last micro-batch.
static void pack_example(Sft *s, const Example *x, size_t shared, bool *open) {
    int64_t n = (int64_t)x->ids.n, own = n - (int64_t)shared;
    if (!s->micros || !packing_fits(&s->packing[s->micros - 1], *open ? own - 1 : n - 1)) {
        packing_clear(&s->packing[s->micros++]);
        *open = false;
    }
    Packing *p = &s->packing[s->micros - 1];
    bool fits = *open || packing_prefix(p, x->ids.id, (int64_t)shared);
    *open = true;
    int64_t before = p->N;
    if (!fits || !packing_add(p, x->ids.id + shared, own, 0, x->wanted + shared))
        die("an example does not fit its micro-batch");
    s->part[s->parts++] = (Part){x->file, p->N - before};
}

// Packs n examples into as few micro-batches as they fit in, or per_device_train_batch_size each. Those with the prompt of
// one before them follow it, and the prompt's rows stand once a micro-batch.
static void pack_step(Sft *s, int n) {
    bool *packed = xcalloc((size_t)n + 1, sizeof *packed);
    s->micros = s->parts = 0;
    for (int i = 0; i < n; i++) {
        if (packed[i]) continue;
        int members = 0;
        for (int j = i; j < n && s->cfg->share_prompts; j++) members += same_prompt(&s->example[i], &s->example[j]);
        bool open = false;
        if (members < 2) pack_example(s, &s->example[i], 0, &open);
        for (int j = i; j < n && members > 1; j++) {
            if (!same_prompt(&s->example[i], &s->example[j])) continue;
            pack_example(s, &s->example[j], prompt_length(&s->example[i]) - 1, &open);
            packed[j] = true;
        }
    }
    free(packed);
}

// Draws the examples of one optimizer step, and packs this rank's share of them. Which examples a step sees depends neither
// on packing nor on ranks.
static bool draw_step(Sft *s, int64_t *targets, Error *e) {
    int n = step_examples(s->cfg);
    RankShare own = rank_share(s->learner.engine.comm, n);
    *targets = 0;
    for (int i = 0; i < n; i++) {
        bool mine = i >= own.first && i < own.end;
        Example *x = &s->example[mine ? i - own.first : own.end - own.first];
        if (!next_example(&s->prompter, s->data, x, e)) return false;
        for (size_t j = 1; j < x->ids.n; j++) *targets += x->wanted[j] != 0;
    }
    pack_step(s, own.end - own.first);
    return true;
}

// Queues the gradients of one micro-batch on the device; its log-probs and entropies are held there from element `at`
// on.
static void train_micro(Sft *s, const Packing *p, double per_token, int64_t at) {
    Learner *l = &s->learner;
    TrainWork w = micro_pack(l, p);
    micro_forward(l, &l->engine.policy, &w, 1);
    l->engine.device->fill(l->engine.device, w.dlogp, (float)-per_token);
    micro_backward(l, &w, 1, false);
    micro_hold(l, at, w.logp);
    micro_hold(l, at + p->N, w.entropy);
}

// Once the device is done: the step's sums.
static void take_sums(Sft *s, double per_token, Sums *sums) {
    int64_t end = 0;
    for (int k = 0; k < s->micros; k++) end += 2 * s->packing[k].N;
    micro_fetch(&s->learner, end, s->scored);
    const float *at = s->scored;
    const Part *part = s->part;
    for (int k = 0; k < s->micros; k++) {
        for (int64_t left = s->packing[k].N; left > 0; left -= part++->targets)
            for (int64_t j = 0; j < part->targets; j++) {
                sums->of_file[part->file] -= *at;
                sums->loss -= *at++ * per_token;
            }
        for (int64_t j = 0; j < s->packing[k].N; j++) sums->entropy += *at++ * per_token;
    }
    for (int i = 0; i < s->parts; i++) sums->targets[s->part[i].file] += (double)s->part[i].targets;
}

// Of each file, where there are several: its share of the step's tokens, and their mean loss.
static void add_files(Sft *s, const Sums *sums, int64_t targets) {
    for (int f = 0; f < s->cfg->train_file.n && s->cfg->train_file.n > 1; f++) {
        char name[640];
        snprintf(name, sizeof name, "files/%s/loss", mix_label(s->data, f));
        metrics_add(s->metrics, name, sums->of_file[f] / sums->targets[f]); // NaN, so null, where it had none
        snprintf(name, sizeof name, "files/%s/frac_tokens", mix_label(s->data, f));
        metrics_add(s->metrics, name, sums->targets[f] / (double)targets);
    }
}

// One optimizer step. False: stopped by a signal (e->code EXIT_OK), or an error.
static bool sft_step(Sft *s, Error *e) {
    Learner *l = &s->learner;
    double start = clock_seconds();
    Sums step = {0};
    int64_t targets, tokens = 0, rows = 0, held = 0;
    if (!draw_step(s, &targets, e)) return false;
    l->engine.device->fill(l->engine.device, l->grad.slab, 0);
    bool stopped = false;
    for (int k = 0; k < s->micros && !(stopped = stop_requested()); k++) {
        progress_phase(s->progress, "train", k, s->micros);
        ranks_phase("train", s->at.step + 1);
        profile_phase(&s->profile, "train");
        train_micro(s, &s->packing[k], 1 / (double)targets, held);
        held += 2 * s->packing[k].N;
        tokens += s->packing[k].alone;
        rows += s->packing[k].T;
    }
    if (!stopped) take_sums(s, 1 / (double)targets, &step);
    double sums[] = {(double)tokens, (double)rows, stopped}; // of all ranks
    if (!comm_all_reduce(l->engine.comm, "counts", sums, 3, e) || sums[2] > 0 ||
        !comm_all_reduce(l->engine.comm, "loss", (double *)&step, sizeof step / sizeof(double), e))
        return false;
    double loss = step.loss;
    tokens = (int64_t)sums[0];
    const char *bad = NULL;
    double norm, rate = optim_learning_rate(s->cfg, s->at.step, s->total_steps);
    profile_phase(&s->profile, "optimizer");
    if (!optim_grad_norm(l, &norm, &bad, e)) return false;
    bool good = isfinite(loss) && isfinite(norm);
    if (good && !optim_step(l, rate, norm, ++s->at.updates, e)) return false;
    l->engine.device->sync(l->engine.device);
    if (!device_ok(l->engine.device, e)) return false; // what was computed since is void
    s->at.skipped = good ? 0 : s->at.skipped + 1;
    s->at.step++;
    s->at.seen_tokens += tokens;
    s->at.cursor = mix_cursor(s->data);
    double seconds = clock_seconds() - start;
    if (!comm_rank(l->engine.comm) &&
        (s->at.step % s->cfg->logging_steps == 0 || s->at.step == s->total_steps || !good)) {
        metrics_add_int(s->metrics, "step", s->at.step);
        metrics_add(s->metrics, "epoch", (double)s->at.step / (double)s->steps_per_epoch);
        metrics_add(s->metrics, "loss", loss);
        metrics_add(s->metrics, "grad_norm", norm);
        metrics_add(s->metrics, "learning_rate", rate);
        metrics_add(s->metrics, "entropy", step.entropy);
        metrics_add_int(s->metrics, "num_tokens", s->at.seen_tokens);
        metrics_add(s->metrics, "frac_rows_saved", 1 - sums[1] / sums[0]);
        add_files(s, &step, targets);
        metrics_add(s->metrics, "step_time", seconds);
    }
    ProgressStep shown = {.reward = NAN,
                          .accuracy = NAN,
                          .kl = NAN,
                          .length = NAN,
                          .loss = loss,
                          .tokens_per_second = (double)tokens / seconds};
    progress_step(s->progress, s->at.step, &shown);
    if (!good)
        progress_say(s->progress, "step %lld skipped: %s is not finite; weights and optimizer are as before",
                     (long long)s->at.step,
                     !isfinite(loss) ? "the loss"
                     : bad           ? bad
                                     : "the gradient's norm");
    if (s->at.skipped >= s->cfg->max_bad_steps)
        return error_set(e, EXIT_NUMERIC, "%lld steps in a row were not finite; lower learning_rate",
                         (long long)s->at.skipped);
    return comm_rank(l->engine.comm) || metrics_commit(s->metrics, e);
}

static bool sft_open(Sft *s, const Config *c, Error *e) {
    s->cfg = c;
    s->at.command = "sft";
    RunShape shape = shape_for_sft(c);
    if (!engine_prepare(&s->learner.engine, c, e) || !engine_prompter(&s->learner.engine, &s->prompter, e))
        return false;
    if (c->max_length > s->learner.engine.hf.dims.max_positions)
        return error_set(e, EXIT_CONFIG, "max_length %lld is more than the model's context of %d tokens; lower it",
                         (long long)c->max_length, s->learner.engine.hf.dims.max_positions);
    if (!s->learner.engine.hf.n_eos)
        return error_set(e, EXIT_INPUT,
                         "%s: no eos_token_id in generation_config.json or config.json; without it no answer ends",
                         c->model);
    s->data = mix_open(c, dataset_open_sft, &(RowCheck){example_check, &s->prompter}, e);
    if (!s->data || !learner_open(&s->learner, c, shape, e)) return false;
    s->packing = xcalloc((size_t)c->gradient_accumulation_steps, sizeof *s->packing);
    for (int64_t k = 0; k < c->gradient_accumulation_steps; k++)
        s->packing[k] = packing_new(shape.train_tokens, shape.train_seqs);
    s->scored = xcalloc((size_t)shape.held, sizeof *s->scored);
    int64_t n = step_examples(c);
    s->example = xcalloc((size_t)n + 1, sizeof *s->example);
    s->part = xcalloc((size_t)n, sizeof *s->part);
    s->steps_per_epoch = mix_rows(s->data) > n ? mix_rows(s->data) / n : 1;
    s->total_steps = optim_total_steps(c, s->steps_per_epoch);
    if (!comm_rank(s->learner.engine.comm)) s->progress = progress_open(stdout, c->progress, 0, s->total_steps);
    progress_say(s->progress, "%s%s; %lld examples checked%s, %lld steps of %lld", ranks_about(c),
                 s->learner.engine.device->about, (long long)mix_rows(s->data), mix_about(s->data),
                 (long long)s->total_steps, (long long)n);
    s->profile = profile_open(s->learner.engine.device, c, s->progress);
    if (!run_resume(&s->learner, &s->at, s->progress, &s->metrics, e)) return false;
    if (s->metrics) s->hooks = hooks_open(c);
    s->live = live_open(c->output_dir, s->metrics, c->report);
    run_record(&s->learner, &s->at, mix_rows(s->data), s->total_steps);
    mix_seek(s->data, &s->at.cursor);
    return true;
}

static void sft_close(Sft *s) {
    profile_close(&s->profile);
    hooks_close(s->hooks);
    live_close(s->live);
    metrics_close(s->metrics);
    progress_close(s->progress);
    for (int64_t k = 0; s->packing && k < s->cfg->gradient_accumulation_steps; k++) packing_free(&s->packing[k]);
    free(s->packing);
    free(s->scored);
    for (int i = 0; s->example && i <= step_examples(s->cfg); i++) example_free(&s->example[i]);
    free(s->example);
    free(s->part);
    free(s->at.batch);
    mix_free(s->data);
    prompter_close(&s->prompter);
    learner_close(&s->learner);
}

static ExitCode sft(Sft *s, Error *e) {
    const Config *c = s->cfg;
    int64_t saved = s->at.step;
    run_say_done(&s->at, s->total_steps, s->progress);
    while (s->at.step < s->total_steps) {
        e->code = EXIT_OK;
        profile_step(&s->profile, s->at.step + 1);
        bool ok = sft_step(s, e);
        profile_phase(&s->profile, NULL);
        if (!ok && e->code != EXIT_OK) return e->code;
        bool due = c->save_steps > 0 && s->at.step % c->save_steps == 0;
        if ((!ok || due || s->at.step == s->total_steps) && saved != s->at.step) {
            if (!run_save(&s->learner, &s->at, s->metrics, s->hooks, e)) return e->code;
            saved = s->at.step;
            progress_say(s->progress, "saved %s/step_%lld", c->output_dir, (long long)s->at.step);
        }
        live_step(s->live);
        hooks_look(s->hooks);
        if (ok) continue;
        error_set(e, EXIT_STOPPED, "stopped after step %lld; the same command goes on from there",
                  (long long)s->at.step);
        return EXIT_STOPPED;
    }
    return EXIT_OK;
}

ExitCode command_sft(int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, "sft", argc, argv, e)) return e->code;
    signals_install(true);
    notes_begin();
    Sft s = {0};
    ExitCode code;
    if (!ranks_start(&c, &code, e)) {
        config_free(&c);
        return code;
    }
    code = sft_open(&s, &c, e) ? sft(&s, e) : e->code;
    if (s.hooks) hooks_start(s.hooks, HOOK_END, c.output_dir, s.at.step, metrics_last(s.metrics), (int)code);
    if (*e->text) notes_add(e->text);
    sft_close(&s);
    notes_close();
    config_free(&c);
    return code;
}
