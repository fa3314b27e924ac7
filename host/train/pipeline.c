// The command `run`: the phases of a file one after the other, each a process of its own that runs its command.
//
// output_dir/NAME.yaml is the configuration a phase runs with; output_dir/pipeline.json says of each finished phase what it
// made from what, with checksums. Killed anywhere, the same command finds the finished phases in it, and the one that was
// running goes on as its command does.
#include "train_commands.h"
#include "checkpoint.h"
#include "clock.h"
#include "dataset.h"
#include "device.h"
#include "engine.h"
#include "file.h"
#include "fingerprint.h"
#include "json.h"
#include "nearest.h"
#include "outdir.h"
#include "phases.h"
#include "reward_set.h"
#include "signals.h"
#include "whole.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    const char *path; // of the file
    char **overrides; // without from= and only=
    int n_overrides;
    const char *from, *only; // NULL: not given
    Phases phases;
    json_t *made; // phase name -> {command, made, checksum, from: {option: {path, checksum}}}
} Pipeline;

// ---- what phases make ---------------------------------------------------------------------------------------------------

static const char *made_by(const Pipeline *l, const char *name) {
    return json_string_value(json_object_get(json_object_get(l->made, name), "made"));
}

static char *product(void *arg, const Phases *ps, int k, const char *which) {
    const Phase *p = &ps->phase[k];
    const char *made = made_by(arg, p->name);
    bool by_default = !*which;
    switch (p->command) {
    case PHASE_SFT:
    case PHASE_TRAIN:
    case PHASE_REWARD_MODEL:
        if (!by_default && strcmp(which, "checkpoint")) return NULL;
        return made ? xstrdup(made) : xasprintf("%s/%s/step_N", ps->output_dir, p->name);
    case PHASE_SELECT:
        if (!by_default && strcmp(which, "kept") && strcmp(which, "samples")) return NULL;
        return xasprintf("%s/%s/%s.jsonl", ps->output_dir, p->name, by_default ? "kept" : which);
    default: return by_default || !strcmp(which, "result") ? xasprintf("%s/%s.json", ps->output_dir, p->name) : NULL;
    }
}

// Whether a phase makes checkpoints.
static bool makes_model(const Phase *p) {
    return p->command == PHASE_SFT || p->command == PHASE_TRAIN || p->command == PHASE_REWARD_MODEL;
}
// Whether a phase scores completions.
static bool scores(const Phase *p) {
    return p->command == PHASE_TRAIN || p->command == PHASE_SELECT || p->command == PHASE_EVAL;
}

// Finds what a phase that has ended left; NULL after filling *e.
static char *find_product(Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    if (!makes_model(p)) return product(l, &l->phases, k, "");
    int64_t step;
    e->code = EXIT_OK;
    char *path = checkpoint_find(p->cfg.output_dir, &step, e);
    if (!path && e->code == EXIT_OK)
        error_set(e, EXIT_INPUT, "phase %s left no checkpoint in %s", p->name, p->cfg.output_dir);
    return path;
}

// The files and directories that a phase reads, by their options.
static const struct {
    const char *option;
    size_t at;
    bool directory;
} inputs[] = {
#define INPUT(name, directory)                                                                                         \
    { #name, offsetof(Config, name), directory }
    INPUT(model, true),      INPUT(adapter, true),        INPUT(tokenizer, true),
    INPUT(eval_file, false), INPUT(few_shot_file, false), INPUT(system_prompt_file, false),
#undef INPUT
};
#define INPUTS (sizeof inputs / sizeof *inputs)
typedef struct {
    // The option's; of several training files "train_file[2]", of a reward "rewards.NAME" and "rewards.NAME.template".
    char name[80];
    const char *path, *place;
    bool directory;
} Input;
#define MAX_INPUTS (INPUTS + MAX_FILES + 2 * (MAX_REWARDS + 1))

// Lists the inputs of a phase that are set; their number. rw: room for the rewards whose models are among them.
static int inputs_of(const Phase *p, Rewards *rw, Input *all) {
    int n = 0;
    *rw = (Rewards){0};
    if (scores(p)) (p->command == PHASE_TRAIN ? rewards_select_training : rewards_select)(&p->cfg, rw, NULL);
    for (int k = 0; k <= rw->n; k++) {
        const Reward *r = k < rw->n ? &rw->reward[k] : &rw->grader;
        const char *option = k < rw->n ? "rewards" : "eval_grader";
        if (!r->info) continue;
        const char *dir = reward_model_dir(r), *template = reward_template_file(r);
        if (*dir) {
            all[n] = (Input){.path = dir, .place = phase_place(p, option), .directory = true};
            snprintf(all[n++].name, sizeof all->name, "%s.%s", option, r->name);
        }
        if (*template) {
            all[n] = (Input){.path = template, .place = phase_place(p, option)};
            snprintf(all[n++].name, sizeof all->name, "%s.%s.template", option, r->name);
        }
    }
    const FileList *files = &p->cfg.train_file;
    for (size_t i = 0; i < INPUTS; i++) {
        const char *path = *(char *const *)((const char *)&p->cfg + inputs[i].at);
        if (!*path) continue;
        all[n] = (Input){.path = path, .place = phase_place(p, inputs[i].option), .directory = inputs[i].directory};
        snprintf(all[n++].name, sizeof all->name, "%s", inputs[i].option);
    }
    for (int f = 0; f < files->n; f++) {
        all[n] = (Input){.path = files->item[f].path, .place = files->item[f].place};
        if (files->n == 1) snprintf(all[n++].name, sizeof all->name, "train_file");
        else snprintf(all[n++].name, sizeof all->name, "train_file[%d]", f + 1);
    }
    return n;
}

static json_t *with_checksum(const char *path, Error *e) {
    uint32_t crc = 0;
    if (!fingerprint(&crc, path, e)) return NULL;
    char text[16];
    snprintf(text, sizeof text, "%08x", crc);
    json_t *j = json_object();
    json_object_set_new_nocheck(j, "path", json_string_nocheck(path));
    json_object_set_new(j, "checksum", json_string(text));
    return j;
}

// Says what a phase would be made from now, with checksums. NULL after filling *e.
static json_t *made_from(const Phase *p, Error *e) {
    json_t *all = json_object();
    Input input[MAX_INPUTS];
    Rewards rw;
    int n = inputs_of(p, &rw, input);
    for (int i = 0; i < n; i++) {
        json_t *one = with_checksum(input[i].path, e);
        if (!one) {
            json_decref(all);
            error_prefix(e, "%s", input[i].name);
            return NULL;
        }
        json_object_set_new(all, input[i].name, one);
    }
    return all;
}

// ---- pipeline.json and NAME.yaml -----------------------------------------------------------------------------------------------

static char *in_output(const Pipeline *l, const char *fmt, const char *name) {
    char *file = xasprintf(fmt, name), *path = xasprintf("%s/%s", l->phases.output_dir, file);
    free(file);
    return path;
}

static bool made_write(const Pipeline *l, Error *e) {
    char *path = in_output(l, "%s", "pipeline.json"), *text = json_dumps(l->made, JSON_INDENT(1)),
         *line = xasprintf("%s\n", text);
    bool ok = whole_write(path, line, strlen(line), true, e);
    free(path), free(text), free(line);
    return ok;
}

static bool made_read(Pipeline *l, Error *e) {
    char *path = in_output(l, "%s", "pipeline.json");
    bool absent = access(path, F_OK) != 0;
    l->made = absent ? json_object() : json_read(path, e);
    bool ok = json_is_object(l->made);
    if (!ok) {
        if (l->made) error_set(e, EXIT_INPUT, "%s: is no list of finished phases", path);
        error_prefix(e, "remove it to run all phases anew, or choose another output_dir");
    }
    free(path);
    return ok;
}

// The names of the options in which two configurations differ, leaving out those that change no number.
static void differences(const char *then, const char *now, Str *out) {
    for (const char *line = now; *line;) {
        size_t n = strcspn(line, "\n"), name = strcspn(line, ":");
        char *whole = xasprintf("\n%.*s\n", (int)n, line), *old = xasprintf("\n%s", then);
        if (name < n && *line != ' ' && *line != '#' && !strstr(old, whole) && !config_may_change(line, name))
            str_printf(out, "%s%.*s", out->n ? ", " : "", (int)name, line);
        free(whole), free(old);
        line += n + (line[n] == '\n');
    }
}

// Whether phase k is finished, and still is what it was: its options, what it was made from, what it made. *done is false
// where it has to run. False after filling *e.
static bool phase_done(Pipeline *l, int k, bool *done, Error *e) {
    const Phase *p = &l->phases.phase[k];
    const json_t *record = json_object_get(l->made, p->name), *from = json_object_get(record, "from"), *then;
    *done = record != NULL;
    if (!record) return true;
    char *path = in_output(l, "%s.yaml", p->name), *now = config_yaml(&p->cfg);
    size_t n;
    char *old = file_read(path, (size_t)1 << 20, &n, NULL);
    Str changed = {0};
    if (old) differences(old, now, &changed);
    else str_puts(&changed, "its configuration is gone");
    const char *key;
    json_t *inputs_now = made_from(p, e), *made_now = NULL;
    bool ok = inputs_now != NULL;
    if (ok && changed.n)
        ok = error_set(
            e, EXIT_CONFIG,
            "phase %s is finished, with other options (%s; see %s): set them back, or run it and what follows "
            "again by from=%s",
            p->name, changed.s, path, p->name);
    json_object_foreach(inputs_now, key, then) {
        const char *before = json_string_value(json_object_get(json_object_get(from, key), "checksum"));
        if (ok && (!before || strcmp(before, json_string_value(json_object_get(then, "checksum")))))
            ok = error_set(e, EXIT_CONFIG,
                           "phase %s was made from another %s than %s is now; run it and what follows again by from=%s",
                           p->name, key, json_string_value(json_object_get(then, "path")), p->name);
    }
    const char *made = made_by(l, p->name), *checksum = json_string_value(json_object_get(record, "checksum"));
    if (ok) made_now = made ? with_checksum(made, e) : NULL;
    if (ok && (!made_now || !checksum || strcmp(checksum, json_string_value(json_object_get(made_now, "checksum")))))
        ok = error_set(e, EXIT_INPUT, "%s, which phase %s made, is not as it left it; make it again by from=%s",
                       made ? made : path, p->name, p->name);
    json_decref(inputs_now), json_decref(made_now);
    str_free(&changed);
    free(path), free(now), free(old);
    return ok;
}

static bool phase_record(Pipeline *l, int k, double seconds, Error *e) {
    const Phase *p = &l->phases.phase[k];
    char *path = find_product(l, k, e);
    if (!path) return false;
    json_t *record = with_checksum(path, e), *from = record ? made_from(p, e) : NULL;
    free(path);
    if (!from) return json_decref(record), false;
    json_object_set(record, "made", json_object_get(record, "path"));
    json_object_del(record, "path");
    json_object_set_new(record, "command", json_string(phase_command_name[p->command]));
    json_object_set_new(record, "seconds", json_integer((json_int_t)seconds));
    json_object_set_new(record, "from", from);
    json_object_set_new(l->made, p->name, record);
    return made_write(l, e);
}

// Forgets a phase: removes what it made, and its entry in pipeline.json.
static bool phase_forget(Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    json_object_del(l->made, p->name);
    if (!made_write(l, e) || !disk_remove(p->cfg.output_dir, e)) return false;
    char *yaml = in_output(l, "%s.yaml", p->name), *json = in_output(l, "%s.json", p->name);
    unlink(yaml), unlink(json);
    free(yaml), free(json);
    return true;
}

// ---- before the first phase -------------------------------------------------------------------------------------------------

// Whether an earlier phase of those that k uses makes this.
static bool is_made(const Pipeline *l, int k, const char *path) {
    const char *out = l->phases.output_dir;
    for (int j = 0; j < k; j++)
        if (l->phases.phase[k].uses[j] && !strncmp(path, out, strlen(out))) return true;
    return false;
}

// Whether an input can be read: a directory is there, a file of rows has such rows. False after filling *e.
static bool readable(const Phase *p, const Input *in, Error *e) {
    if (in->directory)
        return !access(in->path, R_OK) || error_set(e, EXIT_INPUT, "%s: there is no such directory", in->path);
    if (strncmp(in->name, "train_file", 10) && strcmp(in->name, "eval_file")) return file_regular(in->path, e);
    note_quiet(true); // the phase says itself which lines it leaves out
    Dataset *d = p->command == PHASE_SFT            ? dataset_open_sft(in->path, &p->cfg, NULL, e)
                 : p->command == PHASE_REWARD_MODEL ? dataset_open_pairs(in->path, &p->cfg, NULL, e)
                                                    : dataset_open(in->path, &p->cfg, NULL, e);
    note_quiet(false);
    dataset_free(d);
    return d || e->code == EXIT_STOPPED; // what a signal asks for is done before the first phase
}

// Checks that what phase k reads is there, and is what it reads, unless an earlier phase makes it.
static void check_inputs(const Pipeline *l, int k, Str *problems) {
    const Phase *p = &l->phases.phase[k];
    Input input[MAX_INPUTS];
    Rewards rw;
    int n = made_by(l, p->name) ? 0 : inputs_of(p, &rw, input); // of a finished phase the checksums tell
    for (int i = 0; i < n; i++) {
        Error e = {0};
        if (is_made(l, k, input[i].path) || readable(p, &input[i], &e)) continue;
        str_printf(problems, "%s%s: phase %s: %s: %s", problems->n ? "\n" : "", input[i].place, p->name, input[i].name,
                   e.text);
    }
}

// The model directory that phase k's model has the shape of: its own, or that of the phases it comes from.
static const char *model_of(const Pipeline *l, int k) {
    const Phase *p = &l->phases.phase[k];
    if (!access(p->cfg.model, R_OK)) return p->cfg.model;
    for (int j = k - 1; j >= 0; j--)
        if (p->uses[j] && makes_model(&l->phases.phase[j]) && l->phases.phase[j].command != PHASE_REWARD_MODEL)
            return model_of(l, j);
    return p->cfg.model;
}

// Whether a path is of what phase p makes, where that is checkpoints.
static bool is_of(const Phase *p, const char *path) {
    size_t n = strlen(p->cfg.output_dir);
    return makes_model(p) && !strncmp(path, p->cfg.output_dir, n) && path[n] == '/';
}

// Puts in the place of models behind rewards that an earlier phase will make what they will be made of. False after filling
// *e: that phase makes a model of the other kind.
static bool plan_rewards(const Pipeline *l, int k, Rewards *rw, Error *e) {
    for (int i = 0; i <= rw->n; i++) {
        Reward *r = i < rw->n ? &rw->reward[i] : &rw->grader;
        const char *dir = r->info ? reward_model_dir(r) : "";
        if (!*dir || !access(dir, R_OK) || !is_made(l, k, dir)) continue;
        for (int j = 0; j < k; j++) {
            const Phase *p = &l->phases.phase[j];
            if (!is_of(p, dir)) continue;
            bool scores = p->command == PHASE_REWARD_MODEL;
            if (scores != (r->info->by_model == MODEL_SCORES))
                return error_set(e, EXIT_CONFIG, "%s: reward %s asks a model that %s, and phase %s makes one that %s",
                                 phase_place(&l->phases.phase[k], i < rw->n ? "rewards" : "eval_grader"), r->name,
                                 scores ? "writes" : "scores texts", p->name, scores ? "scores texts" : "writes");
            reward_set_text(r, "model", model_of(l, j));
            rw->unmade = true;
        }
    }
    return true;
}

// The phase before k that makes a checkpoint's path; NULL: none.
static const Phase *maker_of(const Pipeline *l, int k, const char *path) {
    const Phase *maker = NULL;
    for (int j = 0; j < k; j++)
        if (is_of(&l->phases.phase[j], path)) maker = &l->phases.phase[j];
    return maker;
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
    while (maker && *maker->cfg.adapter && access(maker->cfg.adapter, R_OK)) maker = maker_of(l, k, maker->cfg.adapter);
    c->adapter = maker ? maker->cfg.adapter : "";
    if (maker) c->lora_r = maker->cfg.lora_r, c->lora_target = maker->cfg.lora_target;
    return true;
}

static bool plan_phase(const Pipeline *l, int k, size_t *need, MemoryLimit *have, Error *e) {
    Config c = l->phases.phase[k].cfg; // a view
    c.model = (char *)(uintptr_t)model_of(l, k);
    if (*c.adapter && access(c.adapter, R_OK) && !plan_adapter(l, k, &c, e)) return false;
    Rewards rw = {0};
    Engine en = {0};
    RunShape shape;
    PhaseCommand command = l->phases.phase[k].command;
    const int64_t many = INT64_C(1) << 20; // of whatever number of questions
    const Phase *p = &l->phases.phase[k];
    if (scores(p) && !(command == PHASE_TRAIN ? rewards_select_training : rewards_select)(&c, &rw, e))
        return error_prefix(e, "phase %s", p->name);
    if (!plan_rewards(l, k, &rw, e)) return error_prefix(e, "phase %s", p->name);
    if (command == PHASE_TRAIN) shape = shape_for_train(&c, &rw);
    else if (command == PHASE_SFT) shape = shape_for_sft(&c);
    else if (command == PHASE_REWARD_MODEL) shape = shape_for_pairs(&c);
    else shape = shape_for_rollout(&c, many, many), shape.rewards = &rw;
    Device *d = device_open(c.device, 0, (int)c.threads, c.cpu_isa, e);
    bool ok = d && engine_describe(&en, d, &c, shape, e);
    if (ok && !plan_fits(&en, need, have))
        ok = error_set(e, EXIT_MEMORY, "it would take %.2f GiB, and %s has %.2f", (double)*need / (1 << 30),
                       have->whose, (double)have->bytes / (1 << 30));
    device_close(d);
    en.device = NULL;
    engine_close(&en);
    return ok || error_prefix(e, "phase %s", p->name);
}

// Checks everything that can be known before the first phase starts.
static bool check_all(Pipeline *l, Error *e) {
    Str problems = {0};
    for (int k = 0; k < l->phases.n; k++) check_inputs(l, k, &problems);
    bool ok = !problems.n || error_set(e, EXIT_INPUT, "%s", problems.s);
    str_free(&problems);
    for (int k = 0; k < l->phases.n && ok; k++) {
        size_t need = 0;
        MemoryLimit have;
        const Phase *p = &l->phases.phase[k];
        ok = plan_phase(l, k, &need, &have, e);
        if (ok)
            printf("  %d/%d %-20s %-12s %s  %.2f GiB\n", k + 1, l->phases.n, p->name, phase_command_name[p->command],
                   p->cfg.model, (double)need / (1 << 30));
    }
    fflush(stdout);
    return ok;
}

// ---- running -------------------------------------------------------------------------------------------------------------------

// Runs one command as a process, in a group of its own: a key that stops the pipeline reaches it once, through here. It
// does not outlive this process. Its exit code, or 128 + the signal that ended it; below 0 after filling *e.
static int run_command(const char *command, const char *yaml, Error *e) {
    fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) return error_set(e, EXIT_MEMORY, "a phase cannot be started: %s", strerror(errno)), -1;
    if (!pid) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(EXIT_STOPPED);
        execl("/proc/self/exe", "grpo", command, yaml, (char *)NULL);
        _exit(127);
    }
    int status, told = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (stop_requested() && !told) kill(pid, SIGTERM), told = 1;
        struct timespec nap = {0, 20000000};
        nanosleep(&nap, NULL);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static bool run_phase(Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    char *yaml = in_output(l, "%s.yaml", p->name), *text = config_yaml(&p->cfg);
    bool ok = whole_write(yaml, text, strlen(text), true, e);
    free(text);
    printf("== phase %d of %d: %s (%s)\n", k + 1, l->phases.n, p->name, phase_command_name[p->command]);
    double start = clock_seconds();
    int code = ok ? run_command(phase_command_name[p->command], yaml, e) : -1;
    if (code == EXIT_STOPPED || (code > 0 && stop_requested()))
        error_set(e, EXIT_STOPPED, "stopped in phase %s; the same command goes on from there", p->name);
    else if (code > 0)
        error_set(e, code > 128 ? EXIT_COMM : (ExitCode)code,
                  "phase %d of %d, %s, ended with %s %d (its own words are above; its configuration is %s); the same "
                  "command goes on from there",
                  k + 1, l->phases.n, p->name, code > 128 ? "signal" : "exit code", code > 128 ? code - 128 : code,
                  yaml);
    free(yaml);
    return code == 0 && phase_record(l, k, clock_seconds() - start, e);
}

static bool read_phases(Pipeline *l, Error *e) {
    phases_free(&l->phases);
    return phases_read(&l->phases, l->path, l->overrides, l->n_overrides, product, l, e);
}

// The place of the phase that from= or only= names; -1 after filling *e.
static int named_phase(const Pipeline *l, const char *option, const char *name, Error *e) {
    int k = phase_index(&l->phases, name);
    if (k >= 0) return k;
    const char *names[64];
    int n = 0;
    for (; n < l->phases.n && n < 64; n++) names[n] = l->phases.phase[n].name;
    const char *near = nearest_name(name, names, n);
    error_set(e, EXIT_CONFIG, "%s=%.60s: there is no such phase in %s%s%s%s", option, name, l->path,
              near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "");
    return -1;
}

// Decides which phases are to be there in the end, [0, *end), and forgets those that from= and only= name.
static bool choose(Pipeline *l, int *end, Error *e) {
    *end = l->phases.n;
    if (l->from && l->only) return error_set(e, EXIT_CONFIG, "from= and only= exclude each other; give one of them");
    if (!l->from && !l->only) return true;
    int k = named_phase(l, l->from ? "from" : "only", l->from ? l->from : l->only, e);
    if (k < 0) return false;
    for (int j = 0; j < k; j++)
        if (!made_by(l, l->phases.phase[j].name))
            return error_set(e, EXIT_CONFIG, "phase %s is not finished; %s=%s needs those before it",
                             l->phases.phase[j].name, l->from ? "from" : "only", l->phases.phase[k].name);
    if (l->only) *end = k + 1;
    for (int j = k; j < *end; j++)
        if (!phase_forget(l, j, e)) return false;
    return true;
}

static bool run_all(Pipeline *l, Error *e) {
    int end;
    if (!read_phases(l, e) || !disk_mkdir(l->phases.output_dir, e) || !made_read(l, e) || !choose(l, &end, e) ||
        !read_phases(l, e)) // now with what finished phases made
        return false;
    printf("%s: %d phases into %s; memory of each:\n", l->path, l->phases.n, l->phases.output_dir);
    if (!check_all(l, e)) return false;
    for (int k = 0; k < end; k++) {
        bool done;
        if (stop_requested()) return error_set(e, EXIT_STOPPED, "stopped before phase %s", l->phases.phase[k].name);
        if (!read_phases(l, e) || !phase_done(l, k, &done, e)) return false;
        if (done)
            printf("== phase %d of %d: %s is finished: %s\n", k + 1, l->phases.n, l->phases.phase[k].name,
                   made_by(l, l->phases.phase[k].name));
        else if (!run_phase(l, k, e)) return false;
    }
    printf("== %s: all that was asked for is in %s; pipeline.json there says what was made from what\n", l->path,
           l->phases.output_dir);
    return true;
}

ExitCode command_run(int argc, char **argv, Error *e) {
    if (argc < 1 || strchr(argv[0], '=') || argv[0][0] == '-') {
        error_set(e, EXIT_CONFIG,
                  "run wants a file of phases: grpo run FILE.yaml [from=NAME | only=NAME] [key=value ...] "
                  "[NAME.key=value ...]");
        return EXIT_CONFIG;
    }
    signals_install(true);
    Pipeline l = {.path = argv[0], .overrides = xcalloc((size_t)argc, sizeof *l.overrides)};
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], "from=", 5)) l.from = argv[i] + 5;
        else if (!strncmp(argv[i], "only=", 5)) l.only = argv[i] + 5;
        else l.overrides[l.n_overrides++] = argv[i];
    bool ok = run_all(&l, e);
    json_decref(l.made);
    phases_free(&l.phases);
    free(l.overrides);
    return ok ? EXIT_OK : e->code;
}
