// Child processes: each is started in its own process group, has only the descriptors it is given, and is killed with
// its group. Everything here may be called from any thread.
#pragma once
#include "error.h"
#include "str.h"
#include <stdint.h>
#include <sys/resource.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef struct {
    int resource; // RLIMIT_...
    rlim_t value; // soft and hard
} ProcessLimit;

// Makes FN a helper program: starting a process with argv[0] NAME executes this same program anew, which then only
// calls FN. Its result is the exit status.
#define PROCESS_HELPER(NAME, FN)                                                                                       \
    __attribute__((constructor)) static void FN##_alone(int argc, char **argv) {                                       \
        if (argc > 0 && !strcmp(argv[0], NAME)) _exit(FN(argc, argv));                                                 \
    }
#define PROCESS_HELPER_PREFIX "grpo-" // every NAME begins with it

// What to start.
typedef struct {
    char *const *argv; // NULL-terminated; argv[0] is looked up in PATH unless it has a slash, or names a PROCESS_HELPER
    char *const *envp; // its environment; NULL: this program's
    bool guarded;      // ends with this program, however that ends, and so does all that it started (guard.c)
    int input;         // descriptor that becomes standard input; -1: a pipe, Process.in
    int log;           // descriptor that becomes standard output and errors; 0: they are pipes, as said next
    size_t log_most;   // of a guarded one: bytes that reach the log, the rest is left out; 0: all
    bool errors;       // standard error is a pipe, Process.err; else it goes nowhere
    const int *keep;   // [n_keep] other descriptors that stay open under their numbers, ascending
    int n_keep;
    const ProcessLimit *limit; // [n_limits]
    int n_limits;
    bool unprivileged; // whether it becomes the user nobody where this is root, whom the limits on a user do not bind
} ProcessSpec;

// A running process. This side's ends of its pipes do not block; -1: none.
typedef struct {
    pid_t pid; // its number, and its group's; 0: not running
    int in, out, err;
    int life; // of a guarded one: the pipe whose end makes the guard kill everything
} Process;

// False after filling *e: EXIT_CONFIG (no such program), EXIT_MEMORY (no memory, no more processes).
bool process_start(const ProcessSpec *c, Process *p, Error *e);
// Kills the whole group (with a guarded one, all that it started), waits for the process and closes the pipes.
void process_kill(Process *p);
// Waits for the end of the process until `deadline` (clock_ms); its wait status in *status. False where it still runs.
bool process_wait(Process *p, int64_t deadline, int *status);

// Reads what the pipe holds into *out, at most `limit` bytes in all. Returns 1 where more may come, 0 at the end, -1
// over the limit.
int pipe_read(int fd, Str *out, size_t limit);
// Waits until one of the descriptors (-1: none) can be read, or `write` written; false at the deadline (clock_ms).
bool pipe_wait(int read_a, int read_b, int write, int64_t deadline);
// A descriptor from which those n bytes can be read, by many readers, and which cannot be written.
int bytes_fd(const void *bytes, size_t n);
