// Running the program in the test's own directory.
#pragma once
#include "scratch.h"
#include "shell.h"

static char said[16384];

// `grpo ARGUMENTS` there, by the shell: its exit code; what it says is in `said`.
static inline int grpo(const char *fmt, ...) {
    const char *program = getenv("GRPO") ? getenv("GRPO") : "build/grpo";
    char rest[8192];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(rest, sizeof rest, fmt, ap);
    va_end(ap);
    char *command = xasprintf("cd %s && %s/%s %s 2>&1", scratch, *program == '/' ? "" : getenv("PWD"), program, rest);
    int code = shell_run(command, said, sizeof said);
    free(command);
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
