// A file that appears whole or not at all: written beside its place, then renamed into it.
#pragma once
#include "error.h"
#include <stdio.h>

typedef struct {
    char *path, *tmp;
    FILE *file;
    bool lasting;
} WholeFile;
// Starts a file at `path`. With `lasting` the file is synced before it is renamed, so that a power cut leaves the new
// or the old one; this waits for the disk. What a process of this machine left that was killed while it wrote the same
// file is removed. whole_close must be called even where this fails.
bool whole_open(WholeFile *w, const char *path, bool lasting, Error *e);
bool whole_add(WholeFile *w, const char *bytes, size_t n, Error *e);
// Renames the file to its path. Where it is not `good`, or renaming fails, deletes it instead, and an earlier file at
// that path stays. Returns whether the new file is there; *e is filled (EXIT_DISK) by failures of this call, not for
// !good.
bool whole_close(WholeFile *w, bool good, Error *e);
bool whole_write(const char *path, const char *bytes, size_t n, bool lasting, Error *e); // the three above
// Whether a name is that of a file, or of what a process that was killed while it wrote that file left beside it.
bool whole_is_of(const char *name, const char *file);
// Where the file of that name goes: what links lead to, there already or not, so that a link stays one. Heap memory.
char *whole_place(const char *path);
// Whether no file can take the place of what is at `path`, so that bytes are written into it: a pipe, a device, or what
// standard output or error goes to (/dev/stdout), though that be a file.
bool whole_is_fixed(const char *path);
// Writes into it, behind what is there; *e is filled (EXIT_DISK) by failures, of which a pipe that nobody reads is one.
bool whole_write_into(const char *path, const char *bytes, size_t n, Error *e);
// Whether a program's output may take the place of what is at `path`: nothing, an empty file, what is written
// into (a pipe, /dev/null), or a file that begins with `head`, as the same output of an earlier run does (spaces
// between JSON's words do not count; NULL: no file). If not, fills *e (EXIT_DISK), which calls that output `what`.
bool whole_replaces(const char *path, const char *head, const char *what, Error *e);
