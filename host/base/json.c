// Strict JSON: Jansson parses; here are the limits, the flags, and the form of errors.
#include "file.h"
#include "json.h"
#include "str.h"
#include <stdlib.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <string.h>

enum { DEPTH_LIMIT = 64 };
static const size_t json_bytes_limit = (size_t)256 << 20; // the largest tokenizer.json known is a tenth of this

// An error with its place: "where:line:column" for a file, "where:column" for a text that is one line of a file.
static bool error_at(Error *e, const char *where, bool file, int line, int column, const char *why) {
    if (file || line > 1) return error_set(e, EXIT_INPUT, "%s:%d:%d: %s", where, line, column, why);
    return error_set(e, EXIT_INPUT, "%s:%d: %s", where, column, why);
}

// Replaces escaped NULs in a key by U+2400, the symbol for NUL: Jansson refuses them, though RFC 8259 does not. `key`
// is the text between the quotes; the change is made in *copy, a copy of the whole text.
static void nul_in_key_replace(const char *key, size_t key_bytes, const char *text, size_t n, char **copy) {
    for (size_t i = 0; i + 6 <= key_bytes; i++) {
        if (key[i] != '\\') continue;
        if (!memcmp(key + i, "\\u0000", 6)) {
            if (!*copy) *copy = xstrndup(text, n);
            memcpy(*copy + (key - text) + i, "\\u2400", 6);
        }
        i++;
    }
}

// Checks a text for what Jansson would not handle: deep nesting (it recurses), a NUL byte (which it takes for the end),
// and NULs in keys. *copy becomes the text to parse instead, or stays NULL.
static bool text_check(const char *text, size_t n, const char *where, bool file, char **copy, Error *e) {
    int depth = 0, line = 1;
    const char *line_start = text, *quote = NULL, *key = NULL; // open string; last closed string
    size_t key_bytes = 0;
    for (const char *p = text, *end = text + n; p < end; p++) {
        if (*p == 0) return error_at(e, where, file, line, (int)(p - line_start) + 1, "NUL byte in JSON; remove it");
        if (*p == '\n') {
            line++;
            line_start = p + 1;
        } else if (quote) {
            if (*p == '\\' && p + 1 < end && p[1] != 0) p++;
            else if (*p == '"') {
                key = quote + 1, key_bytes = (size_t)(p - key);
                quote = NULL;
            }
        } else if (*p == '"') quote = p;
        else if (*p == ':' && key) nul_in_key_replace(key, key_bytes, text, n, copy);
        else if (*p == '[' || *p == '{') {
            if (++depth > DEPTH_LIMIT)
                return error_at(e, where, file, line, (int)(p - line_start) + 1,
                                "JSON nested deeper than 64 levels; flatten it");
        } else if (*p == ']' || *p == '}') depth--;
    }
    return true;
}

// ---- numbers that do not fit ---------------------------------------------------------------------------------------

// Whether the n bytes are a number as JSON writes one: no leading zeros or plus, digits on both sides of a point.
static bool is_number(const char *s, size_t n) {
    static const char digits[] = "0123456789";
    const char *end = s + n;
    s += n && *s == '-';
    size_t whole = s < end ? strspn(s, digits) : 0, more;
    if (!whole || (whole > 1 && *s == '0')) return false;
    s += whole;
    if (s < end && *s == '.') {
        if (!(more = strspn(s + 1, digits))) return false;
        s += 1 + more;
    }
    if (s < end && (*s == 'e' || *s == 'E')) {
        s += 1 + (s[1] == '+' || s[1] == '-');
        if (!(more = strspn(s, digits))) return false;
        s += more;
    }
    return s == end;
}

// Whether the n bytes, behind which another byte stands that is of no number, are a number that does not fit the type
// that it would be read as.
static bool is_wide(const char *number, size_t n) {
    bool whole = !memchr(number, '.', n) && !memchr(number, 'e', n) && !memchr(number, 'E', n);
    if (!is_number(number, n) || (whole && n < 19)) return false;
    errno = 0;
    double x = whole ? (double)strtoll(number, NULL, 10) : strtod(number, NULL);
    return errno == ERANGE && x != 0 && (whole || x > 1 || x < -1); // what is too small is read as 0
}

const char *json_wide_number(const json_t *j) {
    size_t n = json_string_length(j); // 0 where it is no string
    const char *s = n > 1 ? json_string_value(j) : "x";
    return !*s && is_wide(s + 1, n - 1) ? s + 1 : NULL;
}

bool json_is_written_string(const json_t *j) { return json_is_string(j) && !json_wide_number(j); }

// The text (NUL-terminated) with each such number made a string; NULL where there is none. Heap memory.
static char *wide_numbers_quote(const char *text, size_t n, size_t *quoted) {
    Str s = {0};
    size_t done = 0;
    for (size_t at = 0; at < n;) {
        if (text[at] == '"') {
            for (at++; at < n && text[at] != '"'; at++) at += text[at] == '\\';
            at++;
            continue;
        }
        size_t start = at;
        if (text[at] == '-' || (text[at] >= '0' && text[at] <= '9')) at += strspn(text + at, "+-.eE0123456789");
        bool key = text[at + strspn(text + at, " \t\r\n")] == ':'; // which no number can be
        if (at > start && !key && is_wide(text + start, at - start)) {
            str_add(&s, text + done, start - done);
            str_printf(&s, "\"\\u0000%.*s\"", (int)(at - start), text + start);
            done = at;
        }
        at += at == start;
    }
    if (!done) return NULL;
    str_add(&s, text + done, n - done);
    *quoted = s.n;
    return s.s;
}

static json_t *parse(const char *text, size_t n, const char *where, bool file, size_t flags, Error *e) {
    char *copy = NULL;
    json_error_t why;
    json_t *j = NULL;
    if (!text_check(text, n, where, file, &copy, e)) goto done;
    j = json_loadb(copy ? copy : text, n, flags | JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (!j) {
        Str text_shown = {0}; // Jansson quotes what stands near the error, which may hold control bytes
        str_visible(&text_shown, why.text, strlen(why.text));
        for (size_t i = 0; i < text_shown.n; i++)
            if (text_shown.s[i] == '\n') text_shown.s[i] = ' ';
        error_at(e, where, file, why.line < 1 ? 1 : why.line, why.column < 1 ? 1 : why.column,
                 text_shown.n ? text_shown.s : "not JSON");
        str_free(&text_shown);
    }
done:
    free(copy);
    return j;
}

static json_t *parse_wide(const char *text, size_t n, const char *where, bool file, size_t flags, Error *e) {
    Error why = {0};
    json_t *j = parse(text, n, where, file, flags, &why);
    if (j) return j;
    size_t quoted; // seldom anything: so only where the text cannot be read as it is
    char *terminated = xmalloc(n + 1);
    memcpy(terminated, text, n);
    terminated[n] = 0;
    char *copy = wide_numbers_quote(terminated, n, &quoted);
    if (copy) j = parse(copy, quoted, where, file, flags, e);
    else if (e) *e = why;
    free(copy);
    free(terminated);
    return j;
}

json_t *json_parse(const char *text, size_t n, const char *where, Error *e) {
    return parse_wide(text, n, where, false, 0, e);
}

json_t *json_parse_unique(const char *text, size_t n, const char *where, Error *e) {
    return parse_wide(text, n, where, true, JSON_REJECT_DUPLICATES, e);
}

const char *json_text(const json_t *j) {
    const char *s = json_string_value(j);
    return s && strlen(s) == json_string_length(j) ? s : NULL;
}

json_t *json_read(const char *path, Error *e) {
    size_t n;
    char *text = file_read_text(path, json_bytes_limit, &n, e);
    if (!text) return NULL;
    json_t *j = NULL;
    if (n) j = json_parse_unique(text, n, path, e);
    else error_set(e, EXIT_INPUT, "%s:1:1: is empty; fetch it again", path);
    free(text);
    return j;
}

// ---- writing -------------------------------------------------------------------------------------------------------

static void write_string(Str *out, const char *s, size_t n) {
    static const char plain[] = "\"\\\n\r\t\b\f", letter[] = "\"\\nrtbf";
    str_puts(out, "\"");
    for (size_t i = 0; i < n; i++) {
        const char *found = s[i] ? strchr(plain, s[i]) : NULL;
        if (found) str_printf(out, "\\%c", letter[found - plain]);
        else if ((unsigned char)s[i] < 0x20) str_printf(out, "\\u%04x", (unsigned char)s[i]);
        else str_add(out, s + i, 1);
    }
    str_puts(out, "\"");
}

// Writes what stands before item number i of a list or object at a depth, or, with `end`, before its closing bracket.
static void write_break(Str *out, size_t i, bool end, JsonLayout layout, int depth) {
    if (i && !end) str_puts(out, layout == JSON_PYTHON ? ", " : ",");
    if (layout == JSON_LINES && (i || !end)) str_printf(out, "\n%*s", 2 * (depth + !end), "");
}

static void write_value(Str *out, const json_t *j, JsonLayout layout, int depth) {
    const char *key;
    json_t *value;
    size_t i = 0;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        str_puts(out, "{");
        json_object_foreach((json_t *)j, key, value) {
            write_break(out, i++, false, layout, depth);
            write_string(out, key, strlen(key));
            str_puts(out, layout == JSON_TIGHT ? ":" : ": ");
            write_value(out, value, layout, depth + 1);
        }
        write_break(out, i, true, layout, depth);
        str_puts(out, "}");
        break;
    case JSON_ARRAY:
        str_puts(out, "[");
        json_array_foreach(j, i, value) {
            write_break(out, i, false, layout, depth);
            write_value(out, value, layout, depth + 1);
        }
        write_break(out, i, true, layout, depth);
        str_puts(out, "]");
        break;
    case JSON_STRING:
        if (json_wide_number(j)) str_puts(out, json_wide_number(j));
        else write_string(out, json_string_value(j), json_string_length(j));
        break;
    case JSON_INTEGER: str_printf(out, "%lld", (long long)json_integer_value(j)); break;
    case JSON_REAL: str_real(out, json_real_value(j)); break;
    case JSON_TRUE: str_puts(out, "true"); break;
    case JSON_FALSE: str_puts(out, "false"); break;
    case JSON_NULL: str_puts(out, "null"); break;
    }
}

void json_write(Str *out, const json_t *j, JsonLayout layout) { write_value(out, j, layout, 0); }
