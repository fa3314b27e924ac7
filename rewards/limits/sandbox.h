// Running untrusted programs in a sandbox of namespaces, made by bubblewrap.
//
// Inside there is: this machine's /usr read-only, a small /tmp, no other file, no network, no process from outside, an
// empty environment, the user and group nobody without capabilities, no further namespaces, and no descriptors but
// standard input and output and what a job names. There are limits on memory, processor time, file sizes, descriptors
// and threads, and a seccomp filter (seccomp.c). When its time is over, the whole sandbox is killed from outside at
// once.
#pragma once
#include "error.h"
#include "str.h"
#include <stdint.h>

typedef struct {
    const char *path; // absolute, in the sandbox
    const void *bytes;
    size_t n;
    bool executable;
} SandboxFile;

typedef struct {
    const char *const *argv; // NULL-terminated
    const char *input;       // [input_bytes] standard input; NULL: empty
    size_t input_bytes;
    const SandboxFile *file; // [n_files], read-only
    int n_files;
    int keep;             // a descriptor that stays open under its number; -1: none
    bool processes;       // may start others (a compiler does); else threads only
    double seconds;       // of the wall clock
    int64_t memory, disk; // bytes of address space a process; bytes of /tmp
    size_t output;        // bytes of standard output that are read; standard error goes nowhere
} SandboxJob;

typedef enum {
    SANDBOX_EXITED,
    SANDBOX_TIMEOUT, // or a stop was requested
    SANDBOX_FLOOD,   // more output than was allowed
    SANDBOX_FAILED,  // the sandbox itself did not start; nothing of the job was run
} SandboxEnd;

// Whether a sandbox can be made here; if not, *e says why and what to do.
bool sandbox_check(Error *e);
// Runs the job. Its output comes in *out (cleared first), its exit status (128 + signal where one ended it) in *status.
SandboxEnd sandbox_run(const SandboxJob *job, Str *out, int *status);

struct sock_filter;
#define SECCOMP_MAX 256
// Writes the seccomp filter's program to out, at most SECCOMP_MAX instructions, and returns how many.
size_t seccomp_program(bool processes, struct sock_filter *out);
