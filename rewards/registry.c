// The registry: names -> functions, parameters, sources. And how a selection is read and summed.
#include "config.h"
#include "rewards.h"
#include "str.h"
#include <stdio.h>
#include <stdlib.h>

#define RECIPE "ModelScope's GSM8K recipe"

// One line a reward: its parameters, where it has some, are PARAMS of REAL and WHOLE(name, default, min, max, help) and
// of CHOICE(name, names, help), whose default is its first name, and at most one TEXTUAL(name, default, help).
#define ANSWER REWARD_READS_ANSWER
#define IDS    REWARD_READS_IDS
#define GROUP  REWARD_READS_GROUP
#define REWARD(NAME, SOURCE, FN, READS, HELP, ...)                                                                     \
    { .name = NAME, .source = SOURCE, .fn = FN, .reads = READS, .help = HELP, ##__VA_ARGS__ }
#define PARAMS(...) .params = {__VA_ARGS__}, .n_params = sizeof((RewardParam[]){__VA_ARGS__}) / sizeof(RewardParam)
#define REAL(NAME, VALUE, MIN, MAX, HELP)                                                                              \
    { .kind = PARAM_REAL, .name = NAME, .value = VALUE, .min = MIN, .max = MAX, .help = HELP }
#define WHOLE(NAME, VALUE, MIN, MAX, HELP)                                                                             \
    { .kind = PARAM_WHOLE, .name = NAME, .value = VALUE, .min = MIN, .max = MAX, .help = HELP }
#define TEXTUAL(NAME, VALUE, HELP)                                                                                     \
    { .kind = PARAM_TEXT, .name = NAME, .choices = VALUE, .help = HELP }
#define CHOICE(NAME, NAMES, HELP)                                                                                      \
    { .kind = PARAM_CHOICE, .name = NAME, .choices = NAMES, .help = HELP }

const RewardInfo reward_registry[] = {
    REWARD("xmlcount", RECIPE, reward_xmlcount, 0,
           "0.125 for each of four tags on lines of their own, less 0.001 a character after the answer"),
    REWARD("soft_format", RECIPE, reward_soft_format, 0, "0.5 for `<think>` then `<answer>`, bodies of one line"),
    REWARD("strict_format", RECIPE, reward_strict_format, 0,
           "0.5 for the four tags on lines of their own, bodies of one line"),
    REWARD("int", RECIPE, reward_int, 0, "0.5 where the extracted answer is digits only"),
    REWARD("correctness", RECIPE, reward_correctness, ANSWER, "2 where the extracted answer equals gold as a string"),
    REWARD("completion_length", RECIPE, reward_completion_length, 0, "characters / 100"),
    REWARD("think_answer_format", RECIPE, reward_think_answer_format, 0, "soft_format by its other name"),

    REWARD(
        "accuracy", "Open R1, Math-Verify", reward_accuracy, ANSWER,
        "1 where the answer means the same as gold, else 0; abstains where gold cannot be read",
        PARAMS(CHOICE("extract", "anchored|any|latex|numbers", "anchored: LaTeX in a box or behind \"answer\"; or any"),
               CHOICE("gold", "text|latex", "text: found as in a completion; latex: the whole field is one formula"),
               CHOICE("unreadable_gold", "abstain|one", "what gold that cannot be read gives"),
               WHOLE("precision", 6, 0, 12, "decimals that floats are compared to"),
               CHOICE("variables", "strict|free", "free: a sole variable may have another name"),
               CHOICE("relations", "strict|sets", "sets: 1 < x < 2 is right where gold is the interval"))),
    REWARD("reasoning_accuracy", "TRL", reward_reasoning_accuracy, ANSWER,
           "accuracy of what follows the last delimiter; 0 where there is none",
           PARAMS(TEXTUAL("delimiter", "</think>", "what ends the reasoning"))),
    REWARD("length", "Open R1 (Kimi k1.5)", reward_length, ANSWER | GROUP,
           "0.5 to -0.5 from the group's shortest to its longest completion, wrong answers at most 0"),
    REWARD("cosine", "Open R1, TRL", reward_cosine, ANSWER,
           "falls (right answers) or rises (wrong ones) along a cosine with the length",
           PARAMS(REAL("min_value_wrong", -1, -1e9, 1e9, "of a short wrong answer"),
                  REAL("max_value_wrong", -0.5, -1e9, 1e9, "of a long wrong answer"),
                  REAL("min_value_correct", 0.5, -1e9, 1e9, "of a long right answer"),
                  REAL("max_value_correct", 1, -1e9, 1e9, "of a short right answer"),
                  WHOLE("max_len", 1000, 1, 1e9, "length at which the cosine ends"),
                  CHOICE("clamp", "no|yes", "no: beyond max_len it turns back; yes: it stays"),
                  CHOICE("unit", "characters|tokens", "what the length counts"))),
    REWARD("format", "Open R1", reward_format, 0,
           "1 for `<think>` ... `</think>` then `<answer>` ... `</answer>` at the end of a line",
           PARAMS(CHOICE("form", "new|old", "new: tags on lines of their own; old: tags anywhere in a line"))),
    REWARD("tag_count", "Open R1", reward_tag_count, 0, "0.25 for each of the four tags that occurs once"),
    REWARD("reasoning_steps", "Open R1", reward_reasoning_steps, 0,
           "a third for each sign of a step (Step 1:, 1., -, *, First, ...), at most 1"),
    REWARD("code_format", "Open R1", reward_code_format, 0, "1 for format with a fenced block of code in the answer",
           PARAMS(TEXTUAL("language", "python", "of the block"))),
    REWARD("think_format", "TRL", reward_think_format, 0, "1 for one `<think>` at the start, closed later"),
    REWARD("repetition_penalty", "Open R1, TRL", reward_repetition_penalty, 0,
           "share of n-grams seen before x max_penalty",
           PARAMS(WHOLE("ngram_size", 3, 1, 1000, "words of an n-gram"),
                  REAL("max_penalty", -1, -1e9, 0, "score of a text that only repeats"),
                  CHOICE("language", "en|zh|ids",
                         "en: words between white space; zh: Han characters two by two; ids: tokens"))),
    REWARD("soft_overlong", "Open R1, TRL", reward_soft_overlong, IDS,
           "0 up to max_completion_len - soft_punish_cache tokens, then down to -1",
           PARAMS(WHOLE("max_completion_len", 16384, 1, 1e9, "tokens that give -1"),
                  WHOLE("soft_punish_cache", 4096, 0, 1e9, "tokens before it where the punishment begins"))),
    REWARD("gsm8k_strict", "verl", reward_gsm8k_strict, ANSWER,
           "1 where the last number after `#### ` equals gold, commas left out"),
    REWARD("gsm8k_flexible", "verl", reward_gsm8k_flexible, ANSWER, "1 where the last number equals gold"),
};
const int reward_count = sizeof reward_registry / sizeof *reward_registry;

// ", did you mean <near>? Known: a, b, c" for an unknown word.
static char *suggestion(const char *word, const char *const *names, int n) {
    Str s = {0};
    const char *near = nearest_name(word, names, n);
    if (near) str_printf(&s, ", did you mean %s?", near);
    else str_puts(&s, ";");
    str_puts(&s, " known: ");
    for (int i = 0; i < n; i++) str_printf(&s, "%s%s", i ? ", " : "", names[i]);
    return s.s;
}

static void set_defaults(Reward *r) {
    for (int i = 0; i < r->info->n_params; i++) {
        const RewardParam *p = &r->info->params[i];
        r->param[i] = p->value;
        if (p->kind == PARAM_TEXT) snprintf(r->text, sizeof r->text, "%s", p->choices);
    }
}

static bool find_reward(const char *name, const char *spec, Reward *out, Error *e) {
    const char *names[sizeof reward_registry / sizeof *reward_registry];
    for (int i = 0; i < reward_count; i++) {
        names[i] = reward_registry[i].name;
        if (strcmp(name, names[i]) == 0) {
            *out = (Reward){.info = &reward_registry[i], .weight = 1};
            set_defaults(out);
            return true;
        }
    }
    char *hint = suggestion(name, names, reward_count);
    error_set(e, EXIT_CONFIG, "reward '%s': no reward named '%s'%s", spec, name, hint);
    free(hint);
    return false;
}

// A plain decimal number; nan, inf, hexadecimal and surrounding space are refused.
static bool read_number(const char *text, double *value) {
    if (!*text || strspn(text, "+-.0123456789eE") != strlen(text)) return false;
    char *end;
    *value = strtod(text, &end);
    return !*end && isfinite(*value);
}

// The place of `text` among "a|b|c", or -1.
static int find_choice(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (int i = 0;; i++) {
        size_t word = strcspn(choices, "|");
        if (word == n && strncmp(choices, text, n) == 0) return i;
        if (!choices[word]) return -1;
        choices += word + 1;
    }
}

static bool set_value(const RewardParam *p, const char *text, const char *spec, double *slot, Error *e) {
    if (p->kind == PARAM_CHOICE) {
        *slot = find_choice(p->choices, text);
        return *slot >= 0 || error_set(e, EXIT_CONFIG, "reward '%s': %s must be one of %s, not '%s'", spec, p->name,
                                       p->choices, text);
    }
    double value;
    if (!read_number(text, &value) || (p->kind == PARAM_WHOLE && value != floor(value)))
        return error_set(e, EXIT_CONFIG, "reward '%s': %s must be a %snumber, not '%s'", spec, p->name,
                         p->kind == PARAM_WHOLE ? "whole " : "", text);
    if (value < p->min || value > p->max)
        return error_set(e, EXIT_CONFIG, "reward '%s': %s must be from %g to %g, not %s", spec, p->name, p->min, p->max,
                         text);
    *slot = value;
    return true;
}

static bool set_text(const RewardParam *p, const char *text, const char *spec, Reward *r, Error *e) {
    if (!*text || strlen(text) >= REWARD_MAX_TEXT)
        return error_set(e, EXIT_CONFIG, "reward '%s': %s must have from 1 to %d bytes", spec, p->name,
                         REWARD_MAX_TEXT - 1);
    memcpy(r->text, text, strlen(text) + 1);
    return true;
}

static const RewardParam weight = {.name = "weight", .value = 1, .min = -1e9, .max = 1e9};

static bool set_param(const char *key, const char *text, const char *spec, Reward *r, Error *e) {
    const char *names[REWARD_MAX_PARAMS + 1] = {weight.name};
    if (strcmp(key, weight.name) == 0) return set_value(&weight, text, spec, &r->weight, e);
    for (int i = 0; i < r->info->n_params; i++) {
        const RewardParam *p = &r->info->params[i];
        names[i + 1] = p->name;
        if (strcmp(key, p->name) != 0) continue;
        return p->kind == PARAM_TEXT ? set_text(p, text, spec, r, e) : set_value(p, text, spec, &r->param[i], e);
    }
    char *hint = suggestion(key, names, r->info->n_params + 1);
    error_set(e, EXIT_CONFIG, "reward '%s': %s has no parameter '%s'%s", spec, r->info->name, key, hint);
    free(hint);
    return false;
}

bool reward_parse(const char *spec, Reward *out, Error *e) {
    char *copy = xstrdup(spec), *rest = copy;
    char *name = strsep(&rest, ":");
    bool ok = find_reward(name, spec, out, e);
    for (char *pair; ok && (pair = strsep(&rest, ","));) {
        char *value = strchr(pair, '=');
        if (value) *value++ = 0;
        ok = value ? set_param(pair, value, spec, out, e)
                   : error_set(e, EXIT_CONFIG, "reward '%s': '%s' is not key=value", spec, pair);
    }
    free(copy);
    return ok;
}

float reward_total(const Reward *r, int n_rewards, const float *score) {
    double sum = 0;
    bool any = false;
    for (int i = 0; i < n_rewards; i++) {
        if (isnan(score[i])) continue;
        sum += r[i].weight * (double)score[i];
        any = true;
    }
    return any ? (float)sum : REWARD_ABSTAINS;
}
