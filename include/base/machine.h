// What this process may use of the machine: the least of what is there and what containers and limits leave.
#pragma once
#include "error.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
typedef struct {
    size_t bytes;
    const char *whose; // whose limit it is, as the subject of "... has 1.5 GiB"
    bool own;          // each process has as much for itself
} MemoryLimit;

// Bytes that so many processes alike can have at most, the limit that binds them first: of the machine, its cgroups (v1 and
// v2, and every one above), or what ulimit -v and -d left when it was asked first, less the stacks of its threads.
MemoryLimit machine_memory(int processes);
// Of the machine, its cgroups and this process's limits, what is free now.
size_t machine_memory_free(void);
// CPUs that each of so many processes alike can have, at least 1: those this one might run on when it was started
// (whatever OpenMP has bound since), divided unless a launcher gave each its own; no more than its share of the cgroups'
// quota of time, rounded up.
int machine_cores(int processes);
// Lets the calling thread, and the programs it starts, run on all of them: OpenMP binds a program's first thread to one
// where GOMP_CPU_AFFINITY or OMP_PROC_BIND asks for it, and others would inherit that. Safe between vfork and exec.
void machine_unbind(void);
// Threads for the work of each of them: as many as `asked` for; else (0) 0 where OMP_NUM_THREADS tells OpenMP, machine_cores
// where nobody does.
int machine_threads(int asked, int processes);
// Whether `threads` that compute are no more than can be of use here; EXIT_CONFIG: `what` (who asked) is too many.
#define THREADS_A_CORE 4
bool machine_threads_allowed(const char *what, long long threads, Error *e);

// The least limit of this process's cgroups of a kind, where the files lie under `root` ("": the system's own): bytes of
// memory (SIZE_MAX: none), those of them that are free, or CPUs of time (0: no quota).
size_t cgroup_memory(const char *root, size_t *free_bytes);
double cgroup_cpus(const char *root);
#ifdef __cplusplus
}
#endif
