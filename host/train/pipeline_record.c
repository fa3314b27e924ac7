// What a pipeline's phases make, and its record of them.
//
// output_dir/NAME.yaml is the configuration a phase runs with; output_dir/pipeline.json says of each finished phase
// what it made from what, with checksums, and of the one that runs what it is made from.
#include "checkpoint.h"
#include "file.h"
#include "fingerprint.h"
#include "json.h"
#include "pipeline.h"
#include "whole.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

char *pipeline_path(const Pipeline *l, const char *fmt, const char *name) {
    char *file = xasprintf(fmt, name), *path = xasprintf("%s/%s", l->phases.output_dir, file);
    free(file);
    return path;
}

bool made_write(const Pipeline *l, Error *e) {
    char *path = pipeline_path(l, "%s", "pipeline.json"), *text = json_dumps(l->made, JSON_INDENT(1)),
         *line = xasprintf("%s\n", text);
    bool ok = whole_write(path, line, strlen(line), true, e);
    free(path), free(text), free(line);
    return ok;
}

bool made_read(Pipeline *l, Error *e) {
    char *path = pipeline_path(l, "%s", "pipeline.json");
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

// The value that a configuration gives option name[0..n), to the end of its line; NULL: it stands on several, or not at
// all. Heap memory.
static char *value_in(const char *yaml, const char *name, size_t n) {
    char *text = xasprintf("\n%s", yaml), *start = xasprintf("\n%.*s: ", (int)n, name), *found = strstr(text, start);
    char *value = found ? xasprintf("%.*s", (int)strcspn(found + strlen(start), "\n"), found + strlen(start)) : NULL;
    free(text), free(start);
    return value;
}

// The names of the options in which two configurations of a phase differ, leaving out those that change no number.
static void differences(const Phase *p, const char *then, const char *now, Str *out) {
    for (const char *line = now; *line;) {
        size_t n = strcspn(line, "\n"), name = strcspn(line, ":");
        if (name < n && *line != ' ' && *line != '#' && !config_may_change(line, name) && phase_reads(p, line, name) &&
            !phase_writes(line, name)) { // where it writes changes nothing
            char *option = xasprintf("%.*s", (int)name, line), *was = value_in(then, option, name);
            char *is = value_in(line, option, name);
            if (!was || !is || !config_alike(option, was, is)) str_printf(out, "%s%s", out->n ? ", " : "", option);
            free(option), free(was), free(is);
        }
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
    char *path = pipeline_path(l, "%s.yaml", p->name), *now = unmade(l, config_yaml(&p->cfg));
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

bool phase_done(const Pipeline *l, int k, bool *done, Error *e) {
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

bool phase_begin(Pipeline *l, int k, Error *e) {
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

bool phase_record(Pipeline *l, int k, double seconds, Error *e) {
    const Phase *p = &l->phases.phase[k];
    char *path = find_product(l, k, e);
    if (!path) return false;
    char *yaml = pipeline_path(l, "%s.yaml", p->name);
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
