// The arguments and results of calls: JSON with integers of any size; and when two values are the same.
#include "code.h"
#include "str.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- integers beyond 64 bits ----------------------------------------------------------------------------------------

static const char nul[] = "\\u0000";

// The byte after the JSON string that begins at `at`; TEXT_NONE where it does not end, or holds a NUL.
static size_t string_end(Text t, size_t at) {
    for (at++; at < t.n && t.s[at] != '"'; at++) {
        if (text_word_at(t, at, nul)) return TEXT_NONE;
        at += t.s[at] == '\\';
    }
    return at < t.n ? at + 1 : TEXT_NONE;
}

static bool is_wide(Text digits) {
    char s[24];
    bool minus = digits.s[0] == '-';
    if (text_byte(digits, minus) == '0') return false; // 0, or no number at all
    if (digits.n >= sizeof s) return true;
    memcpy(s, digits.s, digits.n);
    s[digits.n] = 0;
    errno = 0;
    strtoll(s, NULL, 10);
    return errno == ERANGE;
}

json_t *code_value_read(Text t) {
    Str s = {0};
    size_t done = 0, at = 0;
    while (at < t.n) {
        size_t start = at;
        if (t.s[at] == '"') {
            if ((at = string_end(t, at)) == TEXT_NONE) break;
            continue;
        }
        at = text_skip_digits(t, at + (t.s[at] == '-'));
        if (at == start) at++;                                    // no number
        else if (at < t.n && strchr(".eE", t.s[at]) && t.s[at]) { // a real one, with what follows
            while (at < t.n && strchr("+-.eE0123456789", t.s[at]) && t.s[at]) at++;
        } else if (is_wide(text_slice(t, start, at))) {
            str_add(&s, t.s + done, start - done);
            str_printf(&s, "\"%s%.*s\"", nul, (int)(at - start), t.s + start);
            done = at;
        }
    }
    if (at != TEXT_NONE) str_add(&s, t.s + done, t.n - done);
    const size_t flags = JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    json_t *j = at != TEXT_NONE && s.n ? json_loadb(s.s, s.n, flags, NULL) : NULL;
    str_free(&s);
    return j;
}

char *code_value_text(const json_t *value) {
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!text) return NULL;
    Str s = {0};
    Text t = text_of(text), mark = text_of("\"\\u0000");
    size_t done = 0;
    for (size_t at = 0; (at = text_find(t, at, mark)) != TEXT_NONE;) {
        size_t digits = at + mark.n, end = text_find(t, digits, text_of("\""));
        str_add(&s, t.s + done, at - done);
        str_add(&s, t.s + digits, end - digits);
        done = at = end + 1;
    }
    str_add(&s, t.s + done, t.n - done);
    free(text);
    return s.s;
}

// ---- the same value -------------------------------------------------------------------------------------------------

static bool is_wide_integer(const json_t *j) {
    return json_is_string(j) && json_string_length(j) > 0 && !*json_string_value(j);
}

static bool json_number(const json_t *j, double *x) {
    bool wide = is_wide_integer(j);
    *x = wide ? strtod(json_string_value(j) + 1, NULL) : json_number_value(j);
    return wide || json_is_number(j);
}

// Whether two values are the same: numbers by value, lists and tuples in order, objects by their keys.
static bool same_value(const json_t *a, const json_t *b) {
    double x, y;
    bool whole = (json_is_integer(a) || is_wide_integer(a)) && (json_is_integer(b) || is_wide_integer(b));
    if (!whole && json_number(a, &x) && json_number(b, &y))
        return x == y || fabs(x - y) <= 1e-6 * fmax(1, fmax(fabs(x), fabs(y)));
    if (json_is_array(a) && json_is_array(b)) {
        if (json_array_size(a) != json_array_size(b)) return false;
        for (size_t i = 0; i < json_array_size(a); i++)
            if (!same_value(json_array_get(a, i), json_array_get(b, i))) return false;
        return true;
    }
    if (json_is_object(a) && json_is_object(b)) {
        const char *key;
        const json_t *value;
        json_object_foreach((json_t *)a, key, value) {
            const json_t *other = json_object_get(b, key);
            if (!other || !same_value(value, other)) return false;
        }
        return json_object_size(a) == json_object_size(b);
    }
    return json_equal(a, b);
}

// APPS wraps some results in a list of one.
bool code_same_result(const json_t *got, const json_t *want) {
    return same_value(got, want) ||
           (json_is_array(want) && json_array_size(want) == 1 && same_value(got, json_array_get(want, 0)));
}
