// Checks a file block by block against its checksums, on all cores.
#include "crc32c.h"
#include "manifest.h"
#include "ranks.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { PIECE = 1 << 20 }; // bytes read at a time: still in the cache when summed

// Computes the CRC32C of bytes [at, at + n) of a file, and stores the bytes in `into` unless that is NULL. False where
// reading failed; errno is 0 then if the file ended too early.
static bool block_sum(int fd, uint64_t at, size_t n, char *into, char *buffer, uint32_t *crc) {
    *crc = 0;
    for (size_t done = 0; done < n;) {
        ranks_alive();
        size_t ask = n - done < PIECE ? n - done : PIECE;
        char *to = into ? into + done : buffer;
        ssize_t got = pread(fd, to, ask, (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = 0;
        if (got <= 0) return false;
        *crc = crc32c(*crc, to, (size_t)got);
        done += (size_t)got;
    }
    return true;
}

// Reads block i and compares its checksum with crc[i].
static bool block_check(int fd, const char *path, const uint32_t *crc, int64_t i, uint64_t bytes, char *into,
                        uint64_t from, char *buffer, Error *e) {
    uint64_t at = (uint64_t)i * DISK_BLOCK;
    size_t n = bytes - at < DISK_BLOCK ? (size_t)(bytes - at) : DISK_BLOCK;
    uint32_t sum;
    if (!block_sum(fd, at, n, into ? into + (at - from) : NULL, buffer, &sum))
        return error_set(e, EXIT_DISK, "%s: cannot read bytes %llu..%llu: %s", path, (unsigned long long)at,
                         (unsigned long long)(at + n - 1), errno ? strerror(errno) : "the file has been cut short");
    if (sum == crc[i]) return true;
    return error_set(e, EXIT_INPUT, "%s: damaged somewhere in bytes %llu..%llu: the checksum differs", path,
                     (unsigned long long)at, (unsigned long long)(at + n - 1));
}

bool blocks_check(int fd, const char *path, const uint32_t *crc, int64_t first, int64_t end, uint64_t bytes, char *into,
                  uint64_t from, Error *e) {
    int64_t failed = end;
#pragma omp parallel if (end - first > 1)
    {
        char *buffer = xmalloc(PIECE);
        Error mine;
#pragma omp for schedule(dynamic)
        for (int64_t i = first; i < end; i++) {
            if (block_check(fd, path, crc, i, bytes, into, from, buffer, &mine)) continue;
#pragma omp critical(manifest_error)
            if (i < failed) {
                failed = i;
                if (e) *e = mine;
            }
        }
        free(buffer);
    }
    return failed == end;
}
