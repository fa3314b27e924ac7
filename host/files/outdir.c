// Directories that appear whole or not at all: the one place where models and checkpoints reach the disk.
#include "crc32c.h"
#include "device.h"
#include "manifest.h"
#include "ranks.h"
#include "staging.h"
#include "str.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <stdio.h>
#include <string.h>

static bool io_error(Error *e, const char *what, const char *path) {
    return error_set(e, EXIT_DISK, "%s: cannot %s: %s", path, what, error_write(errno));
}

// Bytes an ordinary user may still write where `path` lies; UINT64_MAX where the system does not tell.
static uint64_t disk_free(const char *path) {
    struct statvfs s;
    return statvfs(path, &s) ? UINT64_MAX : (uint64_t)s.f_bavail * s.f_frsize;
}

// The directory `path` lies in, on the heap.
static char *parent_of(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    while (n > 0 && path[n - 1] != '/') n--;
    return n ? xstrndup(path, n) : xstrdup(".");
}

static bool directory_sync(const char *path, Error *e) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return io_error(e, "open the directory", path);
    bool ok = fsync(fd) == 0 || errno == EINVAL; // EINVAL: this file system cannot sync directories
    if (!ok) io_error(e, "sync the directory", path);
    close(fd);
    return ok;
}

static bool parent_sync(const char *path, Error *e) {
    char *parent = parent_of(path);
    bool ok = directory_sync(parent, e);
    free(parent);
    return ok;
}

bool disk_mkdir(const char *path, Error *e) {
    char *p = xstrdup(path);
    bool ok = true;
    for (char *slash = p; ok && slash;) {
        slash = strchr(slash + 1, '/');
        if (slash) *slash = 0;
        struct stat s;
        int why = mkdir(p, 0777) ? errno : 0;
        if (!why) ok = parent_sync(p, e);
        else if (stat(p, &s) || !S_ISDIR(s.st_mode))
            ok = error_set(e, EXIT_DISK, "%s: cannot make the directory %s: %s; choose another place to write to", path,
                           p, error_write(why == EEXIST ? ENOTDIR : why));
        if (slash) *slash = '/';
    }
    free(p);
    return ok;
}

bool disk_remove(const char *path, Error *e) {
    if (unlink(path) == 0 || errno == ENOENT) return true;
    if (errno != EISDIR && errno != EPERM) return io_error(e, "remove", path);
    DIR *dir = opendir(path);
    if (!dir) return io_error(e, "remove", path);
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char *child = xasprintf("%s/%s", path, entry->d_name);
        ok = disk_remove(child, e);
        free(child);
    }
    closedir(dir);
    return ok && (rmdir(path) == 0 || io_error(e, "remove", path));
}

bool disk_rename(const char *from, const char *to, Error *e) {
    if (rename(from, to)) return error_set(e, EXIT_DISK, "%s: cannot rename to %s: %s", from, to, error_write(errno));
    return parent_sync(to, e);
}

// ---- one directory ----------------------------------------------------------------------------------------------

static bool refuse_full(Error *e, const OutDir *d, const char *path, uint64_t at, const char *why) {
    uint64_t need = d->planned > d->written ? d->planned - d->written : 0;
    char *parent = parent_of(d->path);
    uint64_t room = disk_free(parent);
    Str there = {0};
    if (room != UINT64_MAX) str_printf(&there, ", %llu are free in %s", (unsigned long long)room, parent);
    error_set(e, EXIT_DISK,
              "%s: cannot write at byte %llu: %s; %llu more bytes are needed%s; make room, or choose another place",
              path, (unsigned long long)at, why, (unsigned long long)need, there.n ? there.s : "");
    str_free(&there);
    free(parent);
    return false;
}

static bool begin(OutDir *d, const char *path, const char *id, uint64_t planned, Error *e) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    *d = (OutDir){.path = xstrndup(path, n), .planned = planned, .fd = -1};
    d->old = xasprintf("%s.old%s", d->path, id);
    char *parent = parent_of(d->path), *tmp = xasprintf("%s.tmp%s", d->path, id);
    bool ok = disk_mkdir(parent, e) && disk_remove(tmp, e);
    if (ok && disk_free(parent) < planned) ok = refuse_full(e, d, d->path, 0, "not enough space");
    if (ok && mkdir(tmp, 0777)) ok = refuse_full(e, d, tmp, 0, error_write(errno));
    if (ok) d->tmp = tmp;
    else free(tmp);
    free(parent);
    return ok;
}

bool outdir_begin(OutDir *d, const char *path, uint64_t planned, Error *e) { return begin(d, path, "", planned, e); }

// Whether `name` is `stem` + `kind` + the id of a process that has ended.
static bool left_by_the_dead(const char *name, const char *stem, const char *kind) {
    size_t n = strlen(stem), k = strlen(kind);
    if (strncmp(name, stem, n) || strncmp(name + n, kind, k)) return false;
    const char *id = name + n + k;
    if (!*id || id[strspn(id, "0123456789")]) return false;
    long pid = strtol(id, NULL, 10);
    return pid > 0 && pid <= INT_MAX && kill((pid_t)pid, 0) && errno == ESRCH;
}

// Mends what killed processes left beside `path`: a process dies between two renames, or while it writes or removes.
static bool mend_left(const char *path, Error *e) {
    char *parent = parent_of(path);
    const char *slash = strrchr(path, '/'), *stem = slash ? slash + 1 : path;
    DIR *dir = opendir(parent);
    bool ok = true;
    for (struct dirent *entry; ok && dir && (entry = readdir(dir));) {
        bool old = left_by_the_dead(entry->d_name, stem, ".old.");
        if (!old && !left_by_the_dead(entry->d_name, stem, ".tmp.")) continue;
        char *left = xasprintf("%s/%s", parent, entry->d_name);
        struct stat s;
        ok = old && lstat(path, &s) ? disk_rename(left, path, e) : disk_remove(left, e);
        free(left);
    }
    if (dir) closedir(dir);
    free(parent);
    return ok;
}

bool outdir_begin_beside(OutDir *d, const char *path, uint64_t planned, Error *e) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    char *plain = xstrndup(path, n), id[16];
    // The process id is in the names so that they are nobody else's, and of two processes each has its own.
    snprintf(id, sizeof id, ".%d", (int)getpid());
    *d = (OutDir){.fd = -1};
    bool ok = mend_left(plain, e) && begin(d, path, id, planned, e);
    free(plain);
    return ok;
}

bool outdir_open(OutDir *d, const char *name, Error *e) {
    char *path = xasprintf("%s/%s", d->tmp, name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    bool ok = mkdir(path, 0777) == 0 || errno == EEXIST || refuse_full(e, d, path, 0, error_write(errno));
    *slash = '/';
    if (ok) {
        d->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (d->fd < 0) ok = refuse_full(e, d, path, 0, error_write(errno));
    }
    if (ok) {
        d->file = xrealloc(d->file, (size_t)(d->n_files + 1) * sizeof *d->file);
        d->file[d->n_files++] = (OutFile){.name = xstrdup(name)};
    }
    free(path);
    return ok;
}

bool outdir_write(OutDir *d, const void *data, size_t bytes, Error *e) {
    OutFile *f = &d->file[d->n_files - 1];
    const char *p = data;
    while (bytes) {
        ranks_alive();
        size_t block = f->bytes / DISK_BLOCK, room = DISK_BLOCK - f->bytes % DISK_BLOCK;
        if (room == DISK_BLOCK) {
            f->crc = xrealloc(f->crc, (block + 1) * sizeof *f->crc);
            f->crc[block] = 0;
        }
        size_t ask = (size_t)1 << 20; // a piece that is still in the cache when it is written
        if (ask > bytes) ask = bytes;
        if (ask > room) ask = room;
        ssize_t put = write(d->fd, p, ask);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) {
            char *path = xasprintf("%s/%s", d->tmp, f->name);
            refuse_full(e, d, path, f->bytes, error_write(errno));
            free(path);
            return false;
        }
        f->crc[block] = crc32c(f->crc[block], p, (size_t)put);
        f->bytes += (size_t)put;
        d->written += (size_t)put;
        p += put;
        bytes -= (size_t)put;
    }
    return true;
}

bool outdir_close(OutDir *d, Error *e) {
    char *path = xasprintf("%s/%s", d->tmp, d->file[d->n_files - 1].name);
    bool ok = fsync(d->fd) == 0 || refuse_full(e, d, path, d->file[d->n_files - 1].bytes, error_write(errno));
    ok = (close(d->fd) == 0 && ok) || (ok && io_error(e, "close", path));
    d->fd = -1;
    free(path);
    return ok;
}

bool outdir_put(OutDir *d, const char *name, const void *data, size_t bytes, Error *e) {
    return outdir_open(d, name, e) && outdir_write(d, data, bytes, e) && outdir_close(d, e);
}

bool outdir_write_device(OutDir *out, Device *d, const void *data, size_t bytes, Error *e) {
    if (on_host(d)) return outdir_write(out, data, bytes, e);
    char *room = xmalloc(bytes < DISK_BLOCK ? bytes : DISK_BLOCK);
    bool ok = true;
    for (size_t at = 0; ok && at < bytes; at += DISK_BLOCK) {
        size_t n = bytes - at < DISK_BLOCK ? bytes - at : DISK_BLOCK;
        const void *block = device_view(d, (const char *)data + at, n, room);
        ok = device_ok(d, e) && outdir_write(out, block, n, e);
    }
    free(room);
    return ok;
}

// Syncs the directories made by names like "state/m".
static bool subdirectories_sync(const OutDir *d, Error *e) {
    const char *last = "";
    for (int i = 0; i < d->n_files; i++) {
        const char *name = d->file[i].name, *slash = strchr(name, '/');
        size_t n = slash ? (size_t)(slash - name) : 0;
        if (!slash || !strncmp(last, name, n + 1)) continue;
        char *path = xasprintf("%s/%.*s", d->tmp, (int)n, name);
        bool ok = directory_sync(path, e);
        free(path);
        if (!ok) return false;
        last = name;
    }
    return true;
}

// Reads one file of the directory again and checks that every byte is what was written.
static bool read_back(const OutDir *d, const OutFile *f, Error *e) {
    char *path = xasprintf("%s/%s", d->tmp, f->name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat s;
    bool ok = fd >= 0 && fstat(fd, &s) == 0;
    if (!ok) io_error(e, "read back", path);
    else if ((uint64_t)s.st_size != f->bytes)
        ok = error_set(e, EXIT_DISK, "%s: has %llu bytes of the %llu that were written", path,
                       (unsigned long long)s.st_size, (unsigned long long)f->bytes);
    else
        ok = blocks_check(fd, path, f->crc, 0, (int64_t)((f->bytes + DISK_BLOCK - 1) / DISK_BLOCK), f->bytes, NULL, 0,
                          e);
    if (fd >= 0) close(fd);
    free(path);
    return ok;
}

static bool all_read_back(const OutDir *d, Error *e) {
    bool ok = true;
    for (int i = 0; ok && i < d->n_files; i++) ok = read_back(d, &d->file[i], e);
    if (!ok && e) e->code = EXIT_DISK;
    return ok || error_prefix(e, "what was just written does not come back; the disk is failing, or another program "
                                 "writes there");
}

bool outdir_commit(OutDir *d, Error *e) {
    if (!subdirectories_sync(d, e) || !directory_sync(d->tmp, e) || !all_read_back(d, e)) return false;
    struct stat s;
    bool replaces = lstat(d->path, &s) == 0;
    bool ok = !replaces || (disk_remove(d->old, e) && disk_rename(d->path, d->old, e));
    if (ok && !disk_rename(d->tmp, d->path, e)) {
        ok = false;
        if (replaces) rename(d->old, d->path);
    }
    if (ok) {
        free(d->tmp);
        d->tmp = NULL;
        Error ignored;
        if (replaces && !disk_remove(d->old, &ignored)) note("%s", ignored.text);
    }
    return ok;
}

void outdir_free(OutDir *d) {
    if (d->fd >= 0) close(d->fd);
    Error ignored;
    if (d->tmp && !disk_remove(d->tmp, &ignored)) note("%s", ignored.text);
    for (int i = 0; i < d->n_files; i++) {
        free(d->file[i].name);
        free(d->file[i].crc);
    }
    free(d->file);
    free(d->path);
    free(d->tmp);
    free(d->old);
    *d = (OutDir){.fd = -1};
}
