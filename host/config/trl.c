// TRL's configurations read as ours: `grpo config --from-trl FILE`.
//
// A field's value is TRL's default until the file says otherwise; a JSON file is YAML too. Values travel as their text:
// what they become are overrides, which the option table reads and checks as if a user had written them.
#include "trl.h"
#include "config_table.h"
#include "file.h"
#include "nearest.h"
#include "reward.h"
#include "trl_fields.h"
#include "yaml_reader.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TRL_ROW(source, name, value, how, ours, words) {TRL_##source, #name, value, TRL_##how, ours, words},
const TrlField trl_fields[] = {TRL_FIELDS(TRL_ROW)};
enum { FIELDS = sizeof trl_fields / sizeof *trl_fields };
const int trl_field_count = FIELDS;

// A field as the file has it.
typedef struct {
    int line;       // 0: it has none
    char *text;     // of a scalar; else NULL
    TextList items; // of a list of scalars
    bool nested;    // a map, or a list of more than scalars
} Given;

typedef struct {
    const char *path;
    Given given[FIELDS];
    Str lost;          // names of the fields that are not carried over
    TextList override; // "option=value", in the order of the table
} Carrying;

static int field_index(const char *name) {
    for (int i = 0; i < FIELDS; i++)
        if (!strcmp(trl_fields[i].name, name)) return i;
    die("trl_fields has no %s", name);
}
static Given *given(Carrying *c, const char *name) { return &c->given[field_index(name)]; }

// The value as text: the file's, or TRL's default. NULL stands for None.
static const char *value_of(Carrying *c, const char *name) {
    int i = field_index(name);
    const char *text = c->given[i].line ? c->given[i].text : trl_fields[i].value;
    return !text || !strcasecmp(text, "null") || !strcasecmp(text, "none") || !strcmp(text, "~") || !*text ? NULL
                                                                                                           : text;
}
static bool is_true(const char *text) { return text && (!strcasecmp(text, "true") || !strcasecmp(text, "yes")); }
static bool is_false(const char *text) { return text && (!strcasecmp(text, "false") || !strcasecmp(text, "no")); }

static void carry(Carrying *c, const char *option, const char *value) {
    char *text = xasprintf("%s=%s", option, value);
    list_add(&c->override, text, strlen(text));
    free(text);
}

static void lose(Carrying *c, int line, const char *name, const char *words) {
    note("%s:%d: %s is not carried over: %s", c->path, line, name, words);
    str_printf(&c->lost, "%s%s", c->lost.n ? ", " : "", name);
}
// A field that the file has, with the table's words; nothing where it has none, for a default of TRL's is none's wish.
static void lose_field(Carrying *c, const char *name) {
    int i = field_index(name);
    if (c->given[i].line) lose(c, c->given[i].line, name, trl_fields[i].words);
}

// ---- reading ---------------------------------------------------------------------------------------------------------

static void take_items(Given *g, YamlReader *y, Node *node) {
    while ((*node = yaml_next(y)).kind != NODE_END && node->kind != NODE_BAD) {
        if (node->kind == NODE_SCALAR) list_add(&g->items, node->text, strlen(node->text));
        else {
            g->nested = true;
            *node = yaml_skip(y, *node);
            if (node->kind == NODE_BAD) return;
        }
    }
}

// The next value of the reader into *g. False where reading must stop.
static bool take_value(Given *g, YamlReader *y, Node *node) {
    *node = yaml_next(y);
    g->line = node->line;
    if (node->kind == NODE_SCALAR) g->text = xstrndup(node->text, strlen(node->text));
    else if (node->kind == NODE_LIST) take_items(g, y, node);
    else if (node->kind == NODE_MAP) {
        g->nested = true;
        *node = yaml_skip(y, *node);
    }
    return node->kind != NODE_BAD;
}

static void given_clear(Given *g) {
    free(g->text);
    list_clear(&g->items);
    *g = (Given){0};
}

static void lose_unknown(Carrying *c, int line, const char *name) {
    const char *names[FIELDS];
    for (int i = 0; i < FIELDS; i++) names[i] = trl_fields[i].name;
    const char *near = nearest_name(name, names, FIELDS);
    char *words = xasprintf("TRL 1.16's GRPOConfig has no such field%s%s%s", near ? "; did you mean `" : "",
                            near ? near : "", near ? "`?" : "");
    lose(c, line, name, words);
    free(words);
}

static bool read_fields(Carrying *c, YamlReader *y, Error *e) {
    Node node = yaml_next(y);
    if (node.kind != NODE_MAP && node.kind != NODE_BAD)
        return error_set(e, EXIT_CONFIG, "%s: not a configuration of TRL's, which is a map of fields (YAML or JSON)",
                         c->path);
    while (node.kind != NODE_BAD && (node = yaml_next(y)).kind == NODE_SCALAR) {
        int i = 0;
        while (i < FIELDS && strcmp(trl_fields[i].name, node.text)) i++;
        if (i < FIELDS && c->given[i].line)
            return error_set(e, EXIT_CONFIG, "%s:%d: `%s` is given twice; first on line %d", c->path, node.line,
                             trl_fields[i].name, c->given[i].line);
        Given unknown = {0};
        if (i == FIELDS) lose_unknown(c, node.line, node.text);
        bool good = take_value(i < FIELDS ? &c->given[i] : &unknown, y, &node);
        given_clear(&unknown);
        if (!good) break;
    }
    if (node.kind == NODE_END) node = yaml_next(y);
    return node.kind != NODE_BAD || error_set(e, EXIT_CONFIG, "%s:%d: %s", c->path, node.line, node.text);
}

// ---- values that change on their way ---------------------------------------------------------------------------------

// `text` where it is a whole number of at least 1 ("10", "10.0"), else NULL. Heap.
static char *whole(const char *text) {
    char *end;
    double x = text ? strtod(text, &end) : 0;
    return text && !*end && x >= 1 && x < 1e15 && x == (double)(int64_t)x ? xasprintf("%lld", (long long)x) : NULL;
}

// An option that is a number of steps, where `strategy` counts steps; 0 where it says no.
static void turn_steps(Carrying *c, const char *option, const char *strategy, const char *steps, bool may_be_off) {
    const char *how = value_of(c, strategy);
    char *n = whole(value_of(c, steps));
    if (how && is_false(how) && may_be_off) carry(c, option, "0");
    else if (how && strcmp(how, "steps")) lose_field(c, strategy);
    else if (n) carry(c, option, n);
    else lose_field(c, steps);
    free(n);
}

static void turn_schedule(Carrying *c) {
    const char *type = value_of(c, "lr_scheduler_type"), *warmup = value_of(c, "warmup_steps");
    if (type && !strcmp(type, "constant_with_warmup")) carry(c, "lr_scheduler_type", "constant");
    else if (type && (!strcmp(type, "cosine") || !strcmp(type, "linear") || !strcmp(type, "constant")))
        carry(c, "lr_scheduler_type", type);
    else lose_field(c, "lr_scheduler_type");
    char *n = whole(warmup);
    if (n) carry(c, "warmup_steps", n);
    else if (warmup && strtod(warmup, NULL) > 0) carry(c, "warmup_ratio", warmup);
    free(n);
}

static void turn_generation(Carrying *c) {
    const char *batch = value_of(c, "generation_batch_size"), *steps = value_of(c, "steps_per_generation");
    int64_t size = batch ? strtoll(batch, NULL, 10) : 0;
    const char *per_device = value_of(c, "per_device_train_batch_size");
    int64_t micro = per_device ? strtoll(per_device, NULL, 10) : 0;
    if (!size) carry(c, "steps_per_generation", steps ? steps : "0");
    else if (micro < 1 || size % micro) lose_field(c, "generation_batch_size");
    else {
        char *n = xasprintf("%lld", (long long)(size / micro)); // of one rank
        carry(c, "steps_per_generation", n);
        free(n);
    }
}

// The name of ours that a reward function of TRL's or Open R1's has, or NULL. Heap.
static char *reward_named(const char *trl) {
    const char *dot = strrchr(trl, '.'), *name = dot ? dot + 1 : trl;
    size_t n = strlen(name);
    char *tries[] = {xstrdup(name), n > 7 && !strcmp(name + n - 7, "_reward") ? xstrndup(name, n - 7) : NULL,
                     !strcmp(name, "get_soft_overlong_punishment") ? xstrdup("soft_overlong:max_len=1280,cache=256")
                                                                   : NULL};
    char *found = NULL;
    for (int i = 0; i < 3; i++) {
        Reward r;
        Error e = {0};
        if (tries[i] && !found && reward_parse(tries[i], &r, &e)) found = tries[i];
        else free(tries[i]);
    }
    return found;
}

static void turn_rewards(Carrying *c) {
    const Given *names = given(c, "reward_funcs"), *weights = given(c, "reward_weights");
    const TextList *list = &names->items, *weight = &weights->items;
    TextList one = {.item = (char **)&names->text, .n = 1};
    if (names->text && value_of(c, "reward_funcs")) list = &one;
    if (list->n) { // one that is not there takes its weight with it
        Str all = {0};
        for (int i = 0; i < list->n; i++) {
            char *ours = reward_named(list->item[i]);
            if (!ours) {
                char *words = xasprintf("no reward is called %s; %s", list->item[i],
                                        trl_fields[field_index("reward_funcs")].words);
                lose(c, names->line, "reward_funcs", words);
                free(words);
                continue;
            }
            str_printf(&all, "%s%s", all.n ? "," : "", ours);
            if (i < weight->n) str_printf(&all, "%cweight=%s", strchr(ours, ':') ? ',' : ':', weight->item[i]);
            free(ours);
        }
        if (all.n) carry(c, "rewards", all.s);
        str_free(&all);
    }
    if (weight->n && weight->n != list->n) lose_field(c, "reward_weights");
}

static void turn_number(Carrying *c, const char *name, const char *none) {
    const char *text = value_of(c, name);
    carry(c, name, text ? text : none);
}

// All that TRL_TURNED stands for.
static void turn(Carrying *c) {
    turn_schedule(c);
    turn_generation(c);
    turn_rewards(c);
    turn_number(c, "min_p", "0");
    turn_number(c, "delta", "0");
    turn_number(c, "epsilon_high", "-1");
    turn_number(c, "off_policy_mask_threshold", "0");
    turn_number(c, "save_total_limit", "1000000");
    turn_steps(c, "logging_steps", "logging_strategy", "logging_steps", false);
    turn_steps(c, "save_steps", "save_strategy", "save_steps", true);
    // An evaluation every so many steps; as often as the log where that is not said.
    const char *eval = value_of(c, "eval_strategy");
    bool said = value_of(c, "eval_steps") != NULL;
    if (eval && !is_false(eval))
        turn_steps(c, "eval_steps", "eval_strategy", said ? "eval_steps" : "logging_steps", true);
    const char *scale = value_of(c, "scale_rewards"), *steps = value_of(c, "max_steps"), *bf16 = value_of(c, "bf16");
    carry(c, "scale_rewards", is_true(scale) ? "group" : is_false(scale) ? "none" : scale ? scale : "none");
    carry(c, "max_steps", steps && strtod(steps, NULL) > 0 ? steps : "0");
    carry(c, "dtype", is_false(bf16) ? "f32" : "bf16");
    if (is_true(value_of(c, "use_cpu"))) carry(c, "device", "cpu");
    const char *optim = value_of(c, "optim");
    if (!optim || strncmp(optim, "adamw", 5) || strstr(optim, "8bit")) lose_field(c, "optim");
    const char *prompt = value_of(c, "max_prompt_length");
    carry(c, "max_prompt_length", prompt ? prompt : "2048");
    if (!prompt) carry(c, "long_prompts", "fail");
}

// Whether what the file says is what TRL does anyway.
static bool is_default(const Given *g, const TrlField *f) {
    if (g->nested || g->items.n) return false;
    const char *text = g->text ? g->text : "";
    bool none = !strcmp(f->value, "null") || !strcmp(f->value, "none") || !strcmp(f->value, "[]");
    if (none &&
        (!*text || is_false(text) || !strcasecmp(text, "null") || !strcasecmp(text, "none") || !strcmp(text, "~")))
        return true;
    char *end, *end_of_default;
    double x = strtod(text, &end), y = strtod(f->value, &end_of_default);
    bool numbers = *text && !*end && !*end_of_default;
    return !strcasecmp(text, f->value) || (is_false(text) && is_false(f->value)) || (numbers && x == y);
}

static void carry_fields(Carrying *c) {
    for (int i = 0; i < FIELDS; i++) {
        const TrlField *f = &trl_fields[i];
        const Given *g = &c->given[i];
        bool carried = f->how == TRL_SAME || f->how == TRL_NAMED;
        if (carried && (g->nested || g->items.n)) lose(c, g->line, f->name, "one value is wanted, not a list or map");
        else if (carried && value_of(c, f->name)) {
            bool text = is_true(value_of(c, f->name)) || is_false(value_of(c, f->name)); // True, yes
            carry(c, f->ours, text ? is_true(value_of(c, f->name)) ? "true" : "false" : value_of(c, f->name));
        } else if (!carried && f->how != TRL_TURNED && g->line && !is_default(g, f)) lose_field(c, f->name);
    }
    turn(c);
}

// ---- what comes of it ------------------------------------------------------------------------------------------------

// Options in the table's order, those that were carried.
static char *carried_yaml(const Carrying *c, const Config *config) {
    Str s = {0};
    str_printf(&s, "# From a configuration of TRL's; what it does not say is as TRL 1.16 has it.\n");
    for (int i = 0; i < config_option_count; i++) {
        size_t n = strlen(config_options[i].name);
        bool wanted = false;
        for (int k = 0; k < c->override.n && !wanted; k++)
            wanted = !strncmp(c->override.item[k], config_options[i].name, n) && c->override.item[k][n] == '=';
        if (!wanted) continue;
        str_printf(&s, "%s: ", config_options[i].name);
        config_put_value(&s, config, &config_options[i]);
        str_puts(&s, "\n");
    }
    if (c->lost.n) str_printf(&s, "# Not carried over (the notes say why): %s\n", c->lost.s);
    return s.s;
}

char *config_from_trl(const char *path, Error *e) {
    size_t n;
    char *text = file_read(path, YAML_MAX_BYTES, &n, e), *out = NULL;
    if (!text) return NULL;
    Carrying *c = xcalloc(1, sizeof *c);
    c->path = path;
    YamlReader *y = yaml_open(text, n);
    if (read_fields(c, y, e)) {
        carry_fields(c);
        Config config;
        if (config_read(&config, NULL, c->override.item, c->override.n, e)) {
            out = carried_yaml(c, &config);
            config_free(&config);
        } else error_prefix(e, "%s", path);
    }
    yaml_close(y);
    for (int i = 0; i < FIELDS; i++) given_clear(&c->given[i]);
    list_clear(&c->override);
    str_free(&c->lost);
    free(c);
    free(text);
    return out;
}

void trl_table(Str *out) {
    static const char *const source[] = {"", " (earlier)", " (scripts)"};
    str_puts(out,
             "\n## Coming from TRL\n\n"
             "Every field of TRL 1.16's `GRPOConfig`, some of earlier versions, and those of its scripts. `grpo config "
             "--from-trl FILE` reads a\nYAML or JSON file of them, prints ours, and names what it could not carry "
             "over.\n\n| field | TRL's default | here |\n|---|---|---|\n");
    for (int i = 0; i < FIELDS; i++) {
        const TrlField *f = &trl_fields[i];
        str_printf(out, "| `%s`%s | `%s` | ", f->name, source[f->source], f->value);
        if (f->how == TRL_SAME) str_puts(out, "the same");
        if (f->how == TRL_NAMED) str_printf(out, "`%s`", f->ours);
        if (f->how == TRL_TURNED && *f->ours) str_printf(out, "`%s`: ", f->ours);
        if (f->how == TRL_NEEDLESS) str_puts(out, "not needed: ");
        if (f->how == TRL_ABSENT) str_puts(out, "not there: ");
        str_printf(out, "%s |\n", f->words);
    }
}
