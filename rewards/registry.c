// The registry: names -> functions, parameters, sources. And how a selection is read and summed.
#include "config.h"
#include "rewards.h"
#include "str.h"
#include <stdlib.h>

#define RECIPE "ModelScope's GSM8K recipe"

#define REWARD(NAME, SOURCE, FN, READS, HELP, ...)                                                                     \
    { .name = NAME, .source = SOURCE, .fn = FN, .reads = READS, .help = HELP, ##__VA_ARGS__ }
#define ANSWER REWARD_READS_ANSWER

const RewardInfo reward_registry[] = {
    REWARD("xmlcount", RECIPE, reward_xmlcount, 0,
           "0.125 for each of four tags on lines of their own, less 0.001 a character after the answer"),
    REWARD("soft_format", RECIPE, reward_soft_format, 0, "0.5 for <think> then <answer>, bodies of one line"),
    REWARD("strict_format", RECIPE, reward_strict_format, 0,
           "0.5 for the four tags on lines of their own, bodies of one line"),
    REWARD("int", RECIPE, reward_int, 0, "0.5 where the extracted answer is digits only"),
    REWARD("correctness", RECIPE, reward_correctness, ANSWER, "2 where the extracted answer equals gold as a string"),
    REWARD("completion_length", RECIPE, reward_completion_length, 0, "characters / 100"),
    REWARD("think_answer_format", RECIPE, reward_think_answer_format, 0, "soft_format by its other name"),
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

static bool find_reward(const char *name, const char *spec, Reward *out, Error *e) {
    const char *names[sizeof reward_registry / sizeof *reward_registry];
    for (int i = 0; i < reward_count; i++) {
        names[i] = reward_registry[i].name;
        if (strcmp(name, names[i]) == 0) {
            *out = (Reward){.info = &reward_registry[i], .weight = 1};
            for (int p = 0; p < out->info->n_params; p++) out->param[p] = out->info->params[p].value;
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

static bool set_param(const char *key, const char *text, const char *spec, Reward *r, Error *e) {
    const char *names[REWARD_MAX_PARAMS + 1] = {"weight"};
    double *slot = strcmp(key, "weight") == 0 ? &r->weight : NULL, low = -1e9, high = 1e9, value;
    for (int i = 0; i < r->info->n_params; i++) {
        const RewardParam *p = &r->info->params[i];
        names[i + 1] = p->name;
        if (strcmp(key, p->name) == 0) slot = &r->param[i], low = p->min, high = p->max;
    }
    if (!slot) {
        char *hint = suggestion(key, names, r->info->n_params + 1);
        error_set(e, EXIT_CONFIG, "reward '%s': %s has no parameter '%s'%s", spec, r->info->name, key, hint);
        free(hint);
        return false;
    }
    if (!read_number(text, &value))
        return error_set(e, EXIT_CONFIG, "reward '%s': %s must be a number, not '%s'", spec, key, text);
    if (value < low || value > high)
        return error_set(e, EXIT_CONFIG, "reward '%s': %s must be from %g to %g, not %s", spec, key, low, high, text);
    *slot = value;
    return true;
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
