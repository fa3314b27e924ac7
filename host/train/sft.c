// grpo sft: supervised fine-tuning on what the assistant says. Loss: mean negative log-likelihood of the tokens of the
// answers, over an optimizer step; prompts are read, not learned.
#include "exchange.h"
#include "chat.h"
#include "clock.h"
#include "device.h"
#include "example.h"
#include "optim.h"
#include "ranks.h"
#include "signals.h"
#include "supervised.h"
#include "train_commands.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// Draws the next example that has something to learn within max_length; longer ones are cut at the end.
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

// An example of a micro-batch: its file, and how many tokens are learned of it.
typedef struct {
    int file;
    int64_t targets;
} Learned;
// Sums over the learned tokens of a step: of all, and of each file's.
typedef struct {
    double loss, entropy, of_file[MAX_FILES], targets[MAX_FILES]; // of_file: negative log-likelihoods
} Sums;

typedef struct {
    Supervised run;
    Prompter prompter;
    Example *example; // [examples of a step + 1] this rank's, and one for all others
    Packing *packing; // [gradient_accumulation_steps] the micro-batches of one optimizer step
    int micros;       // those in use
    Learned *packed;  // [n_packed] the examples in them, in their order
    int n_packed;
    float *scored; // [RunShape.held] staging
} Sft;

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

// Adds one example to the last micro-batch, or begins another with it. It shares its first `shared` ids with those
// before and after it; *open: they stand in the last micro-batch.
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
        die("an example of %lld tokens (%lld of them shared) does not fit the %lld rows of a micro-batch, %lld of them "
            "full",
            (long long)n, (long long)shared, (long long)p->max_tokens, (long long)p->T);
    s->packed[s->n_packed++] = (Learned){x->file, p->N - before};
}

// Packs n examples into as few micro-batches as they fit in, or per_device_train_batch_size each. Those with the prompt
// of one before them follow it, and the prompt's rows stand once a micro-batch.
static void pack_step(Sft *s, int n) {
    bool *packed = xcalloc((size_t)n + 1, sizeof *packed);
    s->micros = s->n_packed = 0;
    for (int i = 0; i < n; i++) {
        if (packed[i]) continue;
        int members = 0;
        for (int j = i; j < n && s->run.cfg->share_prompts; j++) members += same_prompt(&s->example[i], &s->example[j]);
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

// Draws the examples of one optimizer step, and packs this rank's range of them. Which examples a step sees depends
// neither on packing nor on ranks.
static bool draw_step(Sft *s, int64_t *targets, Error *e) {
    int n = optim_step_rows(s->run.cfg);
    RankRange own = rank_range(s->run.learner.engine.comm, n);
    *targets = 0;
    for (int i = 0; i < n; i++) {
        bool mine = i >= own.first && i < own.end;
        Example *x = &s->example[mine ? i - own.first : own.end - own.first];
        if (!next_example(&s->prompter, s->run.data, x, e)) return false;
        for (size_t j = 1; j < x->ids.n; j++) *targets += x->wanted[j] != 0;
    }
    pack_step(s, own.end - own.first);
    return true;
}

// Queues the gradients of one micro-batch (the step's last?) on the device; its log-probs and entropies are held there
// from element `at` on.
static void train_micro(Sft *s, const Packing *p, double per_token, int64_t at, bool last) {
    Learner *l = &s->run.learner;
    TrainWork w = micro_pack(l, p);
    micro_forward(l->engine.device, &l->engine.policy, &w, 1);
    l->engine.device->fill(l->engine.device, w.dlogp, (float)-per_token);
    micro_backward(l, &w, 1, false, last);
    micro_hold(l, at, w.logp);
    micro_hold(l, at + p->N, w.entropy);
}

// Adds up the step's sums, once the device is done.
static void take_sums(Sft *s, double per_token, Sums *sums) {
    int64_t end = 0;
    for (int k = 0; k < s->micros; k++) end += 2 * s->packing[k].N;
    micro_fetch(&s->run.learner, end, s->scored);
    const float *at = s->scored;
    const Learned *packed = s->packed;
    for (int k = 0; k < s->micros; k++) {
        for (int64_t left = s->packing[k].N; left > 0; left -= packed++->targets)
            for (int64_t j = 0; j < packed->targets; j++) {
                sums->of_file[packed->file] -= *at;
                sums->loss -= *at++ * per_token;
            }
        for (int64_t j = 0; j < s->packing[k].N; j++) sums->entropy += *at++ * per_token;
    }
    for (int i = 0; i < s->n_packed; i++) sums->targets[s->packed[i].file] += (double)s->packed[i].targets;
}

// Logs of each file, where there are several, its share of the step's tokens and their mean loss.
static void add_files(Sft *s, const Sums *sums, int64_t targets) {
    for (int f = 0; f < s->run.cfg->train_file.n && s->run.cfg->train_file.n > 1; f++) {
        char name[640];
        snprintf(name, sizeof name, "files/%s/loss", mix_label(s->run.data, f));
        metrics_add(s->run.report.metrics, name,
                    sums->of_file[f] / sums->targets[f]); // NaN, so null, where it had none
        snprintf(name, sizeof name, "files/%s/frac_tokens", mix_label(s->run.data, f));
        metrics_add(s->run.report.metrics, name, sums->targets[f] / (double)targets);
    }
}

// One optimizer step. False: stopped by a signal (e->code EXIT_OK), or an error.
static bool sft_step(Supervised *run, Error *e) {
    Sft *s = (Sft *)run;
    Learner *l = &s->run.learner;
    double start = clock_seconds();
    Sums step = {0};
    int64_t targets, tokens = 0, rows = 0, held = 0;
    if (!draw_step(s, &targets, e)) return false;
    l->engine.device->fill(l->engine.device, model_trained(&l->grad).slab, 0);
    bool stopped = false;
    for (int k = 0; k < s->micros && !(stopped = stop_requested()); k++) {
        progress_phase(s->run.report.progress, "train", k, s->micros);
        ranks_phase("train", s->run.state.step + 1);
        profile_phase(&s->run.report.profile, "train");
        train_micro(s, &s->packing[k], 1 / (double)targets, held, k + 1 == s->micros);
        held += 2 * s->packing[k].N;
        tokens += s->packing[k].alone;
        rows += s->packing[k].T;
    }
    if (!stopped) take_sums(s, 1 / (double)targets, &step);
    double sums[] = {(double)tokens, (double)rows, stopped}; // of all ranks
    if (!optim_reduce(l, e) || !comm_all_reduce(l->engine.comm, "counts", sums, 3, e) || sums[2] > 0 ||
        !comm_all_reduce(l->engine.comm, "loss", (double *)&step, sizeof step / sizeof(double), e))
        return false;
    bool log;
    if (!supervised_update(run, start, step.loss, NAN, (int64_t)sums[0], &log, e)) return false;
    if (!log) return true;
    metrics_add(run->report.metrics, "entropy", step.entropy);
    metrics_add_int(run->report.metrics, "num_tokens", run->state.seen_tokens);
    metrics_add(run->report.metrics, "frac_rows_saved", 1 - sums[1] / sums[0]);
    add_files(s, &step, targets);
    metrics_add(run->report.metrics, "step_time", clock_seconds() - start);
    return true;
}

static bool sft_open(Supervised *run, Error *e) {
    Sft *s = (Sft *)run;
    const Config *c = run->cfg;
    RunShape shape = shape_for_sft(c);
    if (!engine_prepare(&s->run.learner.engine, c, e) || !engine_prompter_bare(&s->run.learner.engine, &s->prompter, e))
        return false;
    if (!max_length_fits(c, &s->run.learner.engine.hf, e)) return false;
    if (!s->run.learner.engine.hf.n_eos)
        return error_set(e, EXIT_INPUT,
                         "%s: no eos_token_id in generation_config.json or config.json; without it no answer ends",
                         c->model);
    s->run.data = mix_open(c, dataset_open_sft, &(RowCheck){example_check, &s->prompter}, e);
    if (!s->run.data || !learner_open(&s->run.learner, c, shape, e)) return false;
    s->packing = xcalloc((size_t)c->gradient_accumulation_steps, sizeof *s->packing);
    for (int64_t k = 0; k < c->gradient_accumulation_steps; k++)
        s->packing[k] = packing_new(shape.train_tokens, shape.train_seqs);
    s->scored = xcalloc((size_t)shape.held, sizeof *s->scored);
    int64_t n = optim_step_rows(c);
    s->example = xcalloc((size_t)n + 1, sizeof *s->example);
    s->packed = xcalloc((size_t)n, sizeof *s->packed);
    return true;
}

static void sft_close(Supervised *run) {
    Sft *s = (Sft *)run;
    for (int64_t k = 0; s->packing && k < run->cfg->gradient_accumulation_steps; k++) packing_free(&s->packing[k]);
    free(s->packing);
    free(s->scored);
    for (int i = 0; s->example && i <= optim_step_rows(run->cfg); i++) example_free(&s->example[i]);
    free(s->example);
    free(s->packed);
    prompter_close(&s->prompter);
}

ExitCode command_sft(int argc, char **argv, Error *e) {
    static const SupervisedKind kind = {"sft", "examples", sft_open, sft_step, NULL, sft_close};
    Sft s = {0};
    return supervised_command(&kind, &s.run, argc, argv, e);
}
