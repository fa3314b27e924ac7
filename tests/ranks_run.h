// Trains a fixture on as many ranks as its options say, in processes of their own.
#pragma once
#include "ranks.h"
#include "ranks_output.h"
#include "signals.h"
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

// Runs `rank`, which does what command_train does, as each rank that `options` ask for; the exit code, and in *said
// what was said on stderr. Where said is NULL, an exit code other than 0 fails the test.
static inline int run_ranks(Fixture *f, const char *options, ExitCode (*rank)(Fixture *, Error *), Str *said) {
    char *log = xasprintf("%s/stderr", f->dir);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        dup2(fd, STDERR_FILENO);
        Error e = {0};
        fixture_config(f, options);
        signals_install(true);
        ExitCode code;
        if (ranks_start(&f->cfg, &code, &e)) {
            code = rank(f, &e);
            ranks_tell(code, &e);
            fixture_close(f);
        }
        if (*e.text && ranks_speak(code, &e)) fprintf(stderr, "grpo: error: %s\n", e.text);
        fflush(NULL);
        _exit(code);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    size_t n;
    Error e = {0};
    char *text = file_read(log, 1 << 20, &n, &e);
    assert_non_null(text);
    if (said) str_clear(said), str_add(said, text, n);
    else if (WEXITSTATUS(status)) fail_msg("%s: exit %d: %s", options, WEXITSTATUS(status), text);
    free(text), free(log);
    return WEXITSTATUS(status);
}
