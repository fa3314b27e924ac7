// Reads the keys of a config.json: one function for each kind of value.
#include "hf_fields.h"
#include "json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

const json_t *field(const Fields *f, const char *name) {
    const json_t *v = json_object_get(f->j, name);
    return json_is_null(v) ? NULL : v;
}

int int_field(Fields *f, const char *name, int64_t low, int64_t high, int fallback) {
    const json_t *v = field(f, name);
    if (!v && fallback >= 0) return fallback;
    if (!v) refuse(f, "%s: \"%s\" is missing; take the config.json that came with the weights", f->path, name);
    else if (json_wide_number(v))
        refuse(f, "%s: \"%s\" is %.64s, outside %lld..%lld; the file is damaged or not for this program", f->path, name,
               json_wide_number(v), (long long)low, (long long)high);
    else if (!json_is_integer(v)) refuse(f, "%s: \"%s\" is not a whole number", f->path, name);
    else if (json_integer_value(v) < low || json_integer_value(v) > high)
        refuse(f, "%s: \"%s\" is %lld, outside %lld..%lld; the file is damaged or not for this program", f->path, name,
               (long long)json_integer_value(v), (long long)low, (long long)high);
    else return (int)json_integer_value(v);
    return 1;
}

double positive_field(Fields *f, const char *name, double fallback) {
    const json_t *v = field(f, name);
    if (!v) return fallback;
    const char *wide = json_wide_number(v); // a base of 10^20 written in full is one
    double x = wide ? strtod(wide, NULL) : json_number_value(v);
    if ((wide || json_is_number(v)) && x > 0 && isfinite((float)x) && (float)x > 0) return x;
    refuse(f, "%s: \"%s\" is not a positive number", f->path, name);
    return fallback;
}

bool bool_field(Fields *f, const char *name, bool fallback) {
    const json_t *v = field(f, name);
    if (v && !json_is_boolean(v)) refuse(f, "%s: \"%s\" is not true or false", f->path, name);
    return v ? json_is_true(v) : fallback;
}

const json_t *object_field(Fields *f, const char *name) {
    const json_t *v = field(f, name);
    if (v && !json_is_object(v)) refuse(f, "%s: \"%s\" is not an object", f->path, name);
    return json_object_size(v) ? v : NULL;
}

const char *text_field(Fields *f, const char *name) {
    const json_t *v = field(f, name);
    const char *s = v ? json_text(v) : NULL;
    if (v && !s) refuse(f, "%s: \"%s\" is not a string without NUL", f->path, name);
    return s;
}

void text_must_be(Fields *f, const char *name, const char *text, const char *why) {
    const char *s = text_field(f, name);
    if (s && strcmp(s, text)) refuse(f, "%s: \"%s\" is \"%.64s\", not \"%s\": %s", f->path, name, s, text, why);
}

void list_must_be(Fields *f, const char *name, const char *text, const char *why) {
    const json_t *list = field(f, name), *item;
    if (!list) return;
    if (!json_is_array(list)) refuse(f, "%s: \"%s\" is not a list", f->path, name);
    size_t i;
    json_array_foreach(list, i, item) {
        const char *s = json_text(item);
        if (!s || strcmp(s, text))
            refuse(f, "%s: \"%s\" holds %s%.64s%s, not \"%s\": %s", f->path, name, s ? "\"" : "", s ? s : "no string",
                   s ? "\"" : "", text, why);
    }
}
