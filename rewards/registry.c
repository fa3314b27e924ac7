// The registry: names -> functions, parameters, sources. And how a selection is read and summed.
#include "config.h"
#include "rewards.h"
#include "str.h"
#include <stdlib.h>

#define RECIPE "ModelScope's GSM8K recipe"

#define REWARD(NAME, SOURCE, HELP, FN, ...) {.name = NAME, .source = SOURCE, .help = HELP, .fn = FN, ##__VA_ARGS__}

const RewardInfo reward_registry[] = {
    REWARD("xmlcount", RECIPE, "0.125 a tag on its own line, less 0.001 a character after the answer", reward_xmlcount),
    REWARD("soft_format", RECIPE, "0.5 for <think>, then <answer>, bodies of one line", reward_soft_format),
    REWARD("strict_format", RECIPE, "0.5 for the tags on lines of their own, bodies of one line", reward_strict_format),
    REWARD("int", RECIPE, "0.5 where the extracted answer is digits only", reward_int),
    REWARD("correctness", RECIPE, "2 where the extracted answer equals gold as a string", reward_correctness),
    REWARD("completion_length", RECIPE, "characters / 100", reward_completion_length),
    REWARD("think_answer_format", RECIPE, "soft_format by its other name", reward_think_answer_format),
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
