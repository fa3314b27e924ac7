// Line logs: files of whole lines that a run adds to and cuts back. See line_log.h.
#include "line_log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <string.h>

enum { LOG_BLOCK = 1 << 16 }; // bytes read at a time

static bool disk_error(const Log *l, const char *doing, Error *e) {
    return error_set(e, EXIT_DISK, "%s: %s failed: %s; free some space or choose another place", l->path, doing,
                     error_write(errno));
}

// Takes a lock on the log, which the system releases when the process ends, however it ends: two runs that write into
// one directory would destroy each other's logs and checkpoints. Where the file system has no locks, the run goes on
// without.
static bool log_lock(const Log *l, Error *e) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (!fcntl(l->fd, F_SETLK, &whole) || (errno != EAGAIN && errno != EACCES)) return true;
    if (fcntl(l->fd, F_GETLK, &whole) || whole.l_type == F_UNLCK) whole.l_pid = 0;
    return error_set(e, EXIT_CONFIG,
                     "%s: another run is writing it (process %ld); wait for its end, or choose another place", l->path,
                     (long)whole.l_pid);
}

// Finds where the first `lines` lines of the file end, or its last whole line if it has fewer. Sets l->bytes and
// l->lines.
static bool log_measure(Log *l, int64_t lines, Error *e) {
    char *block = xmalloc(LOG_BLOCK);
    ssize_t n = 1;
    for (size_t at = 0; l->lines < lines && n; at += n > 0 ? (size_t)n : 0) {
        n = pread(l->fd, block, LOG_BLOCK, (off_t)at);
        if (n < 0 && errno != EINTR) break;
        for (ssize_t i = 0; i < n && l->lines < lines; i++)
            if (block[i] == '\n') l->lines++, l->bytes = at + (size_t)i + 1;
    }
    free(block);
    return n >= 0 || disk_error(l, "reading", e);
}

bool log_open(Log *l, const char *dir, const char *name, int64_t lines, Error *e) {
    *l = (Log){.path = xasprintf("%s/%s", dir, name)};
    l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666); // do not hang on a pipe
    struct stat st;
    if (l->fd < 0 || fstat(l->fd, &st)) return disk_error(l, "opening", e);
    if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
        return error_set(e, EXIT_DISK, "%s: is no regular file; move it away, or choose another place", l->path);
    if (S_ISCHR(st.st_mode)) return true;                           // such as /dev/null: nothing to lock or cut
    if (!log_lock(l, e) || !log_measure(l, lines, e)) return false; // before anything is cut
    if (l->lines < lines)
        note(
            "%s has %lld whole lines, the checkpoint knew of %lld: the others are missing; going on after the last one",
            l->path, (long long)l->lines, (long long)lines);
    if (ftruncate(l->fd, (off_t)l->bytes)) return disk_error(l, "cutting it back", e);
    if (lseek(l->fd, (off_t)l->bytes, SEEK_SET) < 0) return disk_error(l, "seeking", e);
    return true;
}

void log_close(Log *l) {
    if (l->fd >= 0) close(l->fd);
    free(l->path);
    str_free(&l->pending);
}

bool log_commit(Log *l, Error *e) {
    for (size_t done = 0; done < l->pending.n;) {
        ssize_t n = write(l->fd, l->pending.s + done, l->pending.n - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            if (n == 0) errno = ENOSPC;
            disk_error(l, "writing", e);
            if (ftruncate(l->fd, (off_t)l->bytes) == 0) lseek(l->fd, (off_t)l->bytes, SEEK_SET);
            return false;
        }
        done += (size_t)n;
    }
    l->bytes += l->pending.n;
    for (size_t i = 0; i < l->pending.n; i++) l->lines += l->pending.s[i] == '\n';
    str_clear(&l->pending);
    struct stat st;
    if (!l->lost && !fstat(l->fd, &st) && !st.st_nlink) {
        l->lost = true;
        note("%s was deleted: what is logged from here on is lost, the run is not", l->path);
    }
    return true;
}

bool log_sync(const Log *l, Error *e) {
    // EINVAL, EROFS: this kind of file cannot be synced.
    if (fdatasync(l->fd) && errno != EINVAL && errno != EROFS) return disk_error(l, "flushing", e);
    return true;
}
