// A file that appears whole or not at all: written beside its place, then renamed into it.
#pragma once
#include "error.h"
#include <stdio.h>

typedef struct {
    char *path, *tmp;
    FILE *file;
    bool lasting;
} WholeFile;
// Starts a file at `path`. `lasting`: it is on the disk before it takes its place, so that a power cut leaves this one or
// the earlier one; it costs a wait. whole_close is due also where it fails.
bool whole_open(WholeFile *w, const char *path, bool lasting, Error *e);
bool whole_add(WholeFile *w, const char *bytes, size_t n, Error *e);
// Puts it into its place; where it is not `good`, or fails, takes it away, and what stood there stays. Returns whether it is
// there; *e is filled by failures of its own alone (EXIT_DISK).
bool whole_close(WholeFile *w, bool good, Error *e);
bool whole_write(const char *path, const char *bytes, size_t n, bool lasting, Error *e); // the three above
