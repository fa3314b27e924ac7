// manifest.json of a checkpoint: the size of every file, the CRC32C of each of its DISK_BLOCKs, and a CRC32C of the
// manifest itself.
#pragma once
#include "error.h"
#include "ops.h"
#include "outdir.h"
#include <jansson.h>

// Writes the manifest as the last file of a directory.
bool manifest_write(OutDir *d, int64_t step, Error *e);
// Reads dir/manifest.json; refuses one that is not, byte for byte, what manifest_write makes. NULL after filling *e.
json_t *manifest_read(const char *dir, Error *e);
int64_t manifest_step(const json_t *manifest);
// Bytes of one file, or -1 where the manifest does not have it.
int64_t manifest_bytes(const json_t *manifest, const char *name);
// Reads one file and checks it against the manifest. Stores its bytes in `into` unless that is NULL; `into` has the
// file's size and is memory of d, or of the host where d is NULL.
bool manifest_check(const json_t *manifest, const char *dir, const char *name, Device *d, void *into, Error *e);
// manifest_check of every file but the names in skip[n_skip].
bool manifest_check_all(const json_t *manifest, const char *dir, const char *const *skip, int n_skip, Error *e);

// ---- blocks.c -------------------------------------------------------------------------------------------------------
// Reads blocks [first, end), DISK_BLOCK bytes each, of a file of `bytes` bytes and compares their checksums with
// crc[end]. Where `into` is not NULL, into[0] is byte `from` of the file. EXIT_DISK: unreadable; EXIT_INPUT: another
// checksum.
bool blocks_check(int fd, const char *path, const uint32_t *crc, int64_t first, int64_t end, uint64_t bytes, char *into,
                  uint64_t from, Error *e);
