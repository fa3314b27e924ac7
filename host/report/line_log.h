// A line log: a file of whole lines that one process appends to. When a run is resumed it is cut back to the
// checkpoint.
#pragma once
#include "error.h"
#include "str.h"
#include <stdint.h>

typedef struct {
    char *path;
    int fd;        // below 0: not open
    size_t bytes;  // committed bytes
    int64_t lines; // committed lines
    bool lost;     // the file was deleted meanwhile, and a note said so
    Str pending;   // lines not committed yet
} Log;
// Opens (or makes) dir/name, locks it, and cuts it back to its first `lines` lines. False after filling *e (EXIT_DISK;
// EXIT_CONFIG: another process writes it); log_close must be called in either case.
bool log_open(Log *l, const char *dir, const char *name, int64_t lines, Error *e);
// Writes all of `pending`, or none of it: a failed write is cut off again, so that no half line stays (EXIT_DISK).
bool log_commit(Log *l, Error *e);
bool log_sync(const Log *l, Error *e); // waits until what was committed is on the disk
void log_close(Log *l);                // drops what is pending; does nothing for a log that was never opened (fd -1)
