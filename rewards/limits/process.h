// Child processes: started in a process group of their own, with no descriptor but those they are given, and killed as a
// group. Everything here may be called from any thread.
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

// A function of ours that runs as a program of its own: argv[0] is NAME, and the image is this program's, new, without its
// memory. Its result is the exit status.
#define PROCESS_HELPER(NAME, FN)                                                                                       \
    __attribute__((constructor)) static void FN##_alone(int argc, char **argv) {                                       \
        if (argc > 0 && !strcmp(argv[0], NAME)) _exit(FN(argc, argv));                                                 \
    }
#define PROCESS_HELPER_PREFIX "reward-" // of every NAME

// What to start.
typedef struct {
    char *const *argv; // NULL-terminated; argv[0] is looked up in PATH unless it has a slash, or names a PROCESS_HELPER
    char *const *envp; // NULL: ours
    bool guarded;      // ends with this program however that ends, and with it all that it started (guard.c)
    int input;         // descriptor that becomes standard input; -1: a pipe, Process.in
    bool errors;       // standard error is a pipe, Process.err; else it goes nowhere
    const int *keep;   // [n_keep] other descriptors that stay open under their numbers, ascending
    int n_keep;
    const ProcessLimit *limit; // [n_limits]
    int n_limits;
    bool unprivileged; // where we are root, become nobody: limits on a user do not bind root
} ProcessSpec;

// Our ends of its pipes do not block; -1: none.
typedef struct {
    pid_t pid; // and its group; 0: not running
    int in, out, err;
    int life; // of a guarded one: its end tells the guard to end it all
} Process;

bool process_start(const ProcessSpec *c, Process *p, Error *e);
// Kills the whole group (of a guarded one all that it started), waits for the process and closes the pipes.
void process_kill(Process *p);
// Waits for its end until `deadline`; its wait status in *status. False where it still runs.
bool process_wait(Process *p, int64_t deadline, int *status);

int64_t clock_ms(void); // milliseconds of the monotonic clock
// Reads what is there into *out, at most `limit` bytes in all: 1 more may come, 0 end of file, -1 over the limit.
int pipe_read(int fd, Str *out, size_t limit);
// Waits until a descriptor (-1: none) can be read or (`write`) written, or the deadline; false at the deadline.
bool pipe_wait(int read_a, int read_b, int write, int64_t deadline);
// A descriptor from which `n` bytes can be read, by many readers, written by none.
int bytes_fd(const void *bytes, size_t n);
