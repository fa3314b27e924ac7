// Reading a reward as a user writes it: NAME:key=value,...
#include "nearest.h"
#include "params.h"
#include "str.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The end of a message about an unknown word: ", did you mean <near>? Known: a, b, c".
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
        if (param_is_text(p->kind)) snprintf(r->text[param_text_place(r->info, i)], REWARD_MAX_TEXT, "%s", p->choices);
    }
}

static bool find_reward(const char *name, const char *spec, Reward *out, Error *e) {
    for (int i = 0; i < reward_count; i++) {
        if (strcmp(name, reward_registry[i].name) != 0) continue;
        *out = (Reward){.info = &reward_registry[i], .weight = 1, .think = think_tags};
        snprintf(out->name, sizeof out->name, "%s", name);
        set_defaults(out);
        return true;
    }
    const char **names = xcalloc((size_t)reward_count, sizeof *names);
    for (int i = 0; i < reward_count; i++) names[i] = reward_registry[i].name;
    char *hint = suggestion(name, names, reward_count);
    if (strchr(name, '@')) // the rest of a URL, maybe of a password, that a comma cut
        error_set(e, EXIT_CONFIG, "a reward's name has no @; a comma within a value, as in a URL, is written \\,");
    else error_set(e, EXIT_CONFIG, "reward '%s': no reward named '%s'%s", spec, name, hint);
    free(hint);
    free(names);
    return false;
}

// Reads a plain decimal number; nan, inf, hexadecimal and surrounding space are refused.
static bool parse_number(const char *text, double *value) {
    if (!*text || strspn(text, "+-.0123456789eE") != strlen(text)) return false;
    char *end;
    *value = strtod(text, &end);
    return !*end && isfinite(*value);
}

static bool set_value(const RewardParam *p, const char *text, const char *spec, double *slot, Error *e) {
    if (p->kind == PARAM_CHOICE) {
        *slot = param_choice_place(p->choices, text);
        return *slot >= 0 || error_set(e, EXIT_CONFIG, "reward '%s': %s must be one of %s, not '%s'", spec, p->name,
                                       p->choices, text);
    }
    double value;
    if (!parse_number(text, &value) || (p->kind == PARAM_WHOLE && value != floor(value)))
        return error_set(e, EXIT_CONFIG, "reward '%s': %s must be a %snumber, not '%s'", spec, p->name,
                         p->kind == PARAM_WHOLE ? "whole " : "", text);
    if (value < p->min || value > p->max)
        return error_set(e, EXIT_CONFIG, "reward '%s': %s must be from %g to %g, not %s", spec, p->name, p->min, p->max,
                         text);
    *slot = value;
    return true;
}

// What is wrong with a URL, which begins with http:// or https://, or NULL. What asks a server takes the URL apart and
// trusts that it has a host.
static const char *url_fault(const char *url) {
    const char *host = strstr(url, "://") + 3, *end = host + strcspn(host, "/?#"), *port;
    for (const char *p = host; p < end; p++)
        if (*p == '@') host = p + 1; // behind user and password
    if (*host == '[') {
        const char *close = memchr(host, ']', (size_t)(end - host));
        if (!close || close == host + 1) return "has no IPv6 address between [ and ]";
        port = close + 1;
        if (port < end && *port != ':') return "has something other than a port behind ]";
    } else {
        port = memchr(host, ':', (size_t)(end - host));
        if (!port) port = end;
        if (port == host) return "names no host";
    }
    if (port == end) return NULL;
    size_t digits = strspn(port + 1, "0123456789");
    bool number = port + 1 + digits == end && digits >= 1 && digits <= 5 && atoi(port + 1) >= 1;
    return number && atoi(port + 1) <= 65535
               ? NULL
               : "has no port from 1 to 65535 behind the colon (in a user or password write / ? # as %2F %3F %23)";
}

// Sets a text parameter. An empty text is allowed only where it is the default.
static bool set_text(const RewardParam *p, const char *text, const char *spec, char *slot, Error *e) {
    if ((!*text && *p->choices) || strlen(text) >= REWARD_MAX_TEXT)
        return error_set(e, EXIT_CONFIG, "reward '%s': %s must have from %d to %d bytes", spec, p->name,
                         *p->choices != 0, REWARD_MAX_TEXT - 1);
    if (p->kind == PARAM_URL &&
        ((strncmp(text, "http://", 7) && strncmp(text, "https://", 8)) || strpbrk(text, " \t\n")))
        return error_set(e, EXIT_CONFIG,
                         "reward '%s': %s must begin with http:// or https:// and have no space in it, as in %s", spec,
                         p->name, p->choices);
    const char *fault = p->kind == PARAM_URL ? url_fault(text) : NULL;
    if (fault)
        return error_set(e, EXIT_CONFIG, "reward '%s': %s %s; write it as in %s", spec, p->name, fault, p->choices);
    memcpy(slot, text, strlen(text) + 1);
    return true;
}

// Refuses a key that is given twice, because the first value would be ignored silently. seen: a bit for each place (0
// weight, 1 as, i + 2 parameter i).
static bool see_once(unsigned *seen, int place, const char *key, const char *spec, Error *e) {
    unsigned bit = 1u << place;
    if (*seen & bit) return error_set(e, EXIT_CONFIG, "reward '%s': %s is given twice", spec, key);
    *seen |= bit;
    return true;
}

static bool set_name(const char *text, const char *spec, char *name, Error *e) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    size_t n = strlen(text);
    if (n == 0 || n >= REWARD_MAX_NAME || text[strspn(text, allowed)])
        return error_set(e, EXIT_CONFIG, "reward '%s': as must be 1 to %d letters, digits, _, - or .", spec,
                         REWARD_MAX_NAME - 1);
    memcpy(name, text, n + 1);
    return true;
}

static const RewardParam weight = {.name = "weight", .value = 1, .min = -1e9, .max = 1e9};

static bool set_param(const char *key, const char *text, const char *spec, Reward *r, unsigned *seen, Error *e) {
    const char *names[REWARD_MAX_PARAMS + 2] = {weight.name, "as"};
    if (strcmp(key, weight.name) == 0)
        return see_once(seen, 0, key, spec, e) && set_value(&weight, text, spec, &r->weight, e);
    if (strcmp(key, "as") == 0) return see_once(seen, 1, key, spec, e) && set_name(text, spec, r->name, e);
    for (int i = 0; i < r->info->n_params; i++) {
        const RewardParam *p = &r->info->params[i];
        names[i + 2] = p->name;
        if (strcmp(key, p->name) != 0) continue;
        if (!see_once(seen, i + 2, key, spec, e)) return false;
        return param_is_text(p->kind) ? set_text(p, text, spec, r->text[param_text_place(r->info, i)], e)
                                      : set_value(p, text, spec, &r->param[i], e);
    }
    char *hint = suggestion(key, names, r->info->n_params + 2);
    error_set(e, EXIT_CONFIG, "reward '%s': %s has no parameter '%s'%s", spec, r->info->name, key, hint);
    free(hint);
    return false;
}

// Cuts the first key=value off *rest, at a comma without a backslash before it; `\,` becomes a comma.
static char *next_pair(char **rest) {
    char *pair = *rest, *to = pair;
    if (!pair) return NULL;
    for (char *p = pair;; p++) {
        if (*p == 0 || *p == ',') {
            *rest = *p ? p + 1 : NULL;
            *to = 0;
            return pair;
        }
        if (p[0] == '\\' && p[1] == ',') p++;
        *to++ = *p;
    }
}

bool reward_parse(const char *spec, Reward *out, Error *e) {
    char *copy = xstrdup(spec), *rest = copy;
    char *name = strsep(&rest, ":");
    bool ok = find_reward(name, spec, out, e);
    unsigned seen = 0;
    for (char *pair; ok && (pair = next_pair(&rest));) {
        char *value = strchr(pair, '=');
        if (value) *value++ = 0;
        ok = value ? set_param(pair, value, spec, out, &seen, e)
                   : error_set(e, EXIT_CONFIG, "reward '%s': '%s' is not key=value", spec, pair);
    }
    free(copy);
    return ok;
}
