// Directories that appear whole or not at all.
#pragma once
#include "error.h"
#include "ops.h"

// A directory is written as path.tmp, every file fsynced, read back, then renamed to path; what stood there before is
// path.old for the moment between two renames, then removed. A failed write removes path.tmp; its error names the bytes
// needed and the bytes free (EXIT_DISK).
#define DISK_BLOCK ((size_t)16 << 20) // bytes; checksums are kept for each block of a file
typedef struct {
    char *name;     // relative to the directory
    uint64_t bytes; // written so far
    uint32_t *crc;  // [ceil(bytes / DISK_BLOCK)] CRC32C of each block
} OutFile;
typedef struct {
    char *path, *tmp, *old;
    uint64_t planned, written; // bytes
    OutFile *file;             // [n_files]; the last one is open where fd >= 0
    int n_files, fd;
} OutDir;
// Starts a directory that will take about `planned` bytes; refuses at once where they do not fit.
bool outdir_begin(OutDir *d, const char *path, uint64_t planned, Error *e);
// The same at a path that the user chose, whose neighbours may be the user's: it is written as path.tmp.PID, what stood
// there is path.old.PID meanwhile. What processes left there that were killed is removed, or put back at the path.
bool outdir_begin_beside(OutDir *d, const char *path, uint64_t planned, Error *e);
// A new file; names may hold one directory ("state/m").
bool outdir_open(OutDir *d, const char *name, Error *e);
bool outdir_write(OutDir *d, const void *data, size_t bytes, Error *e);
bool outdir_write_device(OutDir *out, Device *d, const void *data, size_t bytes, Error *e); // d's memory; see staging.c
bool outdir_close(OutDir *d, Error *e);
bool outdir_put(OutDir *d, const char *name, const void *data, size_t bytes, Error *e); // the three above
bool outdir_commit(OutDir *d, Error *e); // after it, as after every failure, only outdir_free is left to call
void outdir_free(OutDir *d);             // without a commit: removes what was written
// Makes a directory, and those above it that are not there.
bool disk_mkdir(const char *path, Error *e);
// Removes a file or a whole tree; an absent one is fine.
bool disk_remove(const char *path, Error *e);
bool disk_rename(const char *from, const char *to, Error *e); // fsyncs the directory too
