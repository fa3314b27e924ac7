// Reading a pipeline's file: each phase gets the options at the top of the file, then its own; then every ${...} is
// replaced.
#include "config_table.h"
#include "file.h"
#include "nearest.h"
#include "phases.h"
#include <stdlib.h>
#include <string.h>

const char *const phase_command_name[PHASE_COMMANDS] = {"sft", "train", "select", "reward_model", "eval"};
// The options that a phase may not set, because the pipeline decides where it writes.
static const char *const outputs[] = {"output_dir", "select_output", "eval_output"};
#define OUTPUTS    ((int)(sizeof outputs / sizeof *outputs))
#define MAX_PHASES 64

typedef struct {
    Phases *ps;
    const char *path, *text;
    size_t n;
    char **overrides;
    int n_overrides;
    TextList words, meanings; // of `define`
    PhaseProduct *product;
    void *product_arg;
} PhaseFile;

int phase_index(const Phases *ps, const char *name) {
    for (int k = 0; k < ps->n; k++)
        if (ps->phase[k].name && !strcmp(ps->phase[k].name, name)) return k;
    return -1;
}

bool phase_writes(const char *option, size_t n) {
    for (int j = 0; j < OUTPUTS; j++)
        if (strlen(outputs[j]) == n && !memcmp(outputs[j], option, n)) return true;
    return false;
}

const char *phase_place(const Phase *p, const char *option) { return p->place[option_known(option)]; }

void phases_free(Phases *ps) {
    for (int k = 0; k < ps->n; k++) {
        free(ps->phase[k].name);
        free(ps->phase[k].uses);
        for (int i = 0; ps->phase[k].place && i < OPTION_COUNT; i++) free(ps->phase[k].place[i]);
        free(ps->phase[k].place);
        config_free(&ps->phase[k].cfg);
    }
    free(ps->phase);
    free(ps->output_dir);
    str_free(&ps->problems);
    *ps = (Phases){0};
}

static bool is_name(const char *s, size_t n) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    return n && n <= 64 && strspn(s, letters) == n && *s != '-';
}

// ---- names and commands, before all else ----------------------------------------------------------------------------

static void scan_name(PhaseFile *f, Reading *r, Phase *p, const YamlNode *v) {
    if (p->name) problem_at_line(r, v->line, "the phase has two names");
    else if (!is_name(v->text, v->n))
        problem_at_line(r, v->line, "a phase's name is letters, digits, _ and -, not `%.60s`", v->text);
    else if (!strcmp(v->text, "pipeline"))
        problem_at_line(r, v->line, "no phase is named `pipeline`: pipeline.json is where finished phases are listed");
    else if (phase_index(f->ps, v->text) >= 0)
        problem_at_line(r, v->line, "phase `%s` is there twice; first on line %d", v->text,
                        f->ps->phase[phase_index(f->ps, v->text)].line);
    else p->name = xstrdup(v->text);
}

static void scan_command(Reading *r, Phase *p, const YamlNode *v) {
    for (int c = 0; c < PHASE_COMMANDS; c++)
        if (!strcmp(v->text, phase_command_name[c])) p->command = (PhaseCommand)c;
    if (p->command != PHASE_COMMANDS) return;
    const char *near = nearest_name(v->text, phase_command_name, PHASE_COMMANDS);
    problem_at_line(r, v->line, "a phase's command is sft, train, select, reward_model or eval, not `%.60s`%s%s%s",
                    v->text, near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "");
}

// Reads the name and the command of one item of `phases`. False where reading must stop.
static bool scan_phase(PhaseFile *f, Reading *r, YamlReader *y, YamlNode open) {
    if (open.kind != YAML_MAP) {
        problem_at_line(r, open.line, "a phase is {name: NAME, command: COMMAND, option: value ...}");
        return open.kind != YAML_LIST || yaml_skip(y, open).kind != YAML_BAD;
    }
    if (f->ps->n == MAX_PHASES) {
        problem_at_line(r, open.line, "more than %d phases", MAX_PHASES);
        return false;
    }
    f->ps->phase = xrealloc(f->ps->phase, (size_t)(f->ps->n + 1) * sizeof *f->ps->phase);
    Phase *p = &f->ps->phase[f->ps->n++];
    *p = (Phase){.line = open.line, .command = PHASE_COMMANDS};
    bool named = false, commanded = false;
    YamlNode node;
    while ((node = yaml_next(y)).kind == YAML_SCALAR) {
        bool name = !strcmp(node.text, "name"), command = !strcmp(node.text, "command");
        node = yaml_next(y);
        if (node.kind == YAML_SCALAR && name) scan_name(f, r, p, &node), named = true;
        else if (node.kind == YAML_SCALAR && command) scan_command(r, p, &node), commanded = true;
        if (node.kind == YAML_LIST || node.kind == YAML_MAP) node = yaml_skip(y, node);
        if (node.kind == YAML_BAD) break;
    }
    if (node.kind == YAML_BAD) return read_bad(r, &node), false;
    if (!named) problem_at_line(r, open.line, "the phase has no `name`");
    if (!commanded)
        problem_at_line(r, open.line, "the phase has no `command`: sft, train, select, reward_model or eval");
    return true;
}

static int word_index(const PhaseFile *f, const char *word) {
    for (int i = 0; i < f->words.n; i++)
        if (!strcmp(f->words.item[i], word)) return i;
    return -1;
}

// Reads the words of `define`. False where reading must stop.
static bool define_words(PhaseFile *f, Reading *r, YamlReader *y) {
    YamlNode node;
    while ((node = yaml_next(y)).kind == YAML_SCALAR) {
        char *word = xstrdup(node.text);
        int line = node.line;
        node = yaml_next(y);
        if (node.kind == YAML_SCALAR && is_name(word, strlen(word))) {
            if (word_index(f, word) >= 0) problem_at_line(r, line, "define: `%s` is there twice", word);
            if (strstr(node.text, "${"))
                problem_at_line(r, line, "define: `%s` is made of another word; write its value out", word);
            list_add(&f->words, word, strlen(word));
            const char *meaning = strstr(node.text, "${") ? NO_MEANING : node.text;
            list_add(&f->meanings, meaning, strlen(meaning));
        } else if (node.kind != YAML_BAD)
            problem_at_line(r, line, "define: `%.60s` wants one value and a plain name", word);
        free(word);
        if (node.kind == YAML_LIST || node.kind == YAML_MAP) node = yaml_skip(y, node);
        if (node.kind == YAML_BAD) break;
    }
    if (node.kind == YAML_BAD) read_bad(r, &node);
    return node.kind != YAML_BAD;
}

// What take_top does with the keys at the top of the file that are no options, `define` and `phases`.
typedef struct {
    PhaseFile *file;
    bool scan, found; // whether to fill file->ps and words; whether there were `phases`
} Top;

static PairFate take_top(void *arg, Reading *r, const YamlNode *key, YamlReader *y) {
    Top *top = arg;
    bool phases = !strcmp(key->text, "phases"), define = !strcmp(key->text, "define");
    if (!phases && !define) return PAIR_LEFT;
    bool again = phases && top->found;
    top->found = top->found || phases;
    YamlNode v = yaml_next(y);
    if (again) {
        problem_at_line(r, key->line, "`phases` is there twice; make it one list");
        return v.kind == YAML_BAD || ((v.kind == YAML_LIST || v.kind == YAML_MAP) && yaml_skip(y, v).kind == YAML_BAD)
                   ? PAIR_STOP
                   : PAIR_TAKEN;
    }
    if (v.kind == YAML_BAD) return problem_at_line(r, v.line, "%s", v.text), PAIR_STOP;
    if (v.kind != (phases ? YAML_LIST : YAML_MAP)) {
        problem_at_line(r, v.line,
                        phases ? "phases wants a list of {name: NAME, command: COMMAND, ...}"
                               : "define wants a map: {word: value}");
        return v.kind == YAML_SCALAR || yaml_skip(y, v).kind != YAML_BAD ? PAIR_TAKEN : PAIR_STOP;
    }
    if (!top->scan) return yaml_skip(y, v).kind == YAML_BAD ? PAIR_STOP : PAIR_TAKEN;
    if (define) return define_words(top->file, r, y) ? PAIR_TAKEN : PAIR_STOP;
    for (v = yaml_next(y); v.kind != YAML_END; v = yaml_next(y)) {
        if (v.kind == YAML_BAD) return problem_at_line(r, v.line, "%s", v.text), PAIR_STOP;
        if (!scan_phase(top->file, r, y, v)) return PAIR_STOP;
    }
    return PAIR_TAKEN;
}

// Reads the pairs at the top of the file into r. False where its form is not that of a pipeline.
static bool read_top(PhaseFile *f, Reading *r, bool scan) {
    YamlReader *y = yaml_open(f->text, f->n);
    Top top = {f, scan, false};
    YamlNode node = yaml_next(y);
    bool right = false;
    if (node.kind == YAML_BAD) problem_at_line(r, node.line, "%s", node.text);
    else if (node.kind != YAML_MAP)
        problem_at_line(r, node.line, "a pipeline is `phases:` and options for all of them");
    else if (config_read_pairs(r, y, take_top, &top)) {
        node = yaml_next(y);
        if (node.kind == YAML_BAD) problem_at_line(r, node.line, "%s", node.text);
        else if (!top.found) problem_at_line(r, 0, "no `phases`: is it the configuration of one command?");
        else if (scan && !f->ps->n) problem_at_line(r, 0, "`phases` is empty");
        else right = true;
    }
    yaml_close(y);
    return right;
}

// ---- one phase ------------------------------------------------------------------------------------------------------

static PairFate take_own(void *arg, Reading *r, const YamlNode *key, YamlReader *y) {
    if (strcmp(key->text, "name") && strcmp(key->text, "command")) return PAIR_LEFT;
    YamlNode v = yaml_next(y);
    if (v.kind == YAML_SCALAR) return PAIR_TAKEN;
    if (v.kind == YAML_BAD) return problem_at_line(r, v.line, "%s", v.text), PAIR_STOP;
    problem_at_line(r, v.line, "a phase's name and command are one word each");
    return yaml_skip(y, v).kind == YAML_BAD ? PAIR_STOP : PAIR_TAKEN;
}

// Reads the pairs of phase k into r. The file has been read before, so that its form is known to be right.
static void read_own(PhaseFile *f, Reading *r, int k) {
    YamlReader *y = yaml_open(f->text, f->n);
    YamlNode node = yaml_next(y);
    while ((node = yaml_next(y)).kind == YAML_SCALAR) {
        bool phases = !strcmp(node.text, "phases");
        node = yaml_next(y);
        if (phases) break;
        if (node.kind != YAML_SCALAR) yaml_skip(y, node);
    }
    for (int i = 0; i <= k; i++) {
        node = yaml_next(y);
        if (i < k) yaml_skip(y, node);
    }
    config_read_pairs(r, y, take_own, NULL);
    yaml_close(y);
}

// The "key=value" of an override "NAME.key=value" that is for phase `name`, or where that is NULL of one for all
// phases; NULL where it is for another.
static const char *override_for(const PhaseFile *f, const char *arg, const char *name) {
    size_t key = strcspn(arg, "="), dot = strcspn(arg, ".=");
    if (dot == key) return name ? NULL : arg;
    char *prefix = xstrndup(arg, dot);
    bool mine = name && !strcmp(prefix, name);
    free(prefix);
    return mine ? arg + dot + 1 : NULL;
}

static void read_overrides(PhaseFile *f, Reading *r, const char *name) {
    for (int i = 0; i < f->n_overrides; i++) {
        const char *arg = override_for(f, f->overrides[i], name);
        if (arg) config_read_override(r, arg);
    }
}

// Overrides "NAME.key=value" of a NAME that no phase has.
static void check_overrides(const PhaseFile *f, Reading *r) {
    for (int i = 0; i < f->n_overrides; i++) {
        const char *arg = f->overrides[i], *names[MAX_PHASES];
        if (strcspn(arg, ".=") == strcspn(arg, "=")) continue;
        char *name = xstrndup(arg, strcspn(arg, "."));
        int n = 0;
        for (int k = 0; k < f->ps->n; k++)
            if (f->ps->phase[k].name) names[n++] = f->ps->phase[k].name;
        const char *near = phase_index(f->ps, name) < 0 ? nearest_name(name, names, n) : NULL;
        if (phase_index(f->ps, name) < 0)
            problem_at_line(r, 0, "argument '%.80s': there is no phase `%.60s`%s%s%s", arg, name,
                            near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "");
        free(name);
    }
}

// Where a text stands that names things by ${...}.
typedef struct {
    const char *option, *place;
} Where;

// What the word in ${...} stands for in phase k, heap memory; NULL after adding a problem.
static char *meaning_of(PhaseFile *f, Reading *r, int k, const Where *at, const char *word) {
    int defined = word_index(f, word);
    if (defined >= 0) return xstrdup(f->meanings.item[defined]);
    char *name = xstrndup(word, strcspn(word, "."));
    const char *which = word[strlen(name)] ? word + strlen(name) + 1 : "";
    int maker = phase_index(f->ps, name);
    char *product = NULL;
    if (maker < 0) {
        const char *names[MAX_PHASES];
        int n = 0;
        for (int i = 0; i < k; i++)
            if (f->ps->phase[i].name) names[n++] = f->ps->phase[i].name;
        const char *near = nearest_name(name, names, n);
        problem_at_place(r, at->place, "%s: ${%.60s} is neither a phase nor a word of `define`%s%s%s", at->option, word,
                         near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "");
    } else if (maker >= k)
        problem_at_place(r, at->place, "%s: ${%s} is made by %s; a phase can use what earlier ones made", at->option,
                         word, maker == k ? "this phase itself" : "a later phase");
    else if (f->ps->phase[maker].command == PHASE_COMMANDS) product = xstrdup(NO_MEANING); // told where it stands
    else if (!(product = f->product(f->product_arg, f->ps, maker, which)))
        problem_at_place(r, at->place, "%s: phase %s makes no `%.60s`", at->option, name, which);
    else f->ps->phase[k].uses[maker] = 1;
    free(name);
    return product;
}

// Replaces every ${word} in *text, and $${ by ${ (for a hook's shell).
static void replace(PhaseFile *f, Reading *r, int k, const Where *at, char **text) {
    if (!strstr(*text, "${")) return;
    Str s = {0};
    str_puts(&s, "");
    for (const char *p = *text; *p;) {
        const char *open = strstr(p, "${"), *close = open ? strchr(open, '}') : NULL;
        if (open > p && open[-1] == '$') {
            str_add(&s, p, (size_t)(open - p) - 1);
            str_puts(&s, "${");
            p = open + 2;
            continue;
        }
        if (!close) {
            if (open) problem_at_place(r, at->place, "%s: ${ without }", at->option);
            str_puts(&s, open ? NO_MEANING : p);
            break;
        }
        str_add(&s, p, (size_t)(open - p));
        char *word = xstrndup(open + 2, (size_t)(close - open - 2)), *meaning = meaning_of(f, r, k, at, word);
        str_puts(&s, meaning ? meaning : NO_MEANING);
        free(word), free(meaning);
        p = close + 1;
    }
    free(*text);
    *text = s.s;
}

static void replace_list(PhaseFile *f, Reading *r, int k, const Where *at, TextList *list) {
    for (int i = 0; i < list->n; i++) replace(f, r, k, at, &list->item[i]);
}

// Replaces the references in all texts of an option's value.
static void replace_in_option(PhaseFile *f, Reading *r, int k, const Option *o) {
    void *value = option_at(r->c, o);
    char *place = option_place(r, o->name);
    const Where at = {o->name, place};
    if (o->kind == KIND_TEXT) replace(f, r, k, &at, value);
    if (o->kind == KIND_LIST) replace_list(f, r, k, &at, value);
    for (int i = 0; o->kind == KIND_FILES && i < ((FileList *)value)->n; i++) {
        DataFile *file = &((FileList *)value)->item[i];
        const Where entry = {o->name, file->place};
        replace(f, r, k, &entry, &file->path);
        replace_list(f, r, k, &entry, &file->rewards);
    }
    free(place);
}

// A directory's path without the slashes at its end, so that what is made below it has one name. Heap memory.
static char *without_slash(const char *dir) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    return xstrndup(dir, n);
}

static void take_text(char **member, char *text) {
    free(*member);
    *member = text;
}

static void read_phase(PhaseFile *f, int k) {
    Phase *p = &f->ps->phase[k];
    const char **names = xcalloc((size_t)OPTION_COUNT, sizeof *names);
    Place *place = xcalloc((size_t)OPTION_COUNT, sizeof *place), *top = xcalloc((size_t)OPTION_COUNT, sizeof *top);
    Reading r = {.c = &p->cfg, .path = f->path, .names = names, .place = place};
    reading_defaults(&r);
    read_top(f, &r, false);
    read_overrides(f, &r, NULL);
    str_clear(&r.problems), r.problem_count = 0; // told when the phases were looked for
    if (!f->ps->output_dir) f->ps->output_dir = without_slash(p->cfg.output_dir);
    memcpy(top, place, (size_t)OPTION_COUNT * sizeof *place);
    memset(place, 0, (size_t)OPTION_COUNT * sizeof *place);
    read_own(f, &r, k);
    read_overrides(f, &r, p->name);
    p->uses = xcalloc((size_t)f->ps->n, 1);
    const Command *command = command_named(phase_command_name[p->command]);
    for (int i = 0; i < OPTION_COUNT; i++) {
        const Option *o = &config_options[i];
        bool own = place[i].line || place[i].arg, writes = phase_writes(o->name, strlen(o->name));
        if (!own) place[i] = top[i];
        if (own && writes)
            problem_of(&r, o->name, NULL, "%s: leave it out; phase %s writes into %s/%s", o->name, p->name,
                       f->ps->output_dir, p->name);
        else if (own && !command_reads(command, o->group))
            problem_of(&r, o->name, NULL, "%s reads no `%s`; leave it out of phase %s", phase_command_name[p->command],
                       o->name, p->name);
        replace_in_option(f, &r, k, o);
    }
    p->place = xcalloc((size_t)OPTION_COUNT, sizeof *p->place);
    for (int i = 0; i < OPTION_COUNT; i++) p->place[i] = option_place(&r, config_options[i].name);
    take_text(&p->cfg.output_dir, xasprintf("%s/%s", f->ps->output_dir, p->name));
    take_text(&p->cfg.select_output, xstrdup(p->cfg.output_dir));
    take_text(&p->cfg.eval_output, xasprintf("%s/%s.json", f->ps->output_dir, p->name));
    char *whole = xasprintf("%s:%d: phase %s", f->path, p->line, p->name);
    r.whole = whole;
    config_check(&r, phase_command_name[p->command]);
    free(whole);
    Str *all = &f->ps->problems;
    if (r.problems.n) str_printf(all, "%s%s", all->n ? "\n" : "", r.problems.s);
    f->ps->problem_count += r.problem_count;
    str_free(&r.problems);
    free(names), free(place), free(top);
}

bool phases_read(Phases *ps, const char *path, char **overrides, int n, PhaseProduct *product, void *arg, Error *e) {
    *ps = (Phases){0};
    size_t bytes;
    char *text = file_read_text(path, YAML_MAX_BYTES, &bytes, e);
    if (!text) return e->code = EXIT_CONFIG, false;
    PhaseFile f = {.ps = ps,
                   .path = path,
                   .text = text,
                   .n = bytes,
                   .overrides = overrides,
                   .n_overrides = n,
                   .product = product,
                   .product_arg = arg};
    // First find out which phases there are, on a configuration that is then thrown away.
    const char **names = xcalloc((size_t)OPTION_COUNT, sizeof *names);
    Place *place = xcalloc((size_t)OPTION_COUNT, sizeof *place);
    Config scratch = {0};
    Reading r = {.c = &scratch, .path = path, .names = names, .place = place};
    reading_defaults(&r);
    bool right = read_top(&f, &r, true);
    read_overrides(&f, &r, NULL);
    check_overrides(&f, &r);
    for (int i = 0; i < f.words.n; i++)
        if (phase_index(ps, f.words.item[i]) >= 0)
            problem_at_line(&r, ps->phase[phase_index(ps, f.words.item[i])].line,
                            "`%s` is a phase and a word of `define`; rename one of them", f.words.item[i]);
    config_free(&scratch);
    ps->problems = r.problems, ps->problem_count = r.problem_count;
    for (int k = 0; k < ps->n && right; k++)
        if (ps->phase[k].name && ps->phase[k].command != PHASE_COMMANDS) read_phase(&f, k);
    free(names), free(place);
    r = (Reading){.path = path, .problems = ps->problems, .problem_count = ps->problem_count};
    bool ok = !ps->problem_count || problems_report(&r, e);
    list_clear(&f.words), list_clear(&f.meanings);
    free(text);
    return ok;
}
