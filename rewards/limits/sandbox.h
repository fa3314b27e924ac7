// Untrusted programs in a sandbox of namespaces, made by bubblewrap.
//
// Inside: /usr of this machine read-only, a small /tmp, no other file, no network, no process of outside, an empty
// environment, nobody's user and group without capabilities, no further namespaces, no descriptors but standard input and
// output and what a job names; limits on memory, processor time, file sizes, descriptors, threads; and a seccomp filter
// (seccomp.c). The wall clock ends it from outside, all of it at once.
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

// Whether a sandbox can be made here; else *e says why not and what to do.
bool sandbox_check(Error *e);
// Runs the job; its output in *out (cleared first), its exit status (128 + signal where one ended it) in *status.
SandboxEnd sandbox_run(const SandboxJob *job, Str *out, int *status);

struct sock_filter;
#define SECCOMP_MAX 256
// Writes the filter's program, at most SECCOMP_MAX instructions, and returns how many they are.
size_t seccomp_program(bool processes, struct sock_filter *out);
