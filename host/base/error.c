// Errors and notes.
#include "str.h"
#include <errno.h>
#include <stdarg.h>
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
