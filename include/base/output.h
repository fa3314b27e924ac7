// Standard output and standard error: what is printed there, and where it cannot be.
#pragma once
#include "error.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
// Writes bytes to a descriptor at once, past the streams. A pipe that is full, or a stopped terminal, is waited for; once a
// stop is requested no longer than half a second in all, so that a reader who does not read cannot hold up the end: what has
// no room then is dropped. False where something was not written.
bool output_write(int fd, const char *bytes, size_t n);
// Writes what standard output's stream still holds. False after filling *e (EXIT_DISK) where anything that was printed
// there, or output_write gave it, could not be written; what was dropped on the way to a stop does not count.
bool output_flush(Error *e);
// A terminal that understands escape sequences: not with TERM unset, empty or dumb.
bool output_is_screen(int fd);
#ifdef __cplusplus
}
#endif
