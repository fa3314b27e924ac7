// A piece of a test in a process of its own: what dies there is seen here.
#pragma once
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

// Runs `body` in a child whose stderr comes back in `out`; its wait status is returned.
static inline int in_child(void (*body)(const void *), const void *with, char *out, size_t cap) {
    int fd[2];
    assert_int_equal(pipe(fd), 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        dup2(fd[1], STDERR_FILENO);
        close(fd[0]);
        close(fd[1]);
        body(with);
        _exit(0);
    }
    close(fd[1]);
    size_t n = 0;
    for (ssize_t k; n < cap - 1 && (k = read(fd[0], out + n, cap - 1 - n)) > 0;) n += (size_t)k;
    out[n] = 0;
    close(fd[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

// That `body` ends as die() ends a process, in one line with these words.
static inline void assert_dies(void (*body)(const void *), const void *with, const char *words) {
    char said[1024];
    int status = in_child(body, with, said, sizeof said);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT || !strstr(said, words) ||
        strchr(said, '\n') != said + strlen(said) - 1)
        fail_msg("not `%s`, but status %x and: %s", words, (unsigned)status, said);
}
