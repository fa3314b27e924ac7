// Writing to standard output and standard error without hanging, and without losing errors.
#pragma once
#include "error.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
// Writes bytes to a descriptor at once, past the streams. It waits for a pipe that is full or a terminal that is
// stopped; but once a stop is requested for half a second in all at most, so that a reader who does not read cannot
// hold up the end: what does not fit is then dropped. False where something was not written.
bool output_write(int fd, const char *bytes, size_t n);
// Writes what standard output's stream still holds. False after filling *e (EXIT_DISK) where anything printed there, or
// written by output_write, could not be written; what was dropped because of a stop does not count.
bool output_flush(Error *e);
// Whether fd is a terminal that understands escape sequences: not with TERM unset, empty or dumb.
bool output_is_screen(int fd);
#ifdef __cplusplus
}
#endif
