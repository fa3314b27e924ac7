// Strict JSON through Jansson.
#pragma once
#include "error.h"
#include <jansson.h>

// Parses JSON as RFC 8259 has it: refuses bad UTF-8, depth > 64, trailing text. `where` names the place in errors
// ("file:line"; the column is added). Where a key repeats the last one counts, as in Python. NULL after filling *e.
// A number that fits neither 64 bits nor a double becomes a string that json_wide_number recognises.
json_t *json_parse(const char *text, size_t n, const char *where, Error *e);
// The digits of such a number as they were written; NULL where j is anything else. (It is a string that begins with a
// NUL, which json_field_string refuses.)
const char *json_wide_number(const json_t *j);
// json_parse for a text of many lines ("file"; line and column are added); refuses keys that repeat, and such numbers.
json_t *json_parse_unique(const char *text, size_t n, const char *where, Error *e);
// The text of a JSON string; NULL where j is no string, or holds a NUL, at which a C string would end.
const char *json_text(const json_t *j);
// Reads a whole file by json_parse_unique, at most 256 MiB.
json_t *json_read(const char *path, Error *e);
