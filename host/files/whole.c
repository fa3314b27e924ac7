// Files that appear whole or not at all. See whole.h.
#include "whole.h"
#include "file.h"
#include "outdir.h"
#include "output.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool failed(const WholeFile *w, int why, Error *e) {
    return error_set(e, EXIT_DISK, "%s: writing failed: %s", w->path, error_write(why));
}

// The process id behind NAME.tmp., or NULL.
static const char *writer_of(const char *name, const char *file) {
    size_t n = strlen(file);
    if (strncmp(name, file, n) || strncmp(name + n, ".tmp.", 5)) return NULL;
    const char *id = name + n + 5;
    return *id && !id[strspn(id, "0123456789")] ? id : NULL;
}

bool whole_is_of(const char *name, const char *file) { return !strcmp(name, file) || writer_of(name, file); }

// Removes what processes left that were killed while they wrote this file: a run that goes on leaves what a straight
// one does.
static void remove_left(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char *parent = slash ? xstrndup(path, (size_t)(slash - path) + 1) : xstrdup(".");
    DIR *dir = opendir(parent);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        const char *id = writer_of(entry->d_name, name);
        long pid = id ? strtol(id, NULL, 10) : 0;
        if (pid > 0 && pid <= INT_MAX && kill((pid_t)pid, 0) && errno == ESRCH) unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir) closedir(dir);
    free(parent);
}

bool whole_open(WholeFile *w, const char *path, bool lasting, Error *e) {
    // The process id is in the name so that two processes that write the same file do not share a temporary one.
    remove_left(path);
    *w = (WholeFile){xstrdup(path), xasprintf("%s.tmp.%ld", path, (long)getpid()), NULL, lasting};
    int fd = open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    w->file = fd >= 0 ? fdopen(fd, "w") : NULL;
    return w->file || failed(w, errno, e);
}

bool whole_add(WholeFile *w, const char *bytes, size_t n, Error *e) {
    return !n || fwrite(bytes, 1, n, w->file) == n || failed(w, errno, e);
}

bool whole_close(WholeFile *w, bool good, Error *e) {
    if (w->file) {
        bool written = !fflush(w->file) && (!w->lasting || !fdatasync(fileno(w->file)));
        int why = errno;
        if (fclose(w->file) && written) written = false, why = errno;
        if (good && !written) good = failed(w, why, e);
        if (good && w->lasting) good = disk_rename(w->tmp, w->path, e);
        else if (good && rename(w->tmp, w->path)) good = failed(w, errno, e);
        if (!good) unlink(w->tmp);
    }
    free(w->path), free(w->tmp);
    *w = (WholeFile){0};
    return good;
}

bool whole_write(const char *path, const char *bytes, size_t n, bool lasting, Error *e) {
    WholeFile w;
    bool good = whole_open(&w, path, lasting, e) && whole_add(&w, bytes, n, e);
    return whole_close(&w, good, e);
}

char *whole_place(const char *path) {
    char *place = xstrdup(path), target[PATH_MAX];
    for (int links = 0; links < 40; links++) { // as many as Linux follows; more fail where the file is opened
        ssize_t n = readlink(place, target, sizeof target);
        if (n < 0 || n == sizeof target) break;
        const char *slash = *target == '/' ? NULL : strrchr(place, '/');
        char *next = xasprintf("%.*s%.*s", slash ? (int)(slash - place) + 1 : 0, place, (int)n, target);
        free(place);
        place = next;
    }
    return place;
}

// The descriptor of standard output or error where `path` is what it goes to; else -1.
static int standard_at(const char *path) {
    struct stat st, open_at;
    for (int fd = STDOUT_FILENO; fd <= STDERR_FILENO && !stat(path, &st); fd++)
        if (!fstat(fd, &open_at) && st.st_dev == open_at.st_dev && st.st_ino == open_at.st_ino) return fd;
    return -1;
}

bool whole_is_fixed(const char *path) {
    struct stat st;
    if (stat(path, &st)) return false;
    char *place = realpath(path, NULL); // of a file without a name, such as /dev/fd/3 may be, there is none
    bool fixed = !S_ISREG(st.st_mode) || !place || standard_at(path) >= 0;
    free(place);
    return fixed;
}

bool whole_write_into(const char *path, const char *bytes, size_t n, Error *e) {
    int fd = standard_at(path);
    if (fd == STDOUT_FILENO) return output_write(fd, bytes, n) || output_flush(e);
    if (fd == STDERR_FILENO) return output_write(fd, bytes, n) || failed(&(WholeFile){.path = (char *)path}, errno, e);
    fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK); // does not wait for a reader
    bool ok = fd >= 0 && output_write(fd, bytes, n);
    int why = errno;
    if (fd >= 0 && close(fd) && ok) ok = (why = errno, false);
    return ok || failed(&(WholeFile){.path = (char *)path}, why, e);
}

// Whether n bytes begin as JSON with this head does, or with a part of it; spaces between its words do not count, which
// a formatter changes.
static bool begins_with(const char *bytes, size_t n, const char *head) {
    const char *end = bytes + n;
    for (;; bytes++, head++) {
        while (*head == ' ' || *head == '\n') head++;
        while (bytes < end && strchr(" \t\r\n", *bytes) && *bytes) bytes++;
        if (!*head || bytes == end) return true;
        if (*bytes != *head) return false;
    }
}

bool whole_replaces(const char *path, const char *head, const char *what, Error *e) {
    struct stat st;
    if (stat(path, &st) || whole_is_fixed(path)) return true; // opening it says what is wrong
    int fd = file_open(path, e);
    if (fd < 0) return false;
    char start[256];
    size_t n = 0;
    while (n != sizeof start) {
        ssize_t got = read(fd, start + n, sizeof start - n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        n += (size_t)got;
    }
    close(fd);
    return n == 0 || (head && begins_with(start, n, head)) ||
           error_set(e, EXIT_DISK, "%s: is there already and is not %s; move it away, or choose another place", path,
                     what);
}
