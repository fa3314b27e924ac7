// Turning a configuration of TRL's into one of ours: `grpo config --from-trl FILE`.
//
// A field that the file leaves out has TRL's default; a JSON file is YAML too. Values are kept as text and become
// settings, which the option table reads and checks as if a user had written them on that line.
#include "trl.h"
#include "config_table.h"
#include "file.h"
#include "nearest.h"
#include "reward.h"
#include "trl_fields.h"
#include "yaml_reader.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TRL_ROW(source, name, value, how, ours, words) {TRL_##source, #name, value, TRL_##how, ours, words},
const TrlField trl_fields[] = {TRL_FIELDS(TRL_ROW)};
enum { FIELDS = sizeof trl_fields / sizeof *trl_fields };
const int trl_field_count = FIELDS;

// The value of a field in the file.
typedef struct {
    int line;       // 0: the file does not have the field
    char *text;     // the text of a scalar; else NULL
    bool plain;     // whether the scalar is unquoted
    bool cut;       // whether it has a NUL character
    bool list, map; // whether it is a list or a map
    TextList items; // the items of a list of scalars
    bool nested;    // whether it is a list of more than scalars
} Given;

typedef struct {
    const char *path;
    Given given[FIELDS];
    Str lost;     // names of the fields that could not be carried over
    Setting *set; // [n_set] options; a later one replaces an earlier; values on the heap
    int n_set;
    Reading problems; // why TRL would refuse the file, or we must
} Carrying;

#define problem(c, line, ...) problem_at_line(&(c)->problems, line, __VA_ARGS__)

static int field_index(const char *name) {
    const TrlField *f = trl_field(name);
    if (!f) die("trl_fields has no %s", name);
    return (int)(f - trl_fields);
}
static Given *given(Carrying *c, const char *name) { return &c->given[field_index(name)]; }
static int line_of(Carrying *c, const char *name) { return given(c, name)->line; }

static bool is_true(const char *text) {
    static const char *const words[] = {"true", "yes", "on", "t", "y", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(text, words[i])) return true;
    return false;
}
static bool is_false(const char *text) {
    static const char *const words[] = {"false", "no", "off", "f", "n", "0"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(text, words[i])) return true;
    return false;
}

// Whether the file says null, as YAML and JSON write it; where no text is wanted, also as Python's None.
static bool is_null(const Given *g, bool text_wanted) {
    if (!g->text || (!g->plain && text_wanted)) return false;
    if (g->plain && (!*g->text || !strcmp(g->text, "~"))) return true;
    return !strcasecmp(g->text, "null") || (!text_wanted && !strcasecmp(g->text, "none"));
}

// The value of a field as text: the file's, or TRL's default; NULL for None.
static const char *value_of(Carrying *c, const char *name) {
    const TrlField *f = &trl_fields[field_index(name)];
    const Given *g = given(c, name);
    if (g->line) return is_null(g, strcmp(f->value, "null") != 0) ? NULL : g->text;
    return strcmp(f->value, "null") ? f->value : NULL;
}
static bool flag_of(Carrying *c, const char *name) {
    const char *text = value_of(c, name);
    return text && is_true(text);
}
static double number_of(Carrying *c, const char *name, double none) {
    const char *text = value_of(c, name);
    return text ? strtod(text, NULL) : none;
}

static void carry(Carrying *c, const char *option, const char *value, int line) {
    c->set = xrealloc(c->set, (size_t)(c->n_set + 1) * sizeof *c->set);
    c->set[c->n_set++] = (Setting){option, xstrdup(value), line};
}
static void carry_number(Carrying *c, const char *option, double value, int line) {
    Str s = {0};
    if (value == floor(value) && fabs(value) < 1e15) str_printf(&s, "%.0f", value);
    else str_real(&s, value);
    carry(c, option, s.s, line);
    str_free(&s);
}

static void lose(Carrying *c, int line, const char *name, const char *words) {
    Str shown = {0}; // on one line, whatever the file calls it
    if (!*name || strpbrk(name, " \t\r\n,")) str_json(&shown, name, strlen(name));
    else str_visible(&shown, name, strlen(name));
    note("%s:%d: %s is not carried over: %s", c->path, line, shown.s, words);
    str_printf(&c->lost, "%s%s", c->lost.n ? ", " : "", shown.s);
    str_free(&shown);
}
// Reports that a field cannot be carried over, in the table's words; but only if the file has it, as nobody asked for a
// default.
static void lose_field(Carrying *c, const char *name) {
    int i = field_index(name);
    if (c->given[i].line) lose(c, c->given[i].line, name, trl_fields[i].words);
}

// ---- reading --------------------------------------------------------------------------------------------------------

static void take_items(Given *g, YamlReader *y, YamlNode *node) {
    while ((*node = yaml_next(y)).kind != YAML_END && node->kind != YAML_BAD) {
        if (node->kind == YAML_SCALAR) list_add(&g->items, node->text, strlen(node->text));
        else {
            g->nested = true;
            *node = yaml_skip(y, *node);
            if (node->kind == YAML_BAD) return;
        }
    }
}

// Reads the next value into *g. False where reading must stop.
static bool take_value(Given *g, YamlReader *y, YamlNode *node) {
    *node = yaml_next(y);
    g->line = node->line;
    g->plain = node->plain;
    g->list = node->kind == YAML_LIST, g->map = node->kind == YAML_MAP;
    g->cut = node->kind == YAML_SCALAR && strlen(node->text) != node->n;
    if (node->kind == YAML_SCALAR) g->text = xstrdup(node->text);
    else if (g->list) take_items(g, y, node);
    else if (g->map) {
        *node = yaml_skip(y, *node);
    }
    return node->kind != YAML_BAD;
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
    YamlNode node = yaml_next(y);
    if (node.kind != YAML_MAP && node.kind != YAML_BAD)
        return error_set(e, EXIT_CONFIG, "%s: not a configuration of TRL's, which is a map of fields (YAML or JSON)",
                         c->path);
    while (node.kind != YAML_BAD && (node = yaml_next(y)).kind == YAML_SCALAR) {
        int i = 0;
        while (i < FIELDS && strcmp(trl_fields[i].name, node.text)) i++;
        if (i < FIELDS && c->given[i].line)
            problem(c, node.line, "`%s` is given twice; first on line %d", trl_fields[i].name, c->given[i].line);
        Given unknown = {0};
        bool again = i < FIELDS && c->given[i].line;
        if (i == FIELDS) lose_unknown(c, node.line, node.text);
        bool good = take_value(i < FIELDS && !again ? &c->given[i] : &unknown, y, &node);
        given_clear(&unknown);
        if (!good) break;
    }
    if (node.kind == YAML_END) node = yaml_next(y);
    return node.kind != YAML_BAD || error_set(e, EXIT_CONFIG, "%s:%d: %s", c->path, node.line, node.text);
}

// ---- types ----------------------------------------------------------------------------------------------------------

typedef enum { WANT_FLAG, WANT_WHOLE, WANT_NUMBER, WANT_WORD, WANT_WORDS, WANT_NUMBERS } Want;
static const char *const want_words[] = {"true or false", "a whole number",  "a number",
                                         "a word",        "a list of names", "a list of numbers"};

// The type that TRL declares for a field that is converted; fields that are carried over as they are have their
// option's kind.
static Want field_want(const TrlField *f) {
    static const struct {
        const char *name;
        Want want;
    } turned[] = {{"output_dir", WANT_WORD},
                  {"max_steps", WANT_WHOLE},
                  {"lr_scheduler_type", WANT_WORD},
                  {"warmup_steps", WANT_NUMBER},
                  {"optim", WANT_WORD},
                  {"bf16", WANT_FLAG},
                  {"logging_strategy", WANT_WORD},
                  {"logging_steps", WANT_NUMBER},
                  {"eval_strategy", WANT_WORD},
                  {"eval_steps", WANT_NUMBER},
                  {"save_strategy", WANT_WORD},
                  {"save_steps", WANT_NUMBER},
                  {"save_total_limit", WANT_WHOLE},
                  {"use_cpu", WANT_FLAG},
                  {"generation_batch_size", WANT_WHOLE},
                  {"steps_per_generation", WANT_WHOLE},
                  {"top_k", WANT_WHOLE},
                  {"min_p", WANT_NUMBER},
                  {"delta", WANT_NUMBER},
                  {"epsilon_high", WANT_NUMBER},
                  {"reward_weights", WANT_NUMBERS},
                  {"scale_rewards", WANT_WORD},
                  {"off_policy_mask_threshold", WANT_NUMBER},
                  {"max_prompt_length", WANT_WHOLE},
                  {"reward_funcs", WANT_WORDS},
                  {"report_to", WANT_WORDS},
                  {"use_peft", WANT_FLAG},
                  {"lora_r", WANT_WHOLE},
                  {"lora_alpha", WANT_WHOLE},
                  {"lora_dropout", WANT_NUMBER},
                  {"lora_target_modules", WANT_WORDS},
                  {"use_rslora", WANT_FLAG}};
    for (size_t i = 0; i < sizeof turned / sizeof *turned; i++)
        if (!strcmp(f->name, turned[i].name)) return turned[i].want;
    static const Want of_kind[] = {
        [KIND_BOOL] = WANT_FLAG,  [KIND_INT] = WANT_WHOLE, [KIND_REAL] = WANT_NUMBER, [KIND_TEXT] = WANT_WORD,
        [KIND_LIST] = WANT_WORDS, [KIND_PICK] = WANT_WORD, [KIND_FILES] = WANT_WORD};
    if (f->how == TRL_TURNED) die("trl: no type of %s", f->name);
    return of_kind[config_options[option_known(f->ours)].kind];
}

static bool is_number(const char *text) {
    char *end;
    return *text && !text[strspn(text, "+-.0123456789eE")] && isfinite(strtod(text, &end)) && end > text && !*end;
}
// Whether a text is a whole number: "10", and "10.0" too.
static bool is_whole(const char *text) {
    double x = is_number(text) ? strtod(text, NULL) : 0.5;
    return x == floor(x) && fabs(x) < 9e15;
}

static bool fits(const Given *g, Want want) {
    bool scalar = g->text && !g->cut;
    switch (want) {
    case WANT_FLAG: return scalar && (is_true(g->text) || is_false(g->text));
    case WANT_WHOLE: return scalar && is_whole(g->text);
    case WANT_NUMBER: return scalar && is_number(g->text);
    case WANT_WORD: return scalar && *g->text;
    case WANT_WORDS:
    case WANT_NUMBERS: break;
    }
    if (want == WANT_WORDS && scalar) return *g->text;
    bool good = g->list && !g->nested;
    for (int i = 0; i < g->items.n && good; i++)
        good = want == WANT_WORDS ? *g->items.item[i] : is_number(g->items.item[i]);
    return good;
}

// Reports a value that TRL's type does not allow. None is allowed where TRL's default is None, and counts as false for
// a flag.
static void check_type(Carrying *c, const TrlField *f) {
    const Given *g = given(c, f->name);
    if (!g->line || (f->how != TRL_SAME && f->how != TRL_NAMED && f->how != TRL_TURNED)) return;
    Want want = field_want(f);
    bool null = is_null(g, want == WANT_WORD), may_be_null = !strcmp(f->value, "null") || want == WANT_FLAG;
    if (null ? may_be_null : fits(g, want)) return;
    if (null)
        problem(c, g->line, "%s wants %s, not null; leave the line out for TRL's default, %s", f->name,
                want_words[want], f->value);
    else if (g->map || g->list)
        problem(c, g->line, "%s wants %s, not %s", f->name, want_words[want],
                g->map              ? "a map"
                : want < WANT_WORDS ? "a list"
                                    : "what is in this one");
    else if (g->cut) problem(c, g->line, "%s contains a NUL character", f->name);
    else problem(c, g->line, "%s wants %s, not `%.60s`", f->name, want_words[want], g->text);
}

// ---- values that change on their way --------------------------------------------------------------------------------

static bool is_one_of(const char *word, const char *const *names) {
    while (*names && strcmp(word, *names)) names++;
    return *names;
}

// The word of a field; NULL, after adding a problem, where it is none of `names`, which are all that TRL has.
static const char *word_of(Carrying *c, const char *field, const char *const *names, const char *listed) {
    const char *word = value_of(c, field);
    if (is_false(word)) word = "no"; // as YAML reads a bare `no`
    if (is_one_of(word, names)) return word;
    problem(c, line_of(c, field), "%s wants one of %s, not `%.60s`", field, listed, word);
    return NULL;
}

// Carries over an option that is a number of steps, if the field `strategy` says "steps"; 0 if it says "no".
static void turn_steps(Carrying *c, const char *option, const char *strategy, bool may_be_off) {
    static const char *const names[] = {"no", "steps", "epoch", "best", NULL};
    const char *how = word_of(c, strategy, names, may_be_off ? "no, steps, epoch and best" : "no, steps and epoch");
    double steps = number_of(c, option, 0);
    int line = line_of(c, option);
    if (!how) return;
    if (!strcmp(how, "no") && may_be_off) carry(c, option, "0", line_of(c, strategy));
    else if (strcmp(how, "steps")) lose_field(c, strategy);
    else if (steps <= 0 && !may_be_off) problem(c, line, "%s is %g; TRL wants more than 0 of them", option, steps);
    else if (steps > 1 && steps != floor(steps))
        problem(c, line, "%s is %g; TRL wants a whole number above 1, or a share of all steps", option, steps);
    else if (steps > 0 && steps < 1) lose_field(c, option);
    else carry_number(c, option, steps > 0 ? steps : 0, line);
}

// Carries over when to evaluate. Without an eval_file, which TRL's files do not name, there is no evaluation.
static void turn_eval(Carrying *c) {
    static const char *const names[] = {"no", "steps", "epoch", NULL};
    const char *how = word_of(c, "eval_strategy", names, "no, steps and epoch");
    if (!how || !strcmp(how, "no")) return;
    double steps = number_of(c, "eval_steps", 0);
    if (steps == 0) steps = number_of(c, "logging_steps", 0); // as TRL
    if (steps < 0) problem(c, line_of(c, "eval_steps"), "eval_steps is %g; TRL wants more than 0 of them", steps);
    else if (strcmp(how, "steps") || steps != floor(steps)) lose_field(c, "eval_strategy");
    else {
        char *words = xasprintf("write eval_file, the test split as JSONL, and eval_steps: %.0f", steps);
        lose(c, line_of(c, "eval_strategy"), "eval_strategy", words);
        free(words);
    }
}

static void turn_schedule(Carrying *c) {
    static const char *const ours[] = {"cosine", "linear", "constant", "constant_with_warmup", NULL};
    static const char *const others[] = {"cosine_with_restarts",
                                         "polynomial",
                                         "inverse_sqrt",
                                         "reduce_lr_on_plateau",
                                         "cosine_with_min_lr",
                                         "cosine_warmup_with_min_lr",
                                         "warmup_stable_decay",
                                         "greedy",
                                         NULL};
    const char *type = value_of(c, "lr_scheduler_type");
    int line = line_of(c, "lr_scheduler_type"), at = line_of(c, "warmup_steps");
    if (is_one_of(type, ours)) carry(c, "lr_scheduler_type", strncmp(type, "constant", 8) ? type : "constant", line);
    else if (is_one_of(type, others)) lose_field(c, "lr_scheduler_type");
    else problem(c, line, "lr_scheduler_type: transformers has no schedule `%.60s`", type);
    double steps = number_of(c, "warmup_steps", 0), share = number_of(c, "warmup_ratio", 0);
    if (steps < 0) problem(c, at, "warmup_steps is %g; TRL wants 0 or more", steps);
    else if (!strcmp(type, "constant")) { // TRL's has no warm-up
        carry(c, "warmup_steps", "0", at), carry(c, "warmup_ratio", "0", at);
        if (steps > 0)
            lose(c, at, "warmup_steps", "lr_scheduler_type constant has no warm-up; constant_with_warmup has");
        if (share > 0)
            lose(c, line_of(c, "warmup_ratio"), "warmup_ratio",
                 "lr_scheduler_type constant has no warm-up; constant_with_warmup has");
    } else if (steps >= 1) carry_number(c, "warmup_steps", floor(steps), at);
    else if (steps > 0) carry_number(c, "warmup_ratio", steps, at);
}

static void turn_generation(Carrying *c) {
    const char *batch = value_of(c, "generation_batch_size"), *steps = value_of(c, "steps_per_generation");
    int batch_line = line_of(c, "generation_batch_size"), steps_line = line_of(c, "steps_per_generation");
    double size = number_of(c, "generation_batch_size", 0), micro = number_of(c, "per_device_train_batch_size", 0);
    if (batch && steps)
        problem(c, batch_line > steps_line ? batch_line : steps_line,
                "generation_batch_size and steps_per_generation are both set; TRL takes one of them");
    else if (steps && number_of(c, "steps_per_generation", 0) < 1)
        problem(c, steps_line, "steps_per_generation is %s; 1 is the least", steps);
    else if (!batch) carry_number(c, "steps_per_generation", number_of(c, "steps_per_generation", 0), steps_line);
    else if (micro < 1 || size < 1 || fmod(size, micro) != 0)
        problem(c, batch_line, "generation_batch_size (%.0f) is not a multiple of per_device_train_batch_size (%.0f)",
                size, micro);
    else carry_number(c, "steps_per_generation", size / micro, batch_line);
}

// Our name for a reward function of TRL or Open R1, or NULL. Heap memory.
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

// The weights of TRL's rewards, of which a reward model is the first. NULL: all are 1.
static char **reward_weights(Carrying *c, int rewards) {
    const Given *weights = given(c, "reward_weights");
    int models = value_of(c, "reward_model_name_or_path") != NULL;
    if (!weights->list) return NULL;
    if (!rewards) lose_field(c, "reward_weights");
    else if (weights->items.n == rewards + models) return weights->items.item + models;
    else
        problem(c, weights->line, "reward_weights: %d for %d rewards; TRL wants one for each", weights->items.n,
                rewards + models);
    return NULL;
}

static void turn_rewards(Carrying *c) {
    const Given *names = given(c, "reward_funcs");
    TextList one = {.item = (char **)&names->text, .n = value_of(c, "reward_funcs") != NULL};
    const TextList *list = names->text ? &one : &names->items;
    char **weight = reward_weights(c, list->n);
    Str all = {0};
    for (int i = 0; i < list->n; i++) { // a reward that we lack is dropped with its weight
        char *ours = reward_named(list->item[i]);
        if (ours) {
            str_printf(&all, "%s%s", all.n ? "," : "", ours);
            if (weight) str_printf(&all, "%cweight=%s", strchr(ours, ':') ? ',' : ':', weight[i]);
        } else {
            char *words =
                xasprintf("no reward is called %s; %s", list->item[i], trl_fields[field_index("reward_funcs")].words);
            lose(c, names->line, "reward_funcs", words);
            free(words);
        }
        free(ours);
    }
    if (all.n) carry(c, "rewards", all.s, names->line);
    str_free(&all);
}

// Carries over a number for which None in TRL is `none` here; a value below 0 means something else to TRL.
static void turn_number(Carrying *c, const char *name, double none) {
    double x = number_of(c, name, none);
    if (value_of(c, name) && x < 0) problem(c, line_of(c, name), "%s is %g; 0 is the least here", name, x);
    else carry_number(c, name, x, line_of(c, name));
}

static void turn_scale(Carrying *c) {
    static const char *const names[] = {"group", "batch", "none", NULL};
    const char *scale = value_of(c, "scale_rewards"), *order = value_of(c, "multi_objective_aggregation");
    int line = line_of(c, "scale_rewards");
    if (is_true(scale)) scale = "group";
    if (is_false(scale)) scale = "none";
    if (!is_one_of(scale, names))
        problem(c, line, "scale_rewards wants true, false, group, batch or none, not `%.60s`", scale);
    else if (!strcmp(order, "normalize_then_sum")) {
        if (strcmp(scale, "group"))
            lose(c, line, "scale_rewards", "normalize_then_sum takes no notice of it, as in TRL");
    } else carry(c, "scale_rewards", scale, line);
}

static void turn_types(Carrying *c) {
    bool fp16 = given(c, "fp16")->text && is_true(given(c, "fp16")->text), bf16 = flag_of(c, "bf16");
    int line = line_of(c, "bf16"), other = line_of(c, "fp16");
    if (fp16 && bf16) problem(c, line > other ? line : other, "fp16 and bf16 are both true; TRL takes one of them");
    carry(c, "dtype", bf16 || !value_of(c, "bf16") ? "bf16" : "f32", line);
    if (flag_of(c, "use_cpu")) carry(c, "device", "cpu", line_of(c, "use_cpu"));
    const char *optim = value_of(c, "optim");
    if (strncmp(optim, "adamw", 5) || strstr(optim, "8bit")) lose_field(c, "optim");
}

// Carries over report_to. TensorBoard is supported; "all" means to TRL those that are installed.
static void turn_report(Carrying *c) {
    const Given *names = given(c, "report_to");
    TextList one = {.item = (char **)&names->text, .n = value_of(c, "report_to") && names->text};
    const TextList *list = names->text ? &one : &names->items;
    bool board = false, other = false;
    for (int i = 0; i < list->n; i++) {
        bool here = !strcmp(list->item[i], "tensorboard") || !strcmp(list->item[i], "all");
        board = board || here;
        other = other || (!here && strcmp(list->item[i], "none"));
    }
    if (board) carry(c, "report_to", "tensorboard", names->line);
    if (other) lose_field(c, "report_to");
}

// Carries over the adapter that TRL's scripts make where use_peft is true.
static void turn_lora(Carrying *c) {
    const Given *targets = given(c, "lora_target_modules");
    const char *one = value_of(c, "lora_target_modules");
    int line = line_of(c, "use_peft"), dropout = line_of(c, "lora_dropout");
    if (!flag_of(c, "use_peft")) return;
    Str all = {0};
    for (int i = 0; i < targets->items.n; i++) str_printf(&all, "%s%s", i ? "," : "", targets->items.item[i]);
    carry_number(c, "lora_r", number_of(c, "lora_r", 0), line_of(c, "lora_r"));
    carry_number(c, "lora_alpha", number_of(c, "lora_alpha", 0), line_of(c, "lora_alpha"));
    carry(c, "use_rslora", flag_of(c, "use_rslora") ? "true" : "false", line_of(c, "use_rslora"));
    carry(c, "lora_target", all.n ? all.s : one ? one : "q_proj,v_proj", targets->line); // PEFT's, of these families
    if (number_of(c, "lora_dropout", 0) != 0)
        lose(c, dropout ? dropout : line, "lora_dropout", trl_fields[field_index("lora_dropout")].words);
    str_free(&all);
}

// Converts all fields of kind TRL_TURNED.
static void turn(Carrying *c) {
    const char *dir = value_of(c, "output_dir"), *prompt = value_of(c, "max_prompt_length");
    carry(c, "output_dir", dir ? dir : "trainer_output", line_of(c, "output_dir"));
    turn_schedule(c);
    turn_generation(c);
    turn_rewards(c);
    turn_scale(c);
    turn_types(c);
    turn_number(c, "min_p", 0);
    turn_number(c, "delta", -1);
    bool cap = !strcmp(value_of(c, "loss_type"), "cispo"); // which has no other way to say `as epsilon`
    turn_number(c, "epsilon_high", cap ? number_of(c, "epsilon", 0) : -1);
    turn_number(c, "off_policy_mask_threshold", -1);
    turn_number(c, "save_total_limit", 1000000);
    double top_k = number_of(c, "top_k", 0), max_steps = number_of(c, "max_steps", 0);
    carry_number(c, "top_k", top_k == -1 ? 0 : top_k, line_of(c, "top_k"));
    carry_number(c, "max_steps", max_steps > 0 ? max_steps : 0, line_of(c, "max_steps"));
    turn_steps(c, "logging_steps", "logging_strategy", false);
    turn_steps(c, "save_steps", "save_strategy", true);
    turn_eval(c);
    turn_report(c);
    turn_lora(c);
    carry(c, "max_prompt_length", prompt ? prompt : "2048", line_of(c, "max_prompt_length"));
    if (!prompt) carry(c, "long_prompts", "fail", 0);
}

// Whether the file's value is TRL's default.
static bool is_default(const Given *g, const TrlField *f) {
    if (g->map || g->nested || g->items.n) return false;
    const char *text = g->text ? g->text : "";
    bool none = !strcmp(f->value, "null") || !strcmp(f->value, "none") || !strcmp(f->value, "[]");
    if (none && (!*text || is_false(text) || is_null(g, false))) return true;
    char *end, *end_of_default;
    double x = strtod(text, &end), y = strtod(f->value, &end_of_default);
    bool numbers = *text && !*end && !*end_of_default;
    return !strcasecmp(text, f->value) || (is_false(text) && is_false(f->value)) || (numbers && x == y);
}

// Carries over a field to the option of the same name and kind.
static void carry_as_is(Carrying *c, const TrlField *f) {
    const char *text = value_of(c, f->name);
    int line = line_of(c, f->name);
    Want want = field_want(f);
    if (want == WANT_FLAG) carry(c, f->ours, text && is_true(text) ? "true" : "false", line);
    else if (text && want == WANT_WHOLE) carry_number(c, f->ours, strtod(text, NULL), line);
    else if (text) carry(c, f->ours, text, line);
}

// Carries over all fields; false where there are problems.
static bool carry_fields(Carrying *c) {
    for (int i = 0; i < FIELDS; i++) check_type(c, &trl_fields[i]);
    for (int i = 0; i < FIELDS && !c->problems.problem_count; i++) {
        const TrlField *f = &trl_fields[i];
        const Given *g = &c->given[i];
        if (f->how == TRL_SAME || f->how == TRL_NAMED) carry_as_is(c, f);
        else if (f->how != TRL_TURNED && g->line && !is_default(g, f)) lose_field(c, f->name);
    }
    if (!c->problems.problem_count) turn(c);
    return !c->problems.problem_count;
}

// ---- what comes of it -----------------------------------------------------------------------------------------------

// The options that were carried over, as YAML, in the order of the option table.
static char *carried_yaml(const Carrying *c, const Config *config) {
    Str s = {0};
    str_printf(&s, "# From a configuration of TRL's; what it does not say is as TRL 1.16 has it.\n");
    for (int i = 0; i < OPTION_COUNT; i++) {
        bool wanted = false;
        for (int k = 0; k < c->n_set && !wanted; k++) wanted = !strcmp(c->set[k].name, config_options[i].name);
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
    c->problems.path = path;
    if (read_fields(c, y, e)) {
        Config config;
        if (!carry_fields(c)) problems_report(&c->problems, e);
        else if (config_of_settings(&config, path, c->set, c->n_set, e)) {
            out = carried_yaml(c, &config);
            config_free(&config);
        }
    }
    yaml_close(y);
    for (int i = 0; i < FIELDS; i++) given_clear(&c->given[i]);
    for (int k = 0; k < c->n_set; k++) free((char *)(uintptr_t)c->set[k].value);
    free(c->set);
    str_free(&c->problems.problems);
    str_free(&c->lost);
    free(c);
    free(text);
    return out;
}
