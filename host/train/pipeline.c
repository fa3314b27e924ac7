// The command `run`: the phases of a file one after the other, each a process of its own that runs its command.
//
// output_dir/NAME.yaml is the configuration a phase runs with; output_dir/pipeline.json says of each finished phase
// what it made from what, with checksums, and of the one that runs what it is made from. Killed anywhere, the same
// command finds the finished phases in it, and the one that was running goes on as its command does.
#include "train_commands.h"
#include "checkpoint.h"
#include "clock.h"
#include "eval.h"
#include "file.h"
#include "fingerprint.h"
#include "json.h"
#include "nearest.h"
#include "outdir.h"
#include "pipeline.h"
#include "run_state.h"
#include "select.h"
#include "signals.h"
#include "whole.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// ---- what phases make -----------------------------------------------------------------------------------------------

const char *phase_made(const Pipeline *l, const char *name) {
    return json_string_value(json_object_get(json_object_get(l->made, name), "made"));
}

// The products of a command, the first of which ${NAME} alone means.
static const char *const products[PHASE_COMMANDS][2] = {[PHASE_SFT] = {"checkpoint"},
                                                        [PHASE_TRAIN] = {"checkpoint"},
                                                        [PHASE_REWARD_MODEL] = {"checkpoint"},
                                                        [PHASE_SELECT] = {"kept", "samples"},
                                                        [PHASE_EVAL] = {"result"}};

const char *phase_product_name(const Phase *p, int i) { return i < 2 ? products[p->command][i] : NULL; }

char *phase_product(void *pipeline, const Phases *ps, int k, const char *product) {
    const Phase *p = &ps->phase[k];
    const char *made = phase_made(pipeline, p->name), *found = *product ? NULL : products[p->command][0];
    for (int i = 0; phase_product_name(p, i); i++)
        if (!strcmp(product, phase_product_name(p, i))) found = product;
    if (!found) return NULL;
    if (p->command == PHASE_EVAL) return xasprintf("%s/%s.json", ps->output_dir, p->name);
    if (p->command == PHASE_SELECT) return xasprintf("%s/%s/%s.jsonl", ps->output_dir, p->name, found);
    return made ? xstrdup(made) : xasprintf("%s/%s/step_N", ps->output_dir, p->name);
}

bool phase_makes_model(const Phase *p) {
    return p->command == PHASE_SFT || p->command == PHASE_TRAIN || p->command == PHASE_REWARD_MODEL;
}
bool phase_scores(const Phase *p) {
    return p->command == PHASE_TRAIN || p->command == PHASE_SELECT || p->command == PHASE_EVAL;
}

// Finds what a phase that has ended left; NULL after filling *e.
static char *find_product(Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    if (!phase_makes_model(p)) return phase_product(l, &l->phases, k, "");
    int64_t step;
    e->code = EXIT_OK;
    char *path = checkpoint_find(p->cfg.output_dir, &step, e);
    if (!path && e->code == EXIT_OK)
        error_set(e, EXIT_INPUT, "phase %s left no checkpoint in %s", p->name, p->cfg.output_dir);
    return path;
}

// Whether a phase reads an option of n letters. Of the options on files, which several commands have in common, some
// commands need one alone.
static bool phase_reads(const Phase *p, const char *option, size_t n) {
    if (n == strlen("train_file") && !memcmp(option, "train_file", n)) return p->command != PHASE_EVAL;
    if (n == strlen("eval_file") && !memcmp(option, "eval_file", n))
        return p->command == PHASE_EVAL || p->command == PHASE_REWARD_MODEL ||
               (p->command == PHASE_TRAIN && p->cfg.eval_steps > 0);
    return config_reads(phase_command_name[p->command], option, n);
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
_Static_assert(INPUTS + MAX_FILES + 2 * (MAX_REWARDS + 1) == MAX_INPUTS, "room for every input");
int phase_inputs(const Phase *p, Rewards *rw, Input all[MAX_INPUTS]) {
    int n = 0;
    *rw = (Rewards){0};
    if (phase_scores(p)) (p->command == PHASE_TRAIN ? rewards_select_training : rewards_select)(&p->cfg, rw, NULL);
    for (int k = 0; k <= rw->n; k++) {
        const Reward *r = k < rw->n ? &rw->reward[k] : &rw->grader;
        const char *option = k < rw->n ? "rewards" : "eval_grader";
        if (!r->info) continue;
        const char *dir = reward_model_dir(r), *template = reward_template_file(r);
        if (*dir) {
            all[n] = (Input){.path = dir, .place = phase_place(p, option), .directory = true, .reward = r};
            snprintf(all[n++].name, sizeof all->name, "%s.%s", option, r->name);
        }
        if (*template) {
            all[n] = (Input){.path = template, .place = phase_place(p, option), .reward = r};
            snprintf(all[n++].name, sizeof all->name, "%s.%s.template", option, r->name);
        }
    }
    const FileList *files = &p->cfg.train_file;
    for (size_t i = 0; i < INPUTS; i++) {
        const char *path = *(char *const *)((const char *)&p->cfg + inputs[i].at), *name = inputs[i].option;
        if (!*path || !phase_reads(p, name, strlen(name))) continue;
        all[n] = (Input){.path = path, .place = phase_place(p, name), .directory = inputs[i].directory};
        snprintf(all[n++].name, sizeof all->name, "%s", name);
    }
    for (int f = 0; f < files->n && phase_reads(p, "train_file", strlen("train_file")); f++) {
        all[n] = (Input){.path = files->item[f].path, .place = files->item[f].place};
        if (files->n == 1) snprintf(all[n++].name, sizeof all->name, "train_file");
        else snprintf(all[n++].name, sizeof all->name, "train_file[%d]", f + 1);
    }
    return n;
}

static json_t *entry_of(const char *path, uint32_t crc) {
    char text[16];
    snprintf(text, sizeof text, "%08x", crc);
    json_t *j = json_object();
    json_object_set_new_nocheck(j, "path", json_string_nocheck(path));
    json_object_set_new(j, "checksum", json_string(text));
    return j;
}

static json_t *with_checksum(const char *path, Error *e) {
    uint32_t crc = 0;
    return fingerprint(&crc, path, e) ? entry_of(path, crc) : NULL;
}

// Adds the programs and libraries that rewards ask.
static bool programs_from(const Rewards *rw, json_t *all, Error *e) {
    for (int k = 0; k <= rw->n; k++) {
        const Reward *r = k < rw->n ? &rw->reward[k] : &rw->grader;
        uint32_t crc = 0;
        if (!r->info || !*reward_program(r)) continue;
        if (!reward_program_sum(r, &crc, e)) return false;
        char *name = xasprintf("%s.%s.program", k < rw->n ? "rewards" : "eval_grader", r->name);
        json_object_set_new(all, name, entry_of(reward_program(r), crc));
        free(name);
    }
    return true;
}

// Says what phase k would be made from now, with checksums, but for what an unfinished phase will make. NULL after
// filling *e.
static json_t *made_from(const Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    json_t *all = json_object();
    Input input[MAX_INPUTS];
    Rewards rw;
    int n = phase_inputs(p, &rw, input);
    for (int i = 0; i < n; i++) {
        const Phase *maker = phase_maker(l, k, input[i].path);
        if (maker && !phase_made(l, maker->name)) continue;
        json_t *one = with_checksum(input[i].path, e);
        if (!one) {
            json_decref(all);
            error_prefix(e, "%s", input[i].name);
            return NULL;
        }
        json_object_set_new(all, input[i].name, one);
    }
    if (!programs_from(&rw, all, e)) {
        json_decref(all);
        return NULL;
    }
    return all;
}

// ---- pipeline.json and NAME.yaml ------------------------------------------------------------------------------------

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
        error_prefix(e, "remove it and what is beside it to run all phases anew, or choose another output_dir");
    }
    free(path);
    return ok;
}

// The names of the options in which two configurations of a phase differ, leaving out those that change no number.
static void differences(const Phase *p, const char *then, const char *now, Str *out) {
    for (const char *line = now; *line;) {
        size_t n = strcspn(line, "\n"), name = strcspn(line, ":");
        char *whole = xasprintf("\n%.*s\n", (int)n, line), *old = xasprintf("\n%s", then);
        if (name < n && *line != ' ' && *line != '#' && !strstr(old, whole) && !config_may_change(line, name) &&
            phase_reads(p, line, name) && !phase_writes(line, name)) // where it writes changes nothing
            str_printf(out, "%s%.*s", out->n ? ", " : "", (int)name, line);
        free(whole), free(old);
        line += n + (line[n] == '\n');
    }
}

// A configuration in which what unfinished phases make stands as before it is made, whatever their last step was: they
// may end there again. Heap memory.
static char *unmade(const Pipeline *l, char *yaml) {
    for (int k = 0; k < l->phases.n; k++) {
        const Phase *p = &l->phases.phase[k];
        if (!phase_makes_model(p) || phase_made(l, p->name)) continue;
        char *stem = xasprintf("%s/step_", p->cfg.output_dir);
        Str s = {0};
        const char *from = yaml, *found;
        for (; (found = strstr(from, stem)); from = found + strspn(found, "0123456789")) {
            found += strlen(stem);
            str_add(&s, from, (size_t)(found - from));
            if (*found >= '0' && *found <= '9') str_puts(&s, "N");
        }
        str_puts(&s, from);
        free(stem), free(yaml);
        yaml = s.s;
    }
    return yaml;
}

// The phase from which on all is to be made again where phase k is: those before it have to be finished.
static const char *first_again(const Pipeline *l, int k) {
    int first = 0;
    while (first < k && phase_made(l, l->phases.phase[first].name)) first++;
    return l->phases.phase[first].name;
}

// Whether phase k has the options that it is recorded with. False after filling *e.
static bool same_options(const Pipeline *l, int k, const char *state, Error *e) {
    const Phase *p = &l->phases.phase[k];
    char *path = in_output(l, "%s.yaml", p->name), *now = unmade(l, config_yaml(&p->cfg));
    size_t n;
    char *old = file_read(path, (size_t)1 << 20, &n, NULL);
    Str changed = {0};
    if (old) old = unmade(l, old);
    if (old) differences(p, old, now, &changed);
    else str_puts(&changed, "its configuration is gone");
    if (changed.n)
        error_set(e, EXIT_CONFIG,
                  "phase %s %s, with other options (%s; see %s): set them back, or run it and what follows "
                  "again by from=%s",
                  p->name, state, changed.s, path, first_again(l, k));
    bool same = !changed.n;
    str_free(&changed);
    free(path), free(now), free(old);
    return same;
}

// Whether phase k, finished or begun, has the command and the options that its record says. False after filling *e.
static bool same_work(const Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    const json_t *record = json_object_get(l->made, p->name);
    const char *command = json_string_value(json_object_get(record, "command"));
    const char *state = phase_made(l, p->name) ? "is finished" : "has begun";
    if (command && strcmp(command, phase_command_name[p->command]))
        return error_set(e, EXIT_CONFIG,
                         "phase %s %s, as `%s` and not as `%s`: set its command back, or run it and what follows again "
                         "by from=%s",
                         p->name, state, command, phase_command_name[p->command], first_again(l, k));
    return same_options(l, k, state, e);
}

// Whether it also is made from what its record says (`from`: now). False after filling *e.
static bool same_phase(const Pipeline *l, int k, json_t *from, Error *e) {
    const Phase *p = &l->phases.phase[k];
    const json_t *then = json_object_get(json_object_get(l->made, p->name), "from"), *one;
    const char *key;
    if (!same_work(l, k, e)) return false;
    json_object_foreach(from, key, one) {
        const char *before = json_string_value(json_object_get(json_object_get(then, key), "checksum"));
        if (before && !strcmp(before, json_string_value(json_object_get(one, "checksum")))) continue;
        return error_set(e, EXIT_CONFIG,
                         "phase %s %s another %s than %s is now; run it and what follows again by from=%s", p->name,
                         phase_made(l, p->name) ? "was made from" : "has begun with", key,
                         json_string_value(json_object_get(one, "path")), first_again(l, k));
    }
    return true;
}

// The i-th product of phase k, as its record has it; NULL: it has none.
static const json_t *recorded_product(const Pipeline *l, int k, int i) {
    const Phase *p = &l->phases.phase[k];
    const json_t *record = json_object_get(l->made, p->name);
    return i ? json_object_get(json_object_get(record, "beside"), phase_product_name(p, i)) : record;
}

// Whether what phase k made is as it left it. False after filling *e.
static bool same_products(const Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    for (int i = 0; phase_product_name(p, i); i++) {
        const json_t *then = recorded_product(l, k, i);
        if (!then) continue;
        const char *path = json_string_value(json_object_get(then, i ? "path" : "made")),
                   *sum = json_string_value(json_object_get(then, "checksum"));
        json_t *now = path ? with_checksum(path, e) : NULL;
        bool same = now && sum && !strcmp(sum, json_string_value(json_object_get(now, "checksum")));
        json_decref(now);
        if (!same)
            return error_set(e, EXIT_INPUT, "%s, which phase %s made, is not as it left it; make it again by from=%s",
                             path ? path : "a product", p->name, first_again(l, k));
    }
    return true;
}

// Whether phase k is finished, and still is what it was: its command and options, what it was made from, what it made.
// *done is false where it has to run. False after filling *e.
static bool phase_done(const Pipeline *l, int k, bool *done, Error *e) {
    const Phase *p = &l->phases.phase[k];
    *done = phase_made(l, p->name) != NULL;
    if (!*done) return true;
    json_t *from = made_from(l, k, e);
    bool ok = from && same_phase(l, k, from, e) && same_products(l, k, e);
    json_decref(from);
    return ok;
}

// Whether an unfinished phase would go on from a checkpoint.
static bool goes_on(const Phase *p) {
    int64_t step;
    Error none = {0};
    char *path = phase_makes_model(p) ? checkpoint_find(p->cfg.output_dir, &step, &none) : NULL;
    bool is = path != NULL;
    free(path);
    return is;
}

bool phase_as_recorded(const Pipeline *l, int k, bool files, Error *e) {
    const Phase *p = &l->phases.phase[k];
    bool done = phase_made(l, p->name) != NULL;
    if (done && files) return phase_done(l, k, &done, e);
    const json_t *record = json_object_get(l->made, p->name);
    bool begun = record && !json_object_get(record, "forgotten") && goes_on(p);
    return !(done || begun) || same_work(l, k, e);
}

// Records what phase k is made from, before it starts. One that goes on must be what it began as, or its end would be
// made of one thing and its record say another. False after filling *e.
static bool phase_begin(Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    Error changed = {0};
    json_t *from = made_from(l, k, e);
    if (!from) return false;
    if (json_object_get(l->made, p->name) && !same_phase(l, k, from, &changed) && goes_on(p)) {
        json_decref(from);
        return error_set(e, changed.code, "%s", changed.text);
    }
    json_t *record = json_object();
    json_object_set_new(record, "command", json_string(phase_command_name[p->command]));
    json_object_set_new(record, "from", from);
    json_object_set_new(l->made, p->name, record);
    return made_write(l, e);
}

// The products of a phase beside the first, with checksums. NULL after filling *e.
static json_t *other_parts(Pipeline *l, int k, Error *e) {
    json_t *all = json_object();
    for (int i = 1; all && phase_product_name(&l->phases.phase[k], i); i++) {
        const char *product = phase_product_name(&l->phases.phase[k], i);
        char *path = phase_product(l, &l->phases, k, product);
        json_t *one = with_checksum(path, e);
        if (one) json_object_set_new(all, product, one);
        else json_decref(all), all = NULL;
        free(path);
    }
    return all;
}

// Records that phase k, which phase_begin recorded, is finished, and what it made.
static bool phase_record(Pipeline *l, int k, double seconds, Error *e) {
    const Phase *p = &l->phases.phase[k];
    char *path = find_product(l, k, e);
    if (!path) return false;
    char *yaml = in_output(l, "%s.yaml", p->name);
    json_t *record = with_checksum(path, e), *configuration = record ? with_checksum(yaml, e) : NULL,
           *beside = configuration ? other_parts(l, k, e) : NULL;
    free(path), free(yaml);
    if (!beside) return json_decref(record), json_decref(configuration), false;
    json_object_set(record, "made", json_object_get(record, "path"));
    json_object_del(record, "path");
    if (json_object_size(beside)) json_object_set(record, "beside", beside);
    json_decref(beside);
    json_object_set_new(record, "command", json_string(phase_command_name[p->command]));
    json_object_set_new(record, "configuration", configuration);
    json_object_set_new(record, "seconds", json_integer((json_int_t)seconds));
    json_object_set(record, "from", json_object_get(json_object_get(l->made, p->name), "from"));
    json_object_set_new(l->made, p->name, record);
    return made_write(l, e);
}

// ---- making phases again --------------------------------------------------------------------------------------------

// The command that phase k ran as, or else will: whose files are in its directory.
static PhaseCommand ran_as(const Pipeline *l, int k) {
    const Phase *p = &l->phases.phase[k];
    const char *name = json_string_value(json_object_get(json_object_get(l->made, p->name), "command"));
    for (int c = 0; name && c < PHASE_COMMANDS; c++)
        if (!strcmp(name, phase_command_name[c])) return (PhaseCommand)c;
    return p->command;
}

// Whether a name in a phase's directory is that of something its command makes. All else there is the user's.
static bool command_makes(PhaseCommand command, const char *name) {
    if (command == PHASE_EVAL) return false; // its file is beside
    return command == PHASE_SELECT ? select_makes(name) : checkpoint_makes(name) || run_makes(name);
}

// Removes a file, of a link what it leads to: so what is made again goes there, too.
static bool remove_file(const char *path, Error *e) {
    if (whole_is_fixed(path)) return true; // a pipe, say: nothing is kept in it
    char *place = whole_place(path);
    bool ok = disk_remove(place, e);
    free(place);
    return ok;
}

// Removes what a command made in a directory, and the directory where nothing else is in it and it is no link.
static bool clear_directory(const char *path, PhaseCommand command, Error *e) {
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT || errno == ENOTDIR ||
               error_set(e, EXIT_DISK, "%s: cannot list the directory: %s", path, strerror(errno));
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(dir));) {
        if (!command_makes(command, entry->d_name)) continue;
        char *made = xasprintf("%s/%s", path, entry->d_name);
        ok = checkpoint_makes(entry->d_name) ? disk_remove(made, e) : remove_file(made, e);
        free(made);
    }
    closedir(dir);
    rmdir(path); // fails where something is left, which is as it should be
    return ok;
}

// Removes what forgotten phases made, and then their entries in pipeline.json: also those that an earlier run was
// killed over.
static bool remove_forgotten(Pipeline *l, Error *e) {
    for (int k = 0; k < l->phases.n; k++) {
        const Phase *p = &l->phases.phase[k];
        if (!json_is_true(json_object_get(json_object_get(l->made, p->name), "forgotten"))) continue;
        char *yaml = in_output(l, "%s.yaml", p->name), *json = in_output(l, "%s.json", p->name);
        bool ok = clear_directory(p->cfg.output_dir, ran_as(l, k), e) && disk_remove(yaml, e);
        Error other; // not a result: it stays
        if (ok && ran_as(l, k) == PHASE_EVAL && eval_replaces(json, &other)) ok = remove_file(json, e);
        free(yaml), free(json);
        json_object_del(l->made, p->name);
        if (!ok || !made_write(l, e)) return false;
    }
    return true;
}

// Whether what phase k will write over is its own. False after filling *e.
static bool others_stay(const Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    const char *path = p->cfg.output_dir;
    struct stat st;
    if (p->command == PHASE_EVAL) return eval_replaces(p->cfg.eval_output, e) || error_prefix(e, "phase %s", p->name);
    if (lstat(path, &st)) return true;
    DIR *dir = opendir(path);
    if (!dir)
        return error_set(e, EXIT_DISK,
                         "%s: phase %s needs a directory there: %s; move away what is there, or give the "
                         "phase another name",
                         path, p->name, strerror(errno));
    bool ok = true;
    for (struct dirent *entry; ok && !json_object_get(l->made, p->name) && (entry = readdir(dir));)
        if (command_makes(p->command, entry->d_name))
            ok = error_set(e, EXIT_DISK,
                           "%s/%s: is there already, and by pipeline.json phase %s did not make it; move it away, or "
                           "give the phase another name",
                           path, entry->d_name, p->name);
    closedir(dir);
    return ok;
}

// Whether NAME.yaml is phase k's to write. Of a phase that has not begun it is the user's, and may be the very file of
// the phases. False after filling *e.
static bool yaml_is_own(const Pipeline *l, int k, Error *e) {
    const char *name = l->phases.phase[k].name;
    char *yaml = in_output(l, "%s.yaml", name);
    bool own = json_object_get(l->made, name) || access(yaml, F_OK) ||
               error_set(e, EXIT_DISK,
                         "%s: is there already, and phase %s writes its configuration there; move it away, or give the "
                         "phase another name",
                         yaml, name);
    free(yaml);
    return own;
}

// Forgets phases [first, end), and removes what they made. It is written down before: a run that goes on from half of
// what a phase made would not end as this one.
static bool forget(Pipeline *l, int first, int end, Error *e) {
    for (int k = first; k < end; k++)
        if (!others_stay(l, k, e)) return false;
    for (int k = first; k < end; k++) {
        json_t *record = json_pack("{s:b, s:s}", "forgotten", 1, "command", phase_command_name[ran_as(l, k)]);
        json_object_set_new(l->made, l->phases.phase[k].name, record);
    }
    return (first >= end || made_write(l, e)) && remove_forgotten(l, e);
}

// ---- running --------------------------------------------------------------------------------------------------------

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

// What goes on where this run ends: from= and only= would begin anew.
static const char *again(const Pipeline *l) {
    return l->from ? "the same command without from=" : l->only ? "the same command without only=" : "the same command";
}

static bool run_phase(Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    if (!phase_begin(l, k, e)) return false;
    char *yaml = in_output(l, "%s.yaml", p->name), *text = config_yaml(&p->cfg);
    bool ok = whole_write(yaml, text, strlen(text), true, e);
    free(text);
    printf("== phase %d of %d: %s (%s)\n", k + 1, l->phases.n, p->name, phase_command_name[p->command]);
    double start = clock_seconds();
    int code = ok ? run_command(phase_command_name[p->command], yaml, e) : -1;
    if (code == EXIT_STOPPED || (code > 0 && stop_requested()))
        error_set(e, EXIT_STOPPED, "stopped in phase %s; %s goes on from there", p->name, again(l));
    else if (code > 0)
        error_set(e, code > 128 ? EXIT_COMM : (ExitCode)code,
                  "phase %d of %d, %s, ended with %s %d (its own words are above; its configuration is %s); %s goes on "
                  "from there",
                  k + 1, l->phases.n, p->name, code > 128 ? "signal" : "exit code", code > 128 ? code - 128 : code,
                  yaml, again(l));
    free(yaml);
    return code == 0 && phase_record(l, k, clock_seconds() - start, e);
}

static bool read_phases(Pipeline *l, Error *e) {
    phases_free(&l->phases);
    if (phases_read(&l->phases, l->path, l->overrides, l->n_overrides, phase_product, l, e)) return true;
    pipeline_check_files(l, e);
    return false;
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

// Decides which phases are to be there in the end, [0, *end), and of those which are made again, from *first on.
static bool choose(const Pipeline *l, int *first, int *end, Error *e) {
    *first = *end = l->phases.n;
    if (l->from && l->only) return error_set(e, EXIT_CONFIG, "from= and only= exclude each other; give one of them");
    if (!l->from && !l->only) return true;
    int k = named_phase(l, l->from ? "from" : "only", l->from ? l->from : l->only, e);
    if (k < 0) return false;
    for (int j = 0; j < k; j++)
        if (!phase_made(l, l->phases.phase[j].name))
            return error_set(e, EXIT_CONFIG, "phase %s is not finished; %s=%s needs those before it",
                             l->phases.phase[j].name, l->from ? "from" : "only", l->phases.phase[k].name);
    *first = k;
    if (l->only) *end = k + 1;
    return true;
}

// Locks output_dir until this process ends: of two runs into it, each would take away what the other reads. False
// after filling *e.
static bool lock_output(Pipeline *l, Error *e) {
    const char *dir = l->phases.output_dir;
    l->lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (l->lock < 0) return error_set(e, EXIT_DISK, "%s: cannot be opened: %s", dir, strerror(errno));
    if (!flock(l->lock, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK) return true; // or a file system without locks
    return error_set(e, EXIT_DISK, "%s: another `grpo run` is at work there; wait for it, or stop it", dir);
}

// Runs phase k, unless it is finished and as it was.
static bool pass_phase(Pipeline *l, int k, Error *e) {
    bool done;
    if (stop_requested()) return error_set(e, EXIT_STOPPED, "stopped before phase %s", l->phases.phase[k].name);
    if (!read_phases(l, e) || !phase_done(l, k, &done, e)) return false;
    if (!done) return run_phase(l, k, e);
    printf("== phase %d of %d: %s is finished: %s\n", k + 1, l->phases.n, l->phases.phase[k].name,
           phase_made(l, l->phases.phase[k].name));
    return true;
}

static bool run_all(Pipeline *l, Error *e) {
    int first, end;
    if (!read_phases(l, e) || !disk_mkdir(l->phases.output_dir, e) || !lock_output(l, e) || !made_read(l, e) ||
        !choose(l, &first, &end, e))
        return false;
    json_t *before = json_deep_copy(l->made);
    for (int j = first; j < end; j++) json_object_del(l->made, l->phases.phase[j].name);
    bool ok = read_phases(l, e); // now with what finished phases made
    ok = ok && pipeline_check(l, end, e);
    json_decref(l->made);
    l->made = before;
    for (int k = 0; ok && k < end; k++) ok = yaml_is_own(l, k, e);
    // Nothing was touched so far. What is to be made again goes now.
    ok = ok && forget(l, first, end, e);
    for (int k = 0; ok && k < end; k++) ok = pass_phase(l, k, e);
    if (ok)
        printf("== %s: all that was asked for is in %s; pipeline.json there says what was made from what\n", l->path,
               l->phases.output_dir);
    return ok;
}

static const char usage[] = "usage: grpo run FILE.yaml [from=NAME | only=NAME] [key=value ...] [NAME.key=value ...]\n"
                            "Runs the phases of FILE one after the other, each a command (sft, train, select, "
                            "reward_model, eval) that may use what\n"
                            "earlier ones made; configs/r1.yaml shows one. Stopped or killed, the same command goes on "
                            "where it was. from=NAME makes\n"
                            "NAME and what follows again, only=NAME that phase alone. key=value counts for every "
                            "phase, NAME.key=value for one;\n"
                            "a command's options: grpo COMMAND --help.\n";

ExitCode command_run(int argc, char **argv, Error *e) {
    for (int i = 0; i < argc; i++)
        if (config_asks_help(argv[i])) return fputs(usage, stdout), EXIT_OK;
    if (argc < 1 || strchr(argv[0], '=') || argv[0][0] == '-') {
        error_set(e, EXIT_CONFIG, "run wants a file of phases: %.*s; see grpo run --help",
                  (int)strcspn(usage + 7, "\n"), usage + 7);
        return EXIT_CONFIG;
    }
    signals_install(true);
    Pipeline l = {.path = argv[0], .lock = -1, .overrides = xcalloc((size_t)argc, sizeof *l.overrides)};
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], "from=", 5)) l.from = argv[i] + 5;
        else if (!strncmp(argv[i], "only=", 5)) l.only = argv[i] + 5;
        else l.overrides[l.n_overrides++] = argv[i];
    bool ok = run_all(&l, e);
    json_decref(l.made);
    if (l.lock >= 0) close(l.lock);
    phases_free(&l.phases);
    free(l.overrides);
    return ok ? EXIT_OK : e->code;
}
