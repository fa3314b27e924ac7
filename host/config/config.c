// Reading a configuration: defaults, then a YAML file, then key=value overrides.
//
// Problems are collected with their places and reported together, so that a user can correct a file in one go.
#include "config_table.h"
#include "file.h"
#include "launch.h"
#include "nearest.h"
#include "trl.h"
#include "yaml_reader.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>
#include <stdio.h>

#define MAX_PROBLEMS 20

// ---- values ------------------------------------------------------------------------------------------------------

const char *option_choice(const Option *o, int k, int *length) {
    const char *p = o->text;
    for (; k > 0; k--) {
        p = strchr(p, '|');
        if (!p) return NULL;
        p++;
    }
    *length = (int)strcspn(p, "|");
    return p;
}

void list_add(TextList *list, const char *text, size_t n) {
    list->item = xrealloc(list->item, (size_t)(list->n + 1) * sizeof *list->item);
    list->item[list->n++] = xstrndup(text, n);
}

void list_clear(TextList *list) {
    for (int i = 0; i < list->n; i++) free(list->item[i]);
    free(list->item);
    *list = (TextList){0};
}

// Whether a piece of a list is a parameter ("clamp=yes") of the entry before it, unlike "length:max=2" and "format".
static bool is_parameter(const char *piece, size_t n) {
    const char *equals = memchr(piece, '=', n), *colon = memchr(piece, ':', n);
    return equals && (!colon || equals < colon);
}

void list_split(TextList *list, const char *text) {
    const char *start = text + strspn(text, " \t\n");
    for (const char *p = start; *start; p++) {
        if (*p && *p != ',') continue;
        const char *next = *p ? p + 1 : p;
        next += strspn(next, " \t\n");
        if (*p && is_parameter(next, strcspn(next, ","))) continue;
        bool escaped = *p && p > start && p[-1] == '\\' && memchr(start, ':', (size_t)(p - start));
        if (escaped) continue; // "regex:pattern=a\,b": a comma of the value
        size_t n = (size_t)(p - start);
        while (n && strchr(" \t\n", start[n - 1])) n--;
        list_add(list, start, n);
        if (!*p) break;
        start = p = next;
        p--; // the loop steps onto `next`
    }
}

static void set_text(char **member, const char *text) {
    char *copy = xstrdup(text);
    free(*member);
    *member = copy;
}

static void set_default(Config *c, const Option *o) {
    void *at = option_at(c, o);
    switch (o->kind) {
    case KIND_BOOL: *(bool *)at = o->value != 0; break;
    case KIND_INT: *(int64_t *)at = (int64_t)o->value; break;
    case KIND_REAL: *(double *)at = o->value; break;
    case KIND_PICK: *(int *)at = (int)o->value; break;
    case KIND_TEXT: set_text(at, o->text); break;
    case KIND_LIST: list_clear(at), list_split(at, o->text); break;
    case KIND_FILES: files_clear(at); break;
    }
}

bool option_is_default(const Config *c, const Option *o) {
    const void *at = option_at(c, o);
    switch (o->kind) {
    case KIND_BOOL: return *(const bool *)at == (o->value != 0);
    case KIND_INT: return *(const int64_t *)at == (int64_t)o->value;
    case KIND_REAL: return *(const double *)at == o->value;
    case KIND_PICK: return *(const int *)at == (int)o->value;
    case KIND_TEXT: return !strcmp(*(char *const *)at, o->text);
    case KIND_FILES: return !((const FileList *)at)->n;
    case KIND_LIST: break;
    }
    const TextList *list = at;
    TextList def = {0};
    list_split(&def, o->text);
    bool same = def.n == list->n;
    for (int i = 0; same && i < def.n; i++) same = !strcmp(def.item[i], list->item[i]);
    list_clear(&def);
    return same;
}

void config_free(Config *c) {
    for (int i = 0; i < OPTION_COUNT; i++) {
        void *at = option_at(c, &config_options[i]);
        if (config_options[i].kind == KIND_TEXT) free(*(char **)at);
        if (config_options[i].kind == KIND_LIST) list_clear(at);
        if (config_options[i].kind == KIND_FILES) files_clear(at);
    }
    memset(c, 0, sizeof *c);
}

// ---- problems ----------------------------------------------------------------------------------------------------

static void put_place(Str *s, const Reading *r, Place place) {
    if (place.arg) {
        char *shown = xstrdup(place.arg); // without passwords, even of a URL that is cut below
        str_hide_passwords(shown);
        str_puts(s, "argument '");
        str_visible(s, shown, strnlen(shown, 60));
        str_puts(s, strlen(shown) > 60 ? "...'" : "'");
        free(shown);
    } else if (!r->path) str_puts(s, "command line");
    else if (place.line) str_printf(s, "%s:%d", r->path, place.line);
    else str_puts(s, r->whole ? r->whole : r->path);
}

char *place_text(const Reading *r, int line) {
    Str s = {0};
    put_place(&s, r, (Place){line, r->arg});
    return s.s;
}

static void problem_add(Reading *r, const char *place, const char *fmt, va_list ap) {
    if (++r->problem_count > MAX_PROBLEMS) return;
    Str *s = &r->problems;
    str_printf(s, "%s%s: ", s->n ? "\n" : "", place);
    va_list copy;
    va_copy(copy, ap);
    int n = vsnprintf(NULL, 0, fmt, copy);
    va_end(copy);
    char *text = xmalloc((size_t)n + 1);
    vsnprintf(text, (size_t)n + 1, fmt, ap);
    str_hide_passwords(text);
    for (char *p = text; *p; p++) // a problem is one line, whatever the user wrote
        if (*p == '\n' || *p == '\t') *p = ' ';
    str_visible(s, text, strlen(text));
    free(text);
}

void problem_at_place(Reading *r, const char *place, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    problem_add(r, place, fmt, ap);
    va_end(ap);
}

void problem_at_line(Reading *r, int line, const char *fmt, ...) {
    char *place = place_text(r, line);
    va_list ap;
    va_start(ap, fmt);
    problem_add(r, place, fmt, ap);
    va_end(ap);
    free(place);
}

static Place place_of(const Reading *r, const char *name) { return r->place[option_known(name)]; }

char *option_place(const Reading *r, const char *name) {
    Str s = {0};
    put_place(&s, r, place_of(r, name));
    return s.s;
}

void problem_of(Reading *r, const char *a, const char *b, const char *fmt, ...) {
    Place x = place_of(r, a), y = b ? place_of(r, b) : (Place){0};
    // Arguments are read after the file; of two arguments either is right.
    Str place = {0};
    put_place(&place, r, y.arg || (!x.arg && y.line > x.line) ? y : x);
    va_list ap;
    va_start(ap, fmt);
    problem_add(r, place.s, fmt, ap);
    va_end(ap);
    str_free(&place);
}

// Reports as many problems as fit into an error.
bool problems_report(const Reading *r, Error *e) {
    static const char more[] = "\n... and more; correct these first";
    Error whole = {EXIT_CONFIG, ""};
    size_t room = sizeof whole.text - sizeof more, used = 0;
    if (r->problem_count > 1)
        used = (size_t)snprintf(whole.text, sizeof whole.text,
                                "%s%d problems:", r->problem_count > MAX_PROBLEMS ? "more than " : "",
                                r->problem_count > MAX_PROBLEMS ? MAX_PROBLEMS : r->problem_count);
    int shown = 0;
    for (const char *p = r->problems.s; *p; shown++) {
        size_t n = strcspn(p, "\n");
        size_t fits = used + n + 1 > room ? (used ? 0 : room) : n;
        if (!fits) break;
        if (used) whole.text[used++] = '\n';
        memcpy(whole.text + used, p, fits);
        used += fits;
        p += n + (p[n] == '\n');
    }
    if (shown < r->problem_count) memcpy(whole.text + used, more, sizeof more);
    if (e) *e = whole;
    return false;
}

// ---- reading one value -------------------------------------------------------------------------------------------

// Names of options elsewhere, with what to write here; one that ends in _ stands for all that begin so. TRL's own are
// in trl_fields.h.
static const char *const foreign_names[][2] = {
    {"define", "this is a pipeline; it is started by `grpo run FILE`"},
    {"epochs", "write num_train_epochs"},
    {"group_size", "write num_generations"},
    {"kl_coef", "write beta"},
    {"lr", "write learning_rate"},
    {"max_tokens", "write max_completion_length"},
    {"phases", "this is a pipeline; it is started by `grpo run FILE`"},
    {"vllm_", "leave it out: no second engine samples: the trainer samples itself"},
};

// Writes what to do about an option that is another program's; nothing where it is nobody's.
static void foreign_advice(const char *name, Str *out) {
    const TrlField *f = trl_field(name);
    if (f && *f->ours)
        str_printf(out,
                   "write %s; the name is TRL's, and `grpo config --from-trl FILE` turns a file of TRL's into ours",
                   f->ours);
    else if (f) str_printf(out, "%s%s", f->how == TRL_NEEDLESS ? "leave it out: " : "", f->words);
    for (size_t i = 0; !f && !out->n && i < sizeof foreign_names / sizeof *foreign_names; i++) {
        const char *known = foreign_names[i][0];
        size_t n = strlen(known);
        if (!strncmp(name, known, n) && (!name[n] || known[n - 1] == '_')) str_puts(out, foreign_names[i][1]);
    }
}

static void unknown_option(Reading *r, int line, const char *name) {
    Str advice = {0};
    foreign_advice(name, &advice);
    const char *near = advice.n ? NULL : nearest_name(name, r->names, OPTION_COUNT);
    if (advice.n) problem_at_line(r, line, "there is no option `%.80s`: %s", name, advice.s);
    else if (near) problem_at_line(r, line, "there is no option `%.80s`; did you mean `%s`?", name, near);
    else problem_at_line(r, line, "there is no option `%.80s`; `grpo config` lists all", name);
    str_free(&advice);
}

bool node_is_null(const YamlNode *v) {
    return v->plain && (!*v->text || !strcmp(v->text, "~") || !strcasecmp(v->text, "null"));
}

// Whether s is a number: -?(0|[1-9][0-9]*); with `real` also a fraction, an exponent, a plus, a bare point.
bool text_is_number(const char *s, bool real) {
    s += *s == '-' || (real && *s == '+');
    size_t whole = strspn(s, "0123456789");
    if (!real) return whole && !s[whole] && (s[0] != '0' || whole == 1);
    s += whole;
    size_t fraction = 0;
    if (*s == '.') s++, fraction = strspn(s, "0123456789"), s += fraction;
    if (!whole && !fraction) return false;
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '-' || *s == '+';
        size_t digits = strspn(s, "0123456789");
        if (!digits) return false;
        s += digits;
    }
    return !*s;
}

static void read_int(Reading *r, const Option *o, const YamlNode *v) {
    if (!v->plain || !text_is_number(v->text, false)) {
        const char *hint = !v->plain                       ? " (without quotes)"
                           : text_is_number(v->text, true) ? " (digits only: no point, exponent or leading zero)"
                                                           : "";
        problem_at_line(r, v->line, "%s wants a whole number%s, not `%.60s`", o->name, hint, v->text);
        return;
    }
    errno = 0;
    long long x = strtoll(v->text, NULL, 10);
    if (errno || (double)x < o->min || (double)x > o->max)
        problem_at_line(r, v->line, "%s is %.60s, outside its range %.0f to %.0f", o->name, v->text, o->min, o->max);
    else *(int64_t *)option_at(r->c, o) = x;
}

static void read_real(Reading *r, const Option *o, const YamlNode *v) {
    if (!v->plain || !text_is_number(v->text, true)) {
        problem_at_line(r, v->line, "%s wants a number%s, not `%.60s`", o->name, v->plain ? "" : " (without quotes)",
                        v->text);
        return;
    }
    double x = strtod(v->text, NULL);
    if (x < o->min || x > o->max)
        problem_at_line(r, v->line, "%s is %.60s, outside its range %g to %g", o->name, v->text, o->min, o->max);
    else *(double *)option_at(r->c, o) = x + 0.0; // -0 becomes 0
}

// The word of a list that other programs call so; NULL: none.
static const char *by_other_name(const char *word, const TextList *list) {
    static const char *const same[][2] = {{"gpu", "cuda"},    {"nvidia", "cuda"}, {"bfloat16", "bf16"},
                                          {"float32", "f32"}, {"fp32", "f32"},    {"float", "f32"}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        for (int k = 0; k < list->n && !strcasecmp(word, same[i][0]); k++)
            if (!strcmp(list->item[k], same[i][1])) return list->item[k];
    return NULL;
}

static void read_pick(Reading *r, const Option *o, const YamlNode *v) {
    const char *choice;
    int n;
    for (int k = 0; (choice = option_choice(o, k, &n)); k++)
        if (strlen(v->text) == (size_t)n && !memcmp(v->text, choice, (size_t)n)) {
            *(int *)option_at(r->c, o) = k;
            return;
        }
    TextList list = {0};
    for (int k = 0; (choice = option_choice(o, k, &n)); k++) list_add(&list, choice, (size_t)n);
    const char *near = by_other_name(v->text, &list);
    if (!near) near = nearest_name(v->text, (const char *const *)list.item, list.n);
    problem_at_line(r, v->line, "%s wants one of %s, not `%.60s`%s%s%s", o->name, o->text, v->text,
                    near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "");
    list_clear(&list);
}

// A value that is one text as it stands, the empty one too.
static bool is_text(const Option *o) { return o->kind == KIND_TEXT || o->kind == KIND_FILES; }

static void read_file_name(Reading *r, const Option *o, const YamlNode *v) {
    FileList *list = option_at(r->c, o);
    files_clear(list);
    if (!node_is_null(v)) files_add(list, v->text, place_text(r, v->line));
}

static void read_scalar(Reading *r, const Option *o, const YamlNode *v) {
    if (strlen(v->text) != v->n) problem_at_line(r, v->line, "%s contains a NUL character", o->name);
    else if (node_is_null(v) && !is_text(o) && !(o->kind == KIND_LIST && r->arg && !*v->text))
        problem_at_line(r, v->line, "%s has no value; %s", o->name,
                        o->kind == KIND_LIST ? "write [] for an empty list" : "leave the line out for the default");
    else if (o->kind == KIND_TEXT) set_text(option_at(r->c, o), node_is_null(v) ? "" : v->text);
    else if (o->kind == KIND_FILES) read_file_name(r, o, v);
    else if (o->kind == KIND_LIST) {
        TextList *list = option_at(r->c, o);
        list_clear(list);
        if (v->plain) list_split(list, v->text);
        else list_add(list, v->text, v->n);
        for (int i = 0; i < list->n; i++)
            if (!*list->item[i]) return problem_at_line(r, v->line, "%s: an empty entry", o->name);
    } else if (o->kind == KIND_INT) read_int(r, o, v);
    else if (o->kind == KIND_REAL) read_real(r, o, v);
    else if (o->kind == KIND_PICK) read_pick(r, o, v);
    else if (v->plain && (!strcmp(v->text, "true") || !strcmp(v->text, "false")))
        *(bool *)option_at(r->c, o) = *v->text == 't';
    else
        problem_at_line(r, v->line, "%s wants true or false%s, not `%.60s`", o->name,
                        v->plain ? "" : " (without quotes)", v->text);
}

void read_bad(Reading *r, const YamlNode *v) { problem_at_line(r, v->line, "%s", v->text); }

// Reads the value of option o, or skips it where o is NULL. False where reading must stop.
static bool read_value(Reading *r, const Option *o, YamlReader *y) {
    YamlNode v = yaml_next(y);
    if (v.kind == YAML_BAD) return read_bad(r, &v), false;
    if (v.kind == YAML_SCALAR) {
        if (o) read_scalar(r, o, &v);
        return true;
    }
    if (o && o->kind == KIND_LIST) return config_read_list(r, o, y, v);
    if (o && o->kind == KIND_FILES) return config_read_files(r, o, y, v);
    if (o) problem_at_line(r, v.line, "%s wants one value, not a %s", o->name, v.kind == YAML_MAP ? "map" : "list");
    v = yaml_skip(y, v);
    if (v.kind == YAML_BAD) read_bad(r, &v);
    return v.kind != YAML_BAD;
}

// ---- the file and the overrides ----------------------------------------------------------------------------------

bool config_read_pairs(Reading *r, YamlReader *y, PairTaker *taker, void *arg) {
    YamlNode node;
    while ((node = yaml_next(y)).kind == YAML_SCALAR && r->problem_count <= MAX_PROBLEMS) {
        int i = option_index(node.text, node.n);
        PairFate fate = i < 0 && taker ? taker(arg, r, &node, y) : PAIR_LEFT;
        if (fate == PAIR_STOP) return false;
        if (fate == PAIR_TAKEN) continue;
        if (i < 0) unknown_option(r, node.line, node.text);
        else if (r->place[i].line) {
            problem_at_line(r, node.line, "`%s` is given twice; first on line %d", node.text, r->place[i].line);
            i = -1;
        } else r->place[i].line = node.line;
        if (!read_value(r, i < 0 ? NULL : &config_options[i], y)) return false;
    }
    if (node.kind == YAML_BAD) read_bad(r, &node);
    return node.kind == YAML_END;
}

// Whether all of it could be read; what it sets may be wrong for all that.
static bool read_document(Reading *r, YamlReader *y) {
    YamlNode node = yaml_next(y);
    if (node.kind == YAML_DONE) return true; // an empty file: all defaults
    if (node.kind == YAML_MAP) {
        if (!config_read_pairs(r, y, NULL, NULL)) return false;
        node = yaml_next(y); // behind the map there is nothing, or an error
        if (node.kind != YAML_BAD) return true;
    }
    if (node.kind == YAML_BAD) read_bad(r, &node);
    else
        problem_at_line(r, node.line, "a configuration is lines of `option: value`, not a %s",
                        node.kind == YAML_LIST ? "list" : "single value");
    return false;
}

static bool read_file(Reading *r) {
    Error e = {0};
    size_t n;
    char *text = file_read_text(r->path, YAML_MAX_BYTES, &n, &e);
    if (!text) {
        const char *reason = e.text; // begins with the path, as every problem does
        size_t prefix = strlen(r->path);
        if (!strncmp(reason, r->path, prefix) && !strncmp(reason + prefix, ": ", 2)) reason += prefix + 2;
        problem_at_line(r, 0, "%s", reason);
        return false;
    }
    YamlReader *y = yaml_open(text, n);
    bool whole = read_document(r, y);
    yaml_close(y);
    free(text);
    return whole;
}

// Whether an override's value is read as YAML (quoted; for lists also [...] and {...}), rather than taken as plain
// text. A shell has already removed one layer of quotes, and a prompt with ':' or '#' in it must be taken as it is.
static bool is_yaml_value(const Option *o, const char *value) {
    size_t n = strlen(value);
    if ((o->kind == KIND_LIST || o->kind == KIND_FILES) && (*value == '[' || *value == '{')) return true;
    return n >= 2 && (*value == '"' || *value == '\'') && value[n - 1] == *value;
}

static bool is_utf8(const char *s) {
    utf8proc_int32_t c;
    for (utf8proc_ssize_t n; *s; s += n)
        if ((n = utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &c)) < 1) return false;
    return true;
}

void config_read_override(Reading *r, const char *arg) {
    r->arg = arg;
    const char *equals = strchr(arg, '=');
    char *name = equals ? xstrndup(arg, (size_t)(equals - arg)) : xstrdup(arg);
    int i = option_index(name, strlen(name));
    if (*arg == '-') {
        size_t dashes = strspn(arg, "-");
        i = option_index(name + dashes, strlen(name + dashes));
        problem_at_line(r, 0, "options are written key=value, without dashes%s%s%s",
                        i < 0 ? "; `grpo COMMAND --help` lists them" : ": ", i < 0 ? "" : name + dashes,
                        i < 0 ? "" : "=VALUE");
    } else if (!equals)
        problem_at_line(r, 0, "not of the form key=value; the YAML file comes first, and there is one at most");
    else if (i < 0) unknown_option(r, 0, name);
    else {
        const Option *o = &config_options[i];
        const char *value = equals + 1;
        r->place[i] = (Place){0, arg};
        if (is_yaml_value(o, value)) {
            YamlReader *y = yaml_open(value, strlen(value));
            if (read_value(r, o, y)) {
                YamlNode end = yaml_next(y);
                if (end.kind == YAML_BAD) read_bad(r, &end);
            }
            yaml_close(y);
        } else if (!is_utf8(value)) problem_at_line(r, 0, "%s is not valid UTF-8", o->name);
        else read_scalar(r, o, &(YamlNode){.kind = YAML_SCALAR, .text = value, .n = strlen(value), .plain = true});
    }
    free(name);
    r->arg = NULL;
}

// Sets the number of ranks where a launcher started this process: it is then the launcher's.
static void apply_launcher(Reading *r, const Launch *l) {
    if (!l->by) return;
    if (r->c->gpus != 1 && r->c->gpus != l->world)
        problem_of(r, "gpus", NULL, "gpus is %lld, but %s started %d rank%s; leave gpus out, or let the two agree",
                   (long long)r->c->gpus, l->by, l->world, l->world == 1 ? "" : "s");
    r->c->gpus = l->world;
}

void reading_defaults(Reading *r) {
    for (int i = 0; i < OPTION_COUNT; i++) {
        r->names[i] = config_options[i].name;
        set_default(r->c, &config_options[i]);
    }
}

// Checks what was read; where there are problems, reports them and frees *c.
static bool finish(Reading *r, const char *command, bool readable, Error *e) {
    if (readable) config_check(r, command); // else options that the file sets would be reported as missing
    bool good = r->problem_count == 0;
    if (!good) {
        problems_report(r, e);
        config_free(r->c);
    }
    str_free(&r->problems);
    return good;
}

bool config_of_settings(Config *c, const char *path, const Setting *set, int n, Error *e) {
    const char *names[OPTION_COUNT];
    Place place[OPTION_COUNT] = {0};
    Reading r = {.c = c, .path = path, .names = names, .place = place};
    *c = (Config){0};
    reading_defaults(&r);
    for (int k = 0; k < n; k++) {
        int i = option_known(set[k].name);
        place[i].line = set[k].line;
        bool plain = !is_text(&config_options[i]); // "~" is a path like any other
        read_scalar(&r, &config_options[i],
                    &(YamlNode){YAML_SCALAR, set[k].value, strlen(set[k].value), plain, set[k].line, 0});
    }
    return finish(&r, NULL, true, e);
}

static bool config_load(Config *c, const char *command, const char *path, char **overrides, int n, Error *e) {
    const char *names[OPTION_COUNT];
    Place place[OPTION_COUNT] = {0};
    Reading r = {.c = c, .path = path, .names = names, .place = place};
    Launch launch = {0};
    *c = (Config){0};
    const Command *known = command_named(command);
    if (known && known->ranked && !launch_read(&launch, e)) return false;
    reading_defaults(&r);
    bool readable = !path || read_file(&r);
    for (int i = 0; i < n; i++) config_read_override(&r, overrides[i]);
    apply_launcher(&r, &launch);
    return finish(&r, command, readable, e);
}

bool config_read(Config *c, const char *path, char **overrides, int n, Error *e) {
    return config_load(c, NULL, path, overrides, n, e);
}

void config_defaults(Config *c) {
    Error e;
    if (!config_read(c, NULL, NULL, 0, &e)) die("the defaults contradict each other: %s", e.text);
}

bool config_args(Config *c, const char *command, int argc, char **argv, Error *e) {
    bool file = argc > 0 && argv[0][0] != '-' && !strchr(argv[0], '=');
    return config_load(c, command, file ? argv[0] : NULL, argv + file, argc - file, e);
}
