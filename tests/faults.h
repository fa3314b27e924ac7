// A disk that fails on demand. The calls below take the place of the C library's in a test program, so the code under
// test needs no hook. Every call that changes the disk is counted; the chosen one kills the process as a power cut
// would (files not yet fsynced lose their second half), fails with an errno, or writes something else and says nothing.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FAULT_EXIT = 99 };

static struct {
    int at;    // the call that is hit, from 1; 0: none
    int error; // its errno; 0: it kills
    bool full; // with `error`: from that call on whatever needs space fails; nothing else does
    bool lie;  // statvfs promises more space than there is
    enum { RIGHT, CHANGED, LOST } wrong; // what the write that is hit leaves, though it says that all is well
    int calls;                           // so far
    int unsynced[8];                     // descriptors of files written but not fsynced
    int watched[8];                      // the descriptors the code itself has for them
    int n_unsynced;
} disk;

static void power_cut(void) {
    for (int i = 0; i < disk.n_unsynced; i++) {
        struct stat s;
        if (fstat(disk.unsynced[i], &s) == 0 && ftruncate(disk.unsynced[i], s.st_size / 2)) _exit(1);
    }
    _exit(FAULT_EXIT);
}

// True where the call must fail; errno is set.
static bool hit(bool needs_space) {
    if (disk.wrong) return false;
    disk.calls++;
    if (!disk.at) return false;
    bool now = disk.full ? needs_space && disk.calls >= disk.at : disk.calls == disk.at;
    if (now && !disk.error) power_cut();
    if (now) errno = disk.error;
    return now;
}

int open(const char *path, int flags, ...) {
    va_list ap;
    va_start(ap, flags);
    int mode = flags & O_CREAT ? va_arg(ap, int) : 0;
    va_end(ap);
    if (flags & O_CREAT && hit(true)) return -1;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && flags & O_CREAT && disk.at && disk.n_unsynced < 8) {
        disk.watched[disk.n_unsynced] = fd;
        disk.unsynced[disk.n_unsynced++] = dup(fd);
    }
    return fd;
}

ssize_t write(int fd, const void *data, size_t n) {
    if (fd > 2 && disk.wrong && ++disk.calls == disk.at) {
        char first = (char)(n ? *(const char *)data ^ 1 : 0);
        if (disk.wrong == LOST || !n) return (ssize_t)n;
        struct iovec changed[2] = {{&first, 1}, {(char *)data + 1, n - 1}};
        return writev(fd, changed, 2);
    }
    if (fd > 2 && hit(true)) return -1;
    return syscall(SYS_write, fd, data, n);
}

// The power cut decides what is durable, not the disk under the test.
int fsync(int fd) {
    if (hit(false)) return -1;
    for (int i = 0; i < disk.n_unsynced; i++)
        if (disk.watched[i] == fd) {
            close(disk.unsynced[i]);
            disk.n_unsynced--;
            disk.unsynced[i] = disk.unsynced[disk.n_unsynced];
            disk.watched[i] = disk.watched[disk.n_unsynced];
        }
    return 0;
}

int mkdir(const char *path, mode_t mode) { return hit(true) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode); }
int rename(const char *from, const char *to) {
    return hit(false) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
int unlink(const char *path) { return hit(false) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0); }
int rmdir(const char *path) { return hit(false) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR); }

int statvfs(const char *path, struct statvfs *s) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
    int r = fd < 0 ? -1 : fstatvfs(fd, s);
    if (fd >= 0) close(fd);
    if (r == 0 && disk.lie) s->f_bavail = (fsblkcnt_t)1 << 40;
    return r;
}
