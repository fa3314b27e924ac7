// Running build/ptx, the machine for PTX, from a test.
#pragma once
#include "error.h"
#include "scratch.h"
#include "shell.h"
#include <stdlib.h>

// PTX in the environment, or beside the program under test.
static inline const char *ptx_program(void) {
    static char path[4096];
    const char *named = getenv("PTX"), *grpo = getenv("GRPO") ? getenv("GRPO") : "build/grpo";
    const char *slash = strrchr(grpo, '/');
    snprintf(path, sizeof path, "%.*sptx", (int)(slash ? slash + 1 - grpo : 0), grpo);
    return named ? named : path;
}
// Its exit code (128 + signal), and what it said on both outputs, in `says`.
static inline int ptx_run(const char *arguments, char *says, size_t room) {
    char *command = xasprintf("%s %s 2>&1", ptx_program(), arguments);
    int code = shell_run(command, says, room);
    free(command);
    return code;
}
static inline char *ptx_read(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s cannot be opened", path);
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    char *text = xmalloc(n + 1);
    assert_int_equal(fread(text, 1, n, f), n);
    text[n] = 0;
    fclose(f);
    return text;
}
// The text with its nth occurrence of `from` (0: all of them) replaced; fails where there is none.
static inline char *ptx_replace(const char *text, const char *from, const char *to, int nth) {
    char *out = xmalloc(strlen(text) * (1 + strlen(to)) + 1), *end = out;
    int seen = 0;
    for (const char *p = text; *p;)
        if (strncmp(p, from, strlen(from)) == 0 && (++seen == nth || !nth)) {
            end = stpcpy(end, to);
            p += strlen(from);
        } else *end++ = *p++;
    *end = 0;
    if (!seen || seen < nth) fail_msg("\"%s\" is not there %d times", from, nth);
    return out;
}
// How a text of PTX begins.
#define HEAD(target) ".version 8.0\n.target " target "\n.address_size 64\n"
// Runs kernel k of a text; the exit code.
static inline int ptx_run_text(const char *text, const char *arguments, char *says, size_t room) {
    put_text(at("rule.ptx"), text);
    char *line = xasprintf("%s k %s", at("rule.ptx"), arguments);
    int code = ptx_run(line, says, room);
    free(line);
    return code;
}
