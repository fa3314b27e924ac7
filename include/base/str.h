// Str: a growable, always NUL-terminated byte string. Ids: the same for token ids. Zero-initialise, then use.
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
// A number as Python's repr writes a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
void str_real(Str *s, double x);
// A number as JSON has it: nine digits, which bring every f32 back; null where it is not finite.
void str_json_number(Str *s, double x);
// Text as a JSON string literal, quotes included; control bytes and invalid UTF-8 are escaped.
void str_json(Str *s, const char *text, size_t n);
// Text made safe for a terminal: control bytes other than \n and \t shown as \xNN.
void str_visible(Str *s, const char *text, size_t n);
// "http://user:password@host" becomes "http://***@host", wherever it stands in the text.
void str_hide_users(char *text);
// The same, and "user:password@host" of a URL whose beginning is missing: for messages, which nobody reads back.
void str_hide_passwords(char *text);

typedef struct {
    int32_t *id;
    size_t n, cap;
} Ids;

void ids_add(Ids *v, int32_t id);
void ids_clear(Ids *v);
void ids_free(Ids *v);
