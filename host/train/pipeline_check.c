// What can be known of a pipeline before its first phase starts: whether what each phase reads is there, is what the phase
// wants, and fits its memory.
#include "pipeline.h"
#include "dataset.h"
#include "device.h"
#include "engine.h"
#include "example.h"
#include "file.h"
#include "notes.h"
#include "pairs.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The phase before k, of those that k uses, that makes a path or what the path is in; NULL: none.
static const Phase *maker_of(const Pipeline *l, int k, const char *path) {
    const char *uses = l->phases.phase[k].uses;
    for (int j = k - 1; uses && j >= 0; j--) {
        const Phase *p = &l->phases.phase[j];
        for (int i = 0; uses[j] && phase_part(p, i); i++) {
            char *made = phase_product((void *)(uintptr_t)l, &l->phases, j, phase_part(p, i));
            size_t n = strlen(made);
            bool is = !strncmp(path, made, n) && (!path[n] || path[n] == '/');
            free(made);
            if (is) return p;
        }
    }
    return NULL;
}

// The model directory that phase k's model has the shape of: its own, or that of the phases it comes from.
static const char *model_of(const Pipeline *l, int k) {
    const Phase *p = &l->phases.phase[k];
    if (!access(p->cfg.model, R_OK)) return p->cfg.model;
    for (int j = k - 1; j >= 0; j--)
        if (p->uses[j] && phase_makes_model(&l->phases.phase[j]) && l->phases.phase[j].command != PHASE_REWARD_MODEL)
            return model_of(l, j);
    return p->cfg.model;
}

// ---- inputs ------------------------------------------------------------------------------------------------------------

// Whether what an earlier phase makes is what an option wants. False after filling *e.
static bool of_a_kind(const Phase *p, const Phase *maker, const Input *in, Error *e) {
    static const char *const makes[PHASE_COMMANDS] = {[PHASE_SFT] = "a model",
                                                      [PHASE_TRAIN] = "a model",
                                                      [PHASE_SELECT] = "rows",
                                                      [PHASE_REWARD_MODEL] = "a model that scores texts",
                                                      [PHASE_EVAL] = "an evaluation's result"};
    bool model = phase_makes_model(maker), scores = maker->command == PHASE_REWARD_MODEL;
    bool policy = !strcmp(in->name, "model") && p->command != PHASE_REWARD_MODEL;
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
        } else if (engine_prompter(&en, &prompter, NULL)) {
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
static void check_programs(const Phase *p, const Rewards *rw, Str *problems, ExitCode *code) {
    for (int k = 0; k <= rw->n; k++) {
        const Reward *r = k < rw->n ? &rw->reward[k] : &rw->grader;
        const char *program = r->info ? reward_program(r) : "";
        char *word = xstrndup(program, strcspn(program, " "));
        if (strchr(word, '/') && access(word, R_OK)) {
            if (!problems->n) *code = EXIT_INPUT;
            str_printf(problems, "%s%s: phase %s: %s: %s: there is no such file", problems->n ? "\n" : "",
                       phase_place(p, k < rw->n ? "rewards" : "eval_grader"), p->name, r->name, word);
        }
        free(word);
    }
}

// Checks that what phase k reads is there, and is what it reads. *code becomes that of the first problem.
static void check_inputs(const Pipeline *l, int k, Str *problems, ExitCode *code) {
    const Phase *p = &l->phases.phase[k];
    Input input[MAX_INPUTS];
    Rewards rw = {0};
    int n = phase_made(l, p->name) ? 0 : phase_inputs(p, &rw, input); // of a finished phase the checksums tell
    check_programs(p, &rw, problems, code);
    for (int i = 0; i < n; i++) {
        Error e = {0};
        const Phase *maker = maker_of(l, k, input[i].path);
        bool judge = !strncmp(input[i].name, "rewards.", 8) || !strncmp(input[i].name, "eval_grader.", 12);
        if (judge && maker && phase_makes_model(maker)) continue; // plan_rewards tells the kinds of model
        if (maker ? of_a_kind(p, maker, &input[i], &e) : readable(l, k, &input[i], &e)) continue;
        if (!problems->n) *code = e.code;
        str_printf(problems, "%s%s: phase %s: %s: %s", problems->n ? "\n" : "", input[i].place, p->name, input[i].name,
                   e.text);
    }
}

// ---- memory ------------------------------------------------------------------------------------------------------------

// Puts in the place of models behind rewards that an earlier phase will make what they will be made of. False after filling
// *e: that phase makes a model of the other kind.
static bool plan_rewards(const Pipeline *l, int k, Rewards *rw, Error *e) {
    for (int i = 0; i <= rw->n; i++) {
        Reward *r = i < rw->n ? &rw->reward[i] : &rw->grader;
        const char *dir = r->info ? reward_model_dir(r) : "";
        const Phase *maker = *dir ? maker_of(l, k, dir) : NULL;
        if (!maker) continue;
        bool scores = maker->command == PHASE_REWARD_MODEL;
        if (scores != (r->info->by_model == MODEL_SCORES))
            return error_set(e, EXIT_CONFIG, "%s: reward %s asks a model that %s, and phase %s makes one that %s",
                             phase_place(&l->phases.phase[k], i < rw->n ? "rewards" : "eval_grader"), r->name,
                             scores ? "writes" : "scores texts", maker->name, scores ? "scores texts" : "writes");
        if (!access(dir, R_OK)) continue; // it is finished
        reward_set_text(r, "model", model_of(l, (int)(maker - l->phases.phase)));
        rw->unmade = true;
    }
    return true;
}

// Puts in the place of an adapter that an earlier phase will make one as large: a new one, or that which is there and goes
// on. False after filling *e: it will be of a model of the other kind.
static bool plan_adapter(const Pipeline *l, int k, Config *c, Error *e) {
    const Phase *p = &l->phases.phase[k], *maker = maker_of(l, k, c->adapter);
    if (maker && (maker->command == PHASE_REWARD_MODEL) != (p->command == PHASE_REWARD_MODEL))
        return error_set(
            e, EXIT_CONFIG, "%s: phase %s makes an adapter of a model that %s, and phase %s runs one that %s",
            phase_place(p, "adapter"), maker->name, p->command == PHASE_REWARD_MODEL ? "writes" : "scores texts",
            p->name, p->command == PHASE_REWARD_MODEL ? "scores texts" : "writes");
    while (maker && *maker->cfg.adapter && access(maker->cfg.adapter, R_OK))
        maker = maker_of(l, (int)(maker - l->phases.phase), maker->cfg.adapter);
    c->adapter = maker ? maker->cfg.adapter : "";
    if (maker) c->lora_r = maker->cfg.lora_r, c->lora_target = maker->cfg.lora_target;
    return true;
}

// Finds the bytes that phase k needs, and whether they are there. False after filling *e.
static bool plan_phase(const Pipeline *l, int k, size_t *need, Error *e) {
    const Phase *p = &l->phases.phase[k];
    Config c = p->cfg; // a view
    c.model = (char *)(uintptr_t)model_of(l, k);
    if (*c.adapter && access(c.adapter, R_OK) && !plan_adapter(l, k, &c, e)) return false;
    Rewards rw = {0};
    Engine en = {0};
    RunShape shape;
    MemoryLimit have;
    const int64_t many = INT64_C(1) << 20; // of whatever number of questions
    if (phase_scores(p) && !(p->command == PHASE_TRAIN ? rewards_select_training : rewards_select)(&c, &rw, e))
        return false;
    if (!plan_rewards(l, k, &rw, e)) return false;
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

// ---- all of it ---------------------------------------------------------------------------------------------------------

void pipeline_check_files(const Pipeline *l, Error *e) {
    Str problems = {0};
    ExitCode code;
    for (int k = 0; k < l->phases.n; k++)
        if (l->phases.phase[k].place) check_inputs(l, k, &problems, &code); // it could be read
    size_t used = strlen(e->text);
    if (problems.n) snprintf(e->text + used, sizeof e->text - used, "\n%s", problems.s);
    str_free(&problems);
}

bool pipeline_check(const Pipeline *l, Error *e) {
    Str problems = {0}, table = {0};
    ExitCode code = EXIT_OK;
    for (int k = 0; k < l->phases.n; k++) {
        const Phase *p = &l->phases.phase[k];
        size_t before = problems.n, need = 0;
        Error found = {0};
        check_inputs(l, k, &problems, &code);
        if (problems.n > before) continue; // what is not there has no memory
        if (!plan_phase(l, k, &need, &found)) {
            if (!problems.n) code = found.code;
            str_printf(&problems, "%s%s:%d: phase %s: %s", problems.n ? "\n" : "", l->path, p->line, p->name,
                       found.text);
        } else
            str_printf(&table, "  %d/%d %-20s %-12s %s  %.2f GiB\n", k + 1, l->phases.n, p->name,
                       phase_command_name[p->command], p->cfg.model, (double)need / (1 << 30));
    }
    if (problems.n) error_set(e, code, "%s", problems.s);
    else fputs(table.s, stdout), fflush(stdout);
    bool ok = !problems.n;
    str_free(&problems), str_free(&table);
    return ok;
}
