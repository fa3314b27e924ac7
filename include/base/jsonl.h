// Reading JSON lines, one at a time, and the fields of an object.
#pragma once
#include "error.h"
#include <jansson.h>
#include <stdint.h>

#define JSONL_MAX_LINE ((size_t)16 << 20) // bytes; a longer line is refused, in bounded memory

// Reads a file or a pipe line by line. A byte-order mark at the start, CRLF and a missing last newline are accepted;
// blank lines are skipped.
typedef struct {
    int fd;
    const char *path; // for errors
    int64_t line;     // number of the current line, from 1
    int64_t offset;   // byte of the file at which it begins
    int64_t next;     // byte at which the next one begins
    char *buffer;     // [begin, end) is read but not yet given out
    size_t begin, end, cap;
    bool last;  // whether the file has no more bytes than the buffer
    bool json;  // whether lines must be objects
    bool known; // whether its first bytes have been checked by file_foreign
} LineReader;
// Opens a file, or standard input for "-". What file_foreign knows is refused, at the latest with the first line; by
// line_reader_open_json, tables and lists too.
bool line_reader_open(LineReader *r, const char *path, Error *e);
bool line_reader_open_json(LineReader *r, const char *path, Error *e);
void line_reader_close(LineReader *r);
// Reads a line. Returns 1 with the line in *text (valid until the next call, NUL-terminated, no newline) and its bytes
// in *n; 0 at the end; -1 after filling *e, with file:line. After EXIT_INPUT (a line that is too long) the next call
// goes on with the line that follows. EXIT_STOPPED: a signal asked to stop while it waited (signals_wait).
int line_reader_next(LineReader *r, char **text, size_t *n, Error *e);
// Makes the next line the one that begins at `offset`, with number `line`. Files only.
void line_reader_seek(LineReader *r, int64_t offset, int64_t line);
// A string field of a JSON object, or NULL after filling *e: absent, not a string, or with a NUL character in it.
const char *json_field_string(const json_t *object, const char *field, const char *where, Error *e);
// Replaces a number, list or object in the field by its JSON text: answers may be numbers, and test cases lists or
// objects.
void json_field_to_text(json_t *object, const char *field);
