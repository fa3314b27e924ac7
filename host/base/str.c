// Growable strings and id arrays (str.h).
#include "str.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reserve(Str *s, size_t extra) {
    size_t need = s->n + extra + 1;
    if (need <= s->cap) return;
    s->cap = need < 64 ? 64 : need + need / 2;
    s->s = xrealloc(s->s, s->cap);
}

void str_add(Str *s, const char *bytes, size_t n) {
    reserve(s, n);
    if (n) memcpy(s->s + s->n, bytes, n);
    s->n += n;
    s->s[s->n] = 0;
}

void str_puts(Str *s, const char *text) { str_add(s, text, strlen(text)); }

void str_printf(Str *s, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    reserve(s, (size_t)n);
    va_start(ap, fmt);
    vsnprintf(s->s + s->n, (size_t)n + 1, fmt, ap);
    va_end(ap);
    s->n += (size_t)n;
}

void str_clear(Str *s) {
    s->n = 0;
    if (s->s) s->s[0] = 0;
}

void str_free(Str *s) {
    free(s->s);
    *s = (Str){0};
}

// The length of the valid UTF-8 sequence at p, or 0 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF).
static int utf8_length(const unsigned char *p, size_t n) {
    if (p[0] < 0x80) return 1;
    int len = p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4 : 0;
    if (!len || (size_t)len > n) return 0;
    for (int i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

// Whether it is one of U+0080..U+009F: controls that some terminals obey.
static bool is_c1(const unsigned char *p, int len) { return len == 2 && p[0] == 0xc2 && p[1] < 0xa0; }

void str_real(Str *out, double x) {
    char text[40], digits[24];
    int n = 0;
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, x);
        if (strtod(text, NULL) == x) break;
    }
    const char *p = text;
    if (*p == '-') str_add(out, p++, 1);
    for (; *p != 'e'; p++)
        if (*p != '.') digits[n++] = *p;
    int exponent = atoi(p + 1);
    if (exponent < -4 || exponent >= 16) {
        str_add(out, digits, 1);
        if (n > 1) str_printf(out, ".%.*s", n - 1, digits + 1);
        str_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) str_puts(out, "0.");
    for (int i = exponent; i < -1; i++) str_puts(out, "0");
    for (int i = 0; i < n || i <= exponent; i++) {
        if (exponent >= 0 && i == exponent + 1) str_puts(out, ".");
        str_add(out, i < n ? &digits[i] : "0", 1);
    }
    if (exponent >= 0 && n <= exponent + 1) str_puts(out, ".0");
}

void str_json_number(Str *s, double x) {
    if (isfinite(x)) str_printf(s, "%.9g", x);
    else str_puts(s, "null");
}

void str_json(Str *s, const char *text, size_t n) {
    const unsigned char *p = (const unsigned char *)text;
    str_puts(s, "\"");
    for (size_t i = 0; i < n;) {
        int len = utf8_length(p + i, n - i);
        if (p[i] == '"' || p[i] == '\\') str_printf(s, "\\%c", p[i]);
        else if (p[i] == '\n') str_puts(s, "\\n");
        else if (p[i] == '\t') str_puts(s, "\\t");
        else if (p[i] == '\r') str_puts(s, "\\r");
        else if (p[i] < 0x20 || p[i] == 0x7f) str_printf(s, "\\u%04x", p[i]);
        else if (is_c1(p + i, len)) str_printf(s, "\\u%04x", p[i + 1]);
        else if (!len) str_puts(s, "\\ufffd");
        else str_add(s, text + i, (size_t)len);
        i += len ? (size_t)len : 1;
    }
    str_puts(s, "\"");
}

// Whether a character turns the direction of what follows, or is a line's end by another name: U+2028 to U+202E, U+2066
// to U+2069.
static bool is_turning(const unsigned char *p, int len) {
    return len == 3 && p[0] == 0xe2 &&
           ((p[1] == 0x80 && p[2] >= 0xa8 && p[2] <= 0xae) || (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9));
}

void str_visible(Str *s, const char *text, size_t n) {
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; i < n;) {
        int len = utf8_length(p + i, n - i);
        if (!len || is_c1(p + i, len) || is_turning(p + i, len) || (p[i] < 0x20 && p[i] != '\n' && p[i] != '\t') ||
            p[i] == 0x7f)
            for (int k = 0; k < (len ? len : 1); k++) str_printf(s, "\\x%02x", p[i + (size_t)k]);
        else str_add(s, text + i, (size_t)len);
        i += len ? (size_t)len : 1;
    }
}

void ids_add(Ids *v, int32_t id) {
    if (v->n == v->cap) {
        v->cap = v->cap ? v->cap * 2 : 64;
        v->id = xrealloc(v->id, v->cap * sizeof *v->id);
    }
    v->id[v->n++] = id;
}

void ids_clear(Ids *v) { v->n = 0; }

void ids_free(Ids *v) {
    free(v->id);
    *v = (Ids){0};
}

size_t str_plain(const char *text, size_t n) {
    size_t at = 0;
    for (int len; at < n && text[at]; at += (size_t)len)
        if (!(len = utf8_length((const unsigned char *)text + at, n - at))) break;
    return at;
}

// Replaces [from, to) by at most three stars; returns the text behind them.
static char *put_stars(char *from, char *to) {
    size_t stars = to - from < 3 ? (size_t)(to - from) : 3;
    memset(from, '*', stars);
    memmove(from + stars, to, strlen(to) + 1);
    return from + stars;
}

// The @ behind user and password of the URL whose authority begins at `user`, or NULL. A password may hold characters
// that would end an authority: then what would be the port is no number, and the last @ of the line counts.
static char *user_end(char *user) {
    char *end = NULL, *port = NULL, *p = user;
    for (; *p && !strchr("/?# \t\n\"'`,", *p); p++) {
        if (p[0] == '\\' && p[1] == ',') p++; // a comma within a parameter
        else if (*p == '@') end = p;
        else if (*p == ':') port = p + 1;
    }
    if (end || !port || *user == '[' || port + strspn(port, "0123456789") == p) return end;
    for (p = user; *p && *p != '\n'; p++)
        if (*p == '@') end = p;
    return end;
}

void str_hide_users(char *text) {
    for (char *at = text; (at = strstr(at, "://"));) {
        char *user = at += 3, *end = user_end(user);
        if (end && end > user) at = put_stars(user, end);
    }
}

void str_hide_passwords(char *text) {
    str_hide_users(text);
    for (char *word = text; *(word += strspn(word, " \t\n"));) {
        size_t n = strcspn(word, " \t\n");
        char *end = memrchr(word, '@', n), *value = end ? memchr(word, '=', (size_t)(end - word)) : NULL;
        char *user = value ? value + 1 : word + strspn(word, "\"'`([");
        bool url = memmem(word, n, "://", 3) != NULL;
        if (url || !end || end <= user || !memchr(user, ':', (size_t)(end - user))) word += n;
        else word = put_stars(user, end), word += strcspn(word, " \t\n");
    }
}
