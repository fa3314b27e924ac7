// Errors, notes, and memory that is never NULL.
#include "error.h"
#include "str.h"
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool error_set(Error *e, ExitCode code, const char *fmt, ...) {
    if (!e) return false;
    e->code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    return false;
}

bool error_prefix(Error *e, const char *fmt, ...) {
    if (!e) return false;
    char old[sizeof e->text];
    memcpy(old, e->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->text)
        snprintf(e->text + n, sizeof e->text - (size_t)n, ": %.*s", (int)(sizeof e->text - (size_t)n - 3), old);
    return false;
}

const char *error_open(int number) {
    static _Thread_local char text[160];
    snprintf(text, sizeof text, "%s%s", strerror(number),
             number == ENOENT   ? "; check the path, which counts from the directory you are in"
             : number == EACCES ? "; give yourself the right to read it (chmod, chown)"
             : number == EMFILE ? "; allow more open files (ulimit -n)"
                                : "");
    return text;
}

static bool quiet_notes;
void note_quiet(bool quiet) { quiet_notes = quiet; }

void note(const char *fmt, ...) {
    va_list ap;
    if (quiet_notes) return;
    char text[sizeof((Error *)0)->text];
    Str shown = {0}; // a note may quote a file
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    str_visible(&shown, text, strlen(text));
    if (isatty(STDERR_FILENO)) fputs("\r\033[K", stderr); // over a progress line that may stand there
    fprintf(stderr, "grpo: note: %s\n", shown.s ? shown.s : "");
    str_free(&shown);
}

_Noreturn void die(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("grpo: internal error (please report it): ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}

static _Noreturn void out_of_memory(size_t bytes) {
    fprintf(stderr, "grpo: error: out of memory: %zu bytes were refused; close other programs or use a smaller batch\n",
            bytes);
    exit(EXIT_MEMORY);
}

void *xmalloc(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    if (!p) out_of_memory(bytes);
    return p;
}

void *xcalloc(size_t count, size_t bytes) {
    void *p = calloc(count ? count : 1, bytes ? bytes : 1);
    if (!p) out_of_memory(bytes && count > SIZE_MAX / bytes ? SIZE_MAX : count * bytes);
    return p;
}

void *xrealloc(void *old, size_t bytes) {
    void *p = realloc(old, bytes ? bytes : 1);
    if (!p) out_of_memory(bytes);
    return p;
}

char *xstrndup(const char *s, size_t n) {
    char *p = xmalloc(n + 1);
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *xstrdup(const char *s) { return xstrndup(s, strlen(s)); }

char *xasprintf(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = xmalloc((size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}
