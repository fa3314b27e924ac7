// Writing to standard output and standard error.
#include "output.h"
#include "signals.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int lost;         // the errno of a write to standard output that failed
static int patience = 5; // once a stop is requested: how many more tenths of a second to wait

// Whether a pipe's worth of bytes can be written without waiting.
static bool has_room(int fd) {
    for (;;) {
        int left = stop_requested() ? patience : 1;
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        int n = poll(&p, 1, left > 0 ? 100 : 0);
        if (n > 0) return true;
        if (left <= 0 || (n < 0 && errno != EINTR)) return false;
        if (stop_requested()) patience--;
    }
}

bool output_write(int fd, const char *bytes, size_t n) {
    while (n) {
        if (!has_room(fd)) return false;
        ssize_t put = write(fd, bytes, n < PIPE_BUF ? n : PIPE_BUF);
        if (put < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (put <= 0) {
            if (fd == STDOUT_FILENO) lost = errno;
            return false;
        }
        bytes += put;
        n -= (size_t)put;
    }
    return true;
}

bool output_flush(Error *e) {
    errno = 0;
    if (fflush(stdout)) lost = errno;
    if (!lost && !ferror(stdout)) return true;
    if (!lost) { // it failed when a full buffer was emptied: the reason is asked for again
        clearerr(stdout);
        errno = 0;
        if (putchar('\n') == EOF || fflush(stdout)) lost = errno;
    }
    return error_set(e, EXIT_DISK, "cannot write to standard output%s%s", lost ? ": " : "",
                     lost ? error_write(lost) : "");
}

bool output_is_screen(int fd) {
    const char *term = getenv("TERM");
    return term && *term && strcmp(term, "dumb") && isatty(fd);
}
