// Errors and notes.
#include "output.h"
#include "str.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

// Formats a text with the passwords of URLs hidden. The buffer is longer than what is kept, so that no URL is cut
// before its password is recognised; and it is on the stack, as there may be no memory.
static void format(char text[sizeof((Error *)0)->text], const char *fmt, va_list ap) {
    char whole[8 * sizeof((Error *)0)->text];
    vsnprintf(whole, sizeof whole, fmt, ap);
    str_hide_passwords(whole);
    size_t n = strnlen(whole, sizeof((Error *)0)->text - 1);
    memcpy(text, whole, n);
    text[n] = 0;
}

bool error_set(Error *e, ExitCode code, const char *fmt, ...) {
    if (!e) return false;
    e->code = code;
    va_list ap;
    va_start(ap, fmt);
    format(e->text, fmt, ap);
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
             number == ENOENT                    ? "; check the path, which counts from the directory you are in"
             : number == EACCES                  ? "; give yourself the right to read it (chmod, chown)"
             : number == EMFILE                  ? "; allow more open files (ulimit -n)"
             : number == ENOTDIR                 ? "; a part of the path is a file, not a directory"
             : number == ELOOP                   ? "; its links lead in a circle"
             : number == ESTALE || number == EIO ? "; the disk or the network under it fails: see dmesg"
                                                 : "");
    return text;
}

const char *error_write(int number) {
    static _Thread_local char text[160];
    struct rlimit size;
    if (number == EFBIG && !getrlimit(RLIMIT_FSIZE, &size) && size.rlim_cur != RLIM_INFINITY)
        snprintf(text, sizeof text, "%s: %llu bytes are the most a file may have here; allow more (ulimit -f)",
                 strerror(number), (unsigned long long)size.rlim_cur);
    else
        snprintf(text, sizeof text, "%s%s", strerror(number),
                 number == EDQUOT   ? "; remove some of your files there, or ask for more (quota -s shows it)"
                 : number == ENOENT ? "; make the directory first (mkdir -p)"
                 : number == EACCES || number == EPERM ? "; you may not write there (ls -ld shows whose it is)"
                                                       : "");
    return text;
}

static bool quiet_notes;
void note_quiet(bool quiet) { quiet_notes = quiet; }

static void (*tell)(const char *text);
void note_tell(void (*also)(const char *text)) { tell = also; }

void note(const char *fmt, ...) {
    va_list ap;
    if (quiet_notes) return;
    char text[sizeof((Error *)0)->text];
    Str shown = {0}; // a note may quote a file
    va_start(ap, fmt);
    format(text, fmt, ap);
    va_end(ap);
    if (tell) tell(text);
    if (output_is_screen(STDERR_FILENO)) str_puts(&shown, "\r\033[K"); // over a progress line that may stand there
    str_puts(&shown, "grpo: note: ");
    str_visible(&shown, text, strlen(text));
    str_puts(&shown, "\n");
    output_write(STDERR_FILENO, shown.s, shown.n);
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
