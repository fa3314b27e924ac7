// Strict JSON through Jansson.
#pragma once
#include "error.h"
#include "str.h"
#include <jansson.h>

// Parses JSON as RFC 8259 has it: refuses bad UTF-8, depth > 64, trailing text. `where` names the place in errors
// ("file:line"; the column is added). Where a key repeats the last one counts, as in Python. NULL after filling *e.
// A number that fits neither 64 bits nor a double becomes a string that json_wide_number recognises.
json_t *json_parse(const char *text, size_t n, const char *where, Error *e);
// The digits of such a number as they were written; NULL where j is anything else. (It is a string that begins with a
// NUL, which json_field_string refuses.)
const char *json_wide_number(const json_t *j);
// Whether j was written as a string: to json_is_string such a number is one too.
bool json_is_written_string(const json_t *j);
// json_parse for a text of many lines ("file"; line and column are added); refuses keys that repeat.
json_t *json_parse_unique(const char *text, size_t n, const char *where, Error *e);
// The text of a JSON string; NULL where j is no string, or holds a NUL, at which a C string would end.
const char *json_text(const json_t *j);
// Reads a whole file by json_parse_unique, at most 256 MiB.
json_t *json_read(const char *path, Error *e);
// Adds j as text: a real in the fewest digits that read back as the same number, a number that does not fit as it was
// written.
typedef enum {
    JSON_PYTHON, // one line, as Python's json.dumps(ensure_ascii=False)
    JSON_TIGHT,  // one line without spaces
    JSON_LINES   // indented by two, as json.dumps(indent=2, ensure_ascii=False), in which HF writes a model's files
} JsonLayout;
void json_write(Str *out, const json_t *j, JsonLayout layout);
