// Str: a growable, always NUL-terminated byte string. Ids: a growable array of token ids. Zero-initialise, then use.
#pragma once
#include "error.h"
#include <stdint.h>

typedef struct {
    char *s;  // NUL-terminated once anything was added; NULL before
    size_t n; // bytes, without the NUL
    size_t cap;
} Str;

void str_add(Str *s, const char *bytes, size_t n);
void str_puts(Str *s, const char *text);
void str_printf(Str *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
void str_clear(Str *s); // keeps the memory
void str_free(Str *s);
// Adds a number as Python's repr writes a float: the fewest digits that read back as x, with an exponent below 1e-4 and
// from 1e16 on.
void str_real(Str *s, double x);
// Adds a number as JSON: nine digits, which read back as the same f32; null where it is not finite.
void str_json_number(Str *s, double x);
// Adds text as a JSON string literal, quotes included; control bytes and invalid UTF-8 are escaped.
void str_json(Str *s, const char *text, size_t n);
// Adds text made safe for a terminal: control bytes other than \n and \t, and characters that turn the direction of
// text, become \xNN.
void str_visible(Str *s, const char *text, size_t n);
// Where the text ceases to be plain: the first byte that is NUL or part of no valid UTF-8; n: nowhere.
size_t str_plain(const char *text, size_t n);
// Replaces "http://user:password@host" by "http://***@host" everywhere in the text.
void str_hide_users(char *text);
// The same, and also "user:password@host" where the beginning of the URL is missing: for messages, which are never
// parsed.
void str_hide_passwords(char *text);

typedef struct {
    int32_t *id;
    size_t n, cap;
} Ids;

void ids_add(Ids *v, int32_t id);
void ids_clear(Ids *v);
void ids_free(Ids *v);
