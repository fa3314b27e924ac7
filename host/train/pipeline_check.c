// What can be known of a pipeline before its first phase starts: whether what each phase reads is there, is what the
// phase wants, and fits its memory.
#include "pipeline.h"
#include "adapter_files.h"
#include "config_table.h"
#include "dataset.h"
#include "device.h"
#include "engine.h"
#include "example.h"
#include "file.h"
#include "hf.h"
#include "notes.h"
#include "pairs.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const Phase *phase_maker(const Pipeline *l, int k, const char *path) {
    const char *uses = l->phases.phase[k].uses;
    for (int j = k - 1; uses && j >= 0; j--) {
        const Phase *p = &l->phases.phase[j];
        for (int i = 0; uses[j] && phase_product_name(p, i); i++) {
            char *made = phase_product((void *)(uintptr_t)l, &l->phases, j, phase_product_name(p, i));
            size_t n = strlen(made);
            bool is = !strncmp(path, made, n) && (!path[n] || path[n] == '/');
            free(made);
            if (is) return p;
        }
    }
    return NULL;
}

// The model directory that phase k's model has the shape of: its own, or that of the phase which makes it.
static const char *model_of(const Pipeline *l, int k) {
    const Phase *p = &l->phases.phase[k], *maker = access(p->cfg.model, R_OK) ? phase_maker(l, k, p->cfg.model) : NULL;
    return maker ? model_of(l, (int)(maker - l->phases.phase)) : p->cfg.model;
}

// Whether a phase makes adapters instead of whole models.
static bool makes_adapter(const Phase *p) { return phase_makes_model(p) && (p->cfg.lora_r || *p->cfg.adapter); }

// What is wrong, a line each, and the exit code: that of a mistake in the file where there is one, else of the first
// problem.
typedef struct {
    Str lines;
    int n;
    ExitCode code;
} Problems;

static PRINTF_LIKE(3, 4) void add_problem(Problems *all, ExitCode code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char line[sizeof((Error *)0)->text];
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    str_printf(&all->lines, "%s%s", all->n++ ? "\n" : "", line);
    if (all->code == EXIT_OK || code == EXIT_CONFIG) all->code = code;
}

// ---- inputs ---------------------------------------------------------------------------------------------------------

// Whether an earlier phase makes such a model as a reward asks. False after filling *e.
static bool of_rewards_kind(const Phase *maker, const Input *in, Error *e) {
    bool scores = maker->command == PHASE_REWARD_MODEL;
    if (scores != (in->reward->info->by_model == MODEL_SCORES))
        return error_set(e, EXIT_CONFIG, "reward %s asks a model that %s, and phase %s makes one that %s",
                         in->reward->name, scores ? "writes" : "scores texts", maker->name,
                         scores ? "scores texts" : "writes");
    return scores || !makes_adapter(maker) ||
           error_set(e, EXIT_CONFIG, "reward %s asks a whole model, and phase %s makes an adapter", in->reward->name,
                     maker->name);
}

// Whether an earlier phase makes an adapter of such a model as phase p runs. False after filling *e.
static bool of_adapters_kind(const Phase *p, const Phase *maker, Error *e) {
    bool scores = maker->command == PHASE_REWARD_MODEL;
    if (!makes_adapter(maker))
        return error_set(e, EXIT_CONFIG, "phase %s makes a whole model, no adapter; it has no lora_r", maker->name);
    return scores == (p->command == PHASE_REWARD_MODEL) ||
           error_set(e, EXIT_CONFIG, "phase %s makes an adapter of a model that %s, and phase %s runs one that %s",
                     maker->name, scores ? "scores texts" : "writes", p->name, scores ? "writes" : "scores texts");
}

// Whether what an earlier phase makes is what an option wants. False after filling *e.
static bool of_a_kind(const Phase *p, const Phase *maker, const Input *in, Error *e) {
    static const char *const makes[PHASE_COMMANDS] = {[PHASE_SFT] = "a model",
                                                      [PHASE_TRAIN] = "a model",
                                                      [PHASE_SELECT] = "rows",
                                                      [PHASE_REWARD_MODEL] = "a model that scores texts",
                                                      [PHASE_EVAL] = "an evaluation's result"};
    bool model = phase_makes_model(maker), scores = maker->command == PHASE_REWARD_MODEL;
    if (model && in->directory && in->reward) return of_rewards_kind(maker, in, e);
    if (model && !strcmp(in->name, "adapter")) return of_adapters_kind(p, maker, e);
    bool whole = !strcmp(in->name, "model"), policy = whole && p->command != PHASE_REWARD_MODEL;
    if (whole && makes_adapter(maker))
        return error_set(e, EXIT_CONFIG,
                         "phase %s makes an adapter, not a model; give the model that it is trained beside, and "
                         "adapter: ${%s}",
                         maker->name, maker->name);
    bool right = in->directory ? model && !(policy && scores) : maker->command == PHASE_SELECT;
    return right || error_set(e, EXIT_CONFIG, "phase %s makes %s, not %s", maker->name, makes[maker->command],
                              in->directory ? policy ? "a model that writes" : "a model" : "rows");
}

// Opens the rows of a file as the phase would, each row's length too where the model it comes from is there already.
static Dataset *open_rows(const Pipeline *l, int k, const Input *in, Error *e) {
    const Phase *p = &l->phases.phase[k];
    Config c = p->cfg; // a view
    c.model = (char *)(uintptr_t)model_of(l, k);
    Engine en = {0};
    Prompter prompter = {0};
    PairReader reader = {.cfg = &c, .max = c.max_length};
    RowCheck check = {NULL, NULL};
    if (engine_prepare(&en, &c, NULL)) {
        if (p->command == PHASE_REWARD_MODEL) {
            HfConfig hf = en.hf;
            hf_scoring(&hf);
            if (scored_text_open(&reader.text, c.raw ? "raw" : c.chat_template, c.model, &hf, en.tokenizer, NULL))
                check = (RowCheck){pair_check, &reader};
        } else if ((p->command == PHASE_SFT ? engine_prompter_bare : engine_prompter)(&en, &prompter, NULL)) {
            bool evaluates = !strcmp(in->name, "eval_file");
            check = (RowCheck){p->command == PHASE_SFT ? example_check
                               : evaluates             ? prompter_check_eval
                                                       : prompter_check,
                               &prompter};
        }
    }
    const RowCheck *how = check.fate ? &check : NULL;
    Dataset *d = p->command == PHASE_SFT            ? dataset_open_sft(in->path, &c, how, e)
                 : p->command == PHASE_REWARD_MODEL ? dataset_open_pairs(in->path, &c, how, e)
                                                    : dataset_open(in->path, &c, how, e);
    if (how && p->command != PHASE_REWARD_MODEL) prompter_close(&prompter);
    engine_close(&en);
    return d;
}

// Whether the weights of a model that is there fit its config.json; what else may be wrong with it, plan_phase tells.
// False after filling *e.
static bool weights_fit(const char *dir, Error *e) {
    HfConfig hf;
    if (adapter_is(dir) || !hf_config_read(dir, &hf, NULL)) return true;
    note_quiet(true); // the phase says itself what it makes of them
    bool ok = hf_head_read(dir, &hf.dims, e);
    Arena measure = arena_measure();
    Model m = model_carve(&measure, hf.dims, F32);
    ok = ok && hf_weights_check(dir, &m, e);
    note_quiet(false);
    model_free(&m);
    return ok;
}

// Whether an input can be read: a directory is there, a file of rows has such rows. False after filling *e.
static bool readable(const Pipeline *l, int k, const Input *in, Error *e) {
    if (in->directory)
        return !access(in->path, R_OK) || error_set(e, EXIT_INPUT, "%s: there is no such directory", in->path);
    if (strncmp(in->name, "train_file", 10) && strcmp(in->name, "eval_file")) return file_regular(in->path, e);
    note_quiet(true); // the phase says itself which lines it leaves out
    Dataset *d = open_rows(l, k, in, e);
    note_quiet(false);
    dataset_free(d);
    return d || e->code == EXIT_STOPPED; // what a signal asks for is done before the first phase
}

// Checks that the programs and libraries behind a phase's rewards are there, where they are named by a path.
static void check_programs(const Phase *p, const Rewards *rw, Problems *problems) {
    for (int k = 0; k <= rw->n; k++) {
        const Reward *r = k < rw->n ? &rw->reward[k] : &rw->grader;
        const char *program = r->info ? reward_program(r) : "";
        char *word = xstrndup(program, strcspn(program, " "));
        if (strchr(word, '/') && access(word, R_OK))
            add_problem(problems, EXIT_INPUT, "%s: phase %s: %s: %s: there is no such file",
                        phase_place(p, k < rw->n ? "rewards" : "eval_grader"), p->name, r->name, word);
        free(word);
    }
}

// Checks that what phase k reads is there, and is what it reads.
static void check_inputs(const Pipeline *l, int k, Problems *problems) {
    const Phase *p = &l->phases.phase[k];
    Input input[MAX_INPUTS];
    Rewards rw = {0};
    int n = phase_made(l, p->name) ? 0 : phase_inputs(p, &rw, input); // of a finished phase the checksums tell
    check_programs(p, &rw, problems);
    for (int i = 0; i < n; i++) {
        Error e = {0};
        if (!*input[i].path || strstr(input[i].path, NO_MEANING)) continue; // told where it was read
        const Phase *maker = phase_maker(l, k, input[i].path);
        if (maker ? of_a_kind(p, maker, &input[i], &e) : readable(l, k, &input[i], &e)) continue;
        add_problem(problems, e.code, "%s: phase %s: %s: %s", input[i].place, p->name, input[i].name, e.text);
    }
}

// Checks that the weights of the models that phase k begins with and asks are there.
static void check_weights(const Pipeline *l, int k, Problems *problems) {
    const Phase *p = &l->phases.phase[k];
    Input input[MAX_INPUTS];
    Rewards rw;
    int n = phase_made(l, p->name) ? 0 : phase_inputs(p, &rw, input);
    for (int i = 0; i < n; i++) {
        Error e = {0};
        bool start = !strcmp(input[i].name, "model") && p->cfg.init != INIT_RANDOM;
        if (!input[i].directory || !(start || input[i].reward) || weights_fit(input[i].path, &e)) continue;
        add_problem(problems, e.code, "%s: phase %s: %s: %s", input[i].place, p->name, input[i].name, e.text);
    }
}

// ---- memory ---------------------------------------------------------------------------------------------------------

// Puts in the place of models behind rewards that an earlier phase will make what they will be made of.
static void plan_rewards(const Pipeline *l, int k, Rewards *rw) {
    for (int i = 0; i <= rw->n; i++) {
        Reward *r = i < rw->n ? &rw->reward[i] : &rw->grader;
        const char *dir = r->info ? reward_model_dir(r) : "";
        const Phase *maker = *dir && access(dir, R_OK) ? phase_maker(l, k, dir) : NULL;
        if (!maker) continue;
        reward_set_text(r, "model", model_of(l, (int)(maker - l->phases.phase)));
        rw->unmade |= UINT64_C(1) << i;
    }
}

// Puts in the place of an adapter that an earlier phase will make one as large: a new one, or that which is there and
// goes on.
static void plan_adapter(const Pipeline *l, int k, Config *c) {
    const Phase *maker = phase_maker(l, k, c->adapter);
    while (maker && *maker->cfg.adapter && access(maker->cfg.adapter, R_OK))
        maker = phase_maker(l, (int)(maker - l->phases.phase), maker->cfg.adapter);
    c->adapter = maker ? maker->cfg.adapter : "";
    if (maker) c->lora_r = maker->cfg.lora_r, c->lora_target = maker->cfg.lora_target;
}

// Finds the bytes that phase k needs, and whether they are there. False after filling *e.
static bool plan_phase(const Pipeline *l, int k, size_t *need, Error *e) {
    const Phase *p = &l->phases.phase[k];
    Config c = p->cfg; // a view
    c.model = (char *)(uintptr_t)model_of(l, k);
    if (*c.adapter && access(c.adapter, R_OK)) plan_adapter(l, k, &c);
    Rewards rw = {0};
    Engine en = {0};
    RunShape shape;
    MemoryLimit have;
    const int64_t many = INT64_C(1) << 20; // of whatever number of questions
    if (phase_scores(p) && !(p->command == PHASE_TRAIN ? rewards_select_training : rewards_select)(&c, &rw, e))
        return false;
    plan_rewards(l, k, &rw);
    if (p->command == PHASE_TRAIN) shape = shape_for_train(&c, &rw);
    else if (p->command == PHASE_SFT) shape = shape_for_sft(&c);
    else if (p->command == PHASE_REWARD_MODEL) shape = shape_for_pairs(&c);
    else shape = shape_for_rollout(&c, many, many), shape.rewards = &rw;
    Device *d = device_open(c.device, 0, (int)c.threads, c.cpu_isa, e);
    bool ok = d && engine_describe(&en, d, &c, shape, e);
    if (ok && !plan_fits(&en, need, &have))
        ok = error_set(e, EXIT_MEMORY, "it would take %.2f GiB, and %s has %.2f", (double)*need / (1 << 30), have.whose,
                       (double)have.bytes / (1 << 30));
    device_close(d);
    en.device = NULL;
    engine_close(&en);
    return ok;
}

// ---- all of it ------------------------------------------------------------------------------------------------------

// Reports all problems, below their number. Returns false.
static bool report(const Problems *all, Error *e) {
    const Reading r = {.problems = all->lines, .problem_count = all->n};
    return problems_report(&r, e), e->code = all->code, false;
}

void pipeline_check_files(const Pipeline *l, Error *e) {
    const Phases *ps = &l->phases;
    if (!ps->problem_count) return; // the file itself could not be read
    Problems problems = {.n = ps->problem_count, .code = EXIT_CONFIG};
    str_puts(&problems.lines, ps->problems.s);
    for (int k = 0; k < ps->n; k++)
        if (ps->phase[k].place) check_inputs(l, k, &problems), check_weights(l, k, &problems); // it could be read
    report(&problems, e);
    str_free(&problems.lines);
}

bool pipeline_check(const Pipeline *l, int end, Error *e) {
    Problems problems = {0};
    Str table = {0};
    // What is recorded of files takes minutes to compare with those of large models. It is done when the phase's turn
    // comes, unless that is behind one that runs, or whose products go.
    bool files = l->from || l->only;
    for (int k = 0; k < l->phases.n; k++) {
        const Phase *p = &l->phases.phase[k];
        size_t need = 0;
        int before = problems.n;
        Error found = {0}, changed = {0};
        if (k < end && !phase_as_recorded(l, k, files, &changed))
            add_problem(&problems, changed.code, "%s:%d: %s", l->path, p->line, changed.text);
        files = files || !phase_made(l, p->name);
        check_inputs(l, k, &problems);
        bool there = problems.n == before; // what is not there has no memory
        if (there && !plan_phase(l, k, &need, &found))
            add_problem(&problems, found.code, "%s:%d: phase %s: %s", l->path, p->line, p->name, found.text);
        check_weights(l, k, &problems);
        str_printf(&table, "  %d/%d %-20s %-12s %s  %.2f GiB\n", k + 1, l->phases.n, p->name,
                   phase_command_name[p->command], p->cfg.model, (double)need / (1 << 30));
    }
    bool ok = !problems.n;
    if (!ok) report(&problems, e);
    else printf("%s: %d phases into %s; memory of each:\n%s", l->path, l->phases.n, l->phases.output_dir, table.s);
    fflush(stdout);
    str_free(&problems.lines), str_free(&table);
    return ok;
}
