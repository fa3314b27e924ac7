// Reads the whole lines of a file that may still grow.
#pragma once
#include "error.h"
#include <stdint.h>

typedef struct {
    char *path;
    int fd;          // an open descriptor, which the caller owns; -1: the path is opened at each tail_read
    int64_t offset;  // bytes read so far: up to the end of the last whole line
    int64_t half;    // bytes behind `offset` at the last read: a line being written, or one that a killed run left
    int64_t skipped; // lines that were too long to be read
} Tail;
// Called with each line s[n], without its newline, NUL-terminated, valid during the call only.
typedef void TailLine(void *to, char *s, size_t n);
Tail tail_open(const char *dir, const char *name);
void tail_close(Tail *t);
// Calls `line` for the lines written since the last call; an absent file has none. Where the file has become shorter
// than what was read of it (a resumed run cut it back), it is read from its start again; first `again` is called,
// unless NULL, to throw away what was made of the lines so far. EXIT_INPUT: not a regular file; EXIT_DISK.
bool tail_read(Tail *t, TailLine *line, void (*again)(void *to), void *to, Error *e);
