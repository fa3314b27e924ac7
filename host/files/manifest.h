// manifest.json of a checkpoint: every file with its size and the CRC32C of each DISK_BLOCK of it, and its own.
#pragma once
#include "error.h"
#include "ops.h"
#include "outdir.h"
#include <jansson.h>

// Writes it as the last file of a directory.
bool manifest_write(OutDir *d, int64_t step, Error *e);
// Reads dir/manifest.json; refuses one that is not, byte for byte, what manifest_write makes. NULL after filling *e.
json_t *manifest_read(const char *dir, Error *e);
int64_t manifest_step(const json_t *manifest);
// Bytes of one file, or -1 where the manifest does not have it.
int64_t manifest_bytes(const json_t *manifest, const char *name);
// Reads one file and checks it against the manifest; its bytes go to `into` (of that size; memory of d, or of the
// host where d is NULL), or nowhere where that is NULL.
bool manifest_check(const json_t *manifest, const char *dir, const char *name, Device *d, void *into, Error *e);
// manifest_check of every file but the names in skip[n_skip].
bool manifest_check_all(const json_t *manifest, const char *dir, const char *const *skip, int n_skip, Error *e);

// ---- blocks.c --------------------------------------------------------------------------------------------------------
// Reads blocks [first, end) of a file of `bytes` bytes, DISK_BLOCK each, and holds them against crc[end]; `into`, where
// it is not NULL, takes the file from byte `from` on. EXIT_DISK: unreadable; EXIT_INPUT: another checksum.
bool blocks_check(int fd, const char *path, const uint32_t *crc, int64_t first, int64_t end, uint64_t bytes, char *into,
                  uint64_t from, Error *e);
