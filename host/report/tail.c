// The whole lines of a file that may still grow. See tail.h.
#include "file.h"
#include "jsonl.h"
#include "tail.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TAIL_BLOCK = 256 << 10 }; // bytes read at a time

Tail tail_open(const char *dir, const char *name) { return (Tail){.path = xasprintf("%s/%s", dir, name), .fd = -1}; }

void tail_close(Tail *t) {
    free(t->path);
    *t = (Tail){0};
}

// Calls `line` for each whole line of text[n]; returns the bytes they take.
static size_t hand_out(char *text, size_t n, TailLine *line, void *to) {
    size_t done = 0;
    for (char *end; (end = memchr(text + done, '\n', n - done)); done = (size_t)(end - text) + 1) {
        size_t length = (size_t)(end - text) - done;
        if (length && end[-1] == '\r') length--;
        text[done + length] = 0;
        if (length) line(to, text + done, length);
    }
    return done;
}

static bool read_on(Tail *t, int fd, TailLine *line, void *to, Error *e) {
    size_t cap = 2 * TAIL_BLOCK, held = 0;
    char *text = xmalloc(cap);
    bool too_long = false;
    ssize_t got;
    while ((got = pread(fd, text + held, cap - held, t->offset + (off_t)held)) != 0) {
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) break;
        size_t have = held + (size_t)got, done = 0;
        if (too_long) { // skip the rest of it
            char *end = memchr(text, '\n', have);
            done = end ? (size_t)(end - text) + 1 : have;
            too_long = !end;
        }
        done += hand_out(text + done, have - done, line, to);
        held = have - done;
        t->offset += (off_t)done;
        memmove(text, text + done, held);
        if (held > JSONL_MAX_LINE) {
            t->offset += (off_t)held, t->skipped++;
            held = 0, too_long = true;
        } else if (cap - held < TAIL_BLOCK) text = xrealloc(text, cap *= 2);
    }
    t->half = (int64_t)held;
    free(text);
    return got == 0 || error_set(e, EXIT_DISK, "%s: reading failed at byte %lld: %s", t->path, (long long)t->offset,
                                 strerror(errno));
}

bool tail_read(Tail *t, TailLine *line, void (*again)(void *to), void *to, Error *e) {
    struct stat st;
    if (t->fd < 0 && stat(t->path, &st) && errno == ENOENT) return true;
    int fd = t->fd < 0 ? file_open(t->path, e) : t->fd;
    if (fd < 0) return false;
    if (!fstat(fd, &st) && st.st_size < t->offset) {
        t->offset = t->half = t->skipped = 0;
        if (again) again(to);
    }
    bool ok = read_on(t, fd, line, to, e);
    if (t->fd < 0) close(fd);
    return ok;
}
