// Running the program in the test's own directory.
#pragma once
#include "scratch.h"
#include "shell.h"

static char said[16384];

// A line of shell there, in which `grpo` is the program under test: its exit code; what it says is in `said`.
static inline int shell_va(const char *fmt, va_list ap) {
    const char *program = getenv("GRPO") ? getenv("GRPO") : "build/grpo";
    char line[8192];
    vsnprintf(line, sizeof line, fmt, ap);
    char *command = xasprintf("cd %s && grpo() { %s/%s \"$@\"; }; (%s) 2>&1", scratch,
                              *program == '/' ? "" : getenv("PWD"), program, line);
    int code = shell_run(command, said, sizeof said);
    free(command);
    return code;
}
static inline int shell(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int code = shell_va(fmt, ap);
    va_end(ap);
    return code;
}
// `grpo ARGUMENTS` there.
static inline int grpo(const char *arguments, ...) {
    char *fmt = xasprintf("grpo %s", arguments);
    va_list ap;
    va_start(ap, arguments);
    int code = shell_va(fmt, ap);
    va_end(ap);
    free(fmt);
    return code;
}

// All that is in a file; heap.
static inline char *text_in(const char *path) {
    size_t n;
    Error e = {0};
    char *text = file_read(path, 1 << 24, &n, &e);
    if (!text) fail_msg("%s", e.text);
    return text;
}
