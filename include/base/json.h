// Strict JSON through Jansson.
#pragma once
#include "error.h"
#include <jansson.h>

// RFC 8259: refuses bad UTF-8, depth > 64, trailing text. `where` names the place in errors
// ("file:line"; the column is added). Of keys that repeat the last one counts, as in Python. NULL after filling *e.
// A number that fits neither 64 bits nor a double is a string of its own kind: see json_wide_number.
json_t *json_parse(const char *text, size_t n, const char *where, Error *e);
// The digits of such a number as they were written; NULL where j is something else. In memory it is a string that begins
// with a NUL, which json_field_string takes for none.
const char *json_wide_number(const json_t *j);
// The same, with such numbers refused, for a text of many lines ("file"; line and column are added) whose keys must not repeat.
json_t *json_parse_unique(const char *text, size_t n, const char *where, Error *e);
// A string's text; NULL for what is no string, or holds a NUL, at which a C string would be cut.
const char *json_text(const json_t *j);
// A whole file through json_parse_unique, at most 256 MiB.
json_t *json_read(const char *path, Error *e);
