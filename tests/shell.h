// Running a command from a test.
#pragma once
#include <stdio.h>
#include <sys/wait.h>

// cmocka wants these before it
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

// The exit code of a command of the shell (128 + signal), and what it said, NUL-terminated, in says[room]; what has no
// room is read and dropped.
static inline int shell_run(const char *command, char *says, size_t room) {
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t n = fread(says, 1, room - 1, p);
    says[n] = 0;
    for (char rest[4096]; fread(rest, 1, sizeof rest, p) > 0;) continue;
    int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
