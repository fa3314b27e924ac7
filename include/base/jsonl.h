// JSON lines, one at a time, and the fields of an object.
#pragma once
#include "error.h"
#include <jansson.h>
#include <stdint.h>

#define JSONL_MAX_LINE ((size_t)16 << 20) // bytes; a longer line is refused, in bounded memory

// Reads a file or a pipe line by line. A byte-order mark at its start, CRLF and a missing last newline are understood;
// blank lines are passed over.
typedef struct {
    int fd;
    const char *path; // for errors
    int64_t line;     // number of the current line, from 1
    int64_t offset;   // byte of the file where it begins
    int64_t next;     // and where the next one does
    char *buffer;     // [begin, end) is read but not yet given out
    size_t begin, end, cap;
    bool last;  // the file has no more bytes than the buffer
    bool json;  // lines must be objects
    bool known; // its first bytes have been looked at
} LineReader;
// "-": standard input. What is no text is refused by its name (see file_foreign), at the latest with the first line; of
// what must be JSON lines, tables and lists too.
bool line_reader_open(LineReader *r, const char *path, Error *e);
bool line_reader_open_json(LineReader *r, const char *path, Error *e);
void line_reader_close(LineReader *r);
// 1: a line in *text (valid until the next call, NUL-terminated, no newline), *n its bytes; 0: the end; -1: an error,
// with file:line. After EXIT_INPUT (a line that is too long) the next call goes on with the line that follows.
// EXIT_STOPPED: a signal asked to stop while it waited (see signals_wait).
int line_reader_next(LineReader *r, char **text, size_t *n, Error *e);
// The next line given will be the one that begins at `offset`, numbered `line`. Files only.
void line_reader_seek(LineReader *r, int64_t offset, int64_t line);
// A string field of a JSON object, or NULL after filling *e: absent, not a string, or with a NUL character in it.
const char *json_field_string(const json_t *object, const char *field, const char *where, Error *e);
// A number, list or object in the field becomes its text: answers are numbers, and test cases stand in answer fields as
// lists and objects.
void json_field_to_text(json_t *object, const char *field);
