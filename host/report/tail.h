// The whole lines of a file that may still grow.
#pragma once
#include "error.h"
#include <stdint.h>

typedef struct {
    char *path;
    int fd;          // somebody else's, which is open; -1: the path is opened for each look
    int64_t offset;  // bytes read so far: up to the end of the last whole line
    int64_t half;    // bytes behind it at the last look: a line that is being written, or that a killed run left
    int64_t skipped; // lines that were too long to be read
} Tail;
// `line` is s[n], without its newline and NUL-terminated, valid during the call.
typedef void TailLine(void *to, char *s, size_t n);
Tail tail_open(const char *dir, const char *name);
void tail_close(Tail *t);
// Gives the lines written since the last call. An absent file has none. Where the file is shorter than what was read of it,
// as a resumed run makes it, it is read from its start again: `again`, where it is not NULL, is called first, for what was
// made of the lines so far is void. EXIT_INPUT (what is no regular file), EXIT_DISK.
bool tail_read(Tail *t, TailLine *line, void (*again)(void *to), void *to, Error *e);
