// Reading the rules of the command `select`: "NAME:min=X,max=X".
#include "config.h"
#include "nearest.h"
#include "reward.h"
#include <stdlib.h>
#include <string.h>

static int reward_named(const Config *c, const char *name, Error *e) {
    Reward reward[MAX_REWARDS];
    const char *names[MAX_REWARDS + 1];
    int n = 0;
    for (; n < c->rewards.n && n < MAX_REWARDS; n++) {
        if (!reward_parse(c->rewards.item[n], &reward[n], e)) return -2;
        names[n] = reward[n].name;
        if (!strcmp(name, names[n])) return n;
    }
    if (!strcmp(name, "reward")) return -1;
    names[n] = "reward";
    const char *near = nearest_name(name, names, n + 1);
    error_set(e, EXIT_CONFIG, "`%.60s` is none of the `rewards` of this run, and not `reward`, their sum%s%s%s", name,
              near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "");
    return -2;
}

static bool read_bound(const char *text, float *out, Error *e) {
    char *end;
    *out = strtof(text, &end);
    bool good = end > text && !*end && !isnan(*out);
    return good || error_set(e, EXIT_CONFIG, "`%.60s` is no number", text);
}

static bool read_rule(const Config *c, char *text, SelectRule *out, Error *e) {
    char *params = strchr(text, ':'), *rest;
    if (params) *params++ = 0;
    *out = (SelectRule){.reward = reward_named(c, text, e), .min = -INFINITY, .max = INFINITY};
    if (out->reward < -1) return false;
    if (!params || !*params)
        return error_set(e, EXIT_CONFIG, "%s wants a bound: write %s:min=X, %s:max=X or both", text, text, text);
    for (char *p = strtok_r(params, ",", &rest); p; p = strtok_r(NULL, ",", &rest)) {
        bool min = !strncmp(p, "min=", 4), max = !strncmp(p, "max=", 4);
        if (!min && !max)
            return error_set(e, EXIT_CONFIG, "%s: there is no `%.60s`; write min=X, max=X or both", text, p);
        if (!read_bound(p + 4, min ? &out->min : &out->max, e)) return error_prefix(e, "%s", text);
    }
    return out->min <= out->max || error_set(e, EXIT_CONFIG, "%s: no score is at least %g and at most %g", text,
                                             (double)out->min, (double)out->max);
}

bool config_select_rule(const Config *c, int i, SelectRule *out, Error *e) {
    char *text = xstrdup(c->select_rules.item[i]);
    bool ok = read_rule(c, text, out, e);
    free(text);
    return ok;
}
