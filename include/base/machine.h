// How much memory and how many CPUs this process may use: the least of what the machine has and what containers and
// limits leave.
#pragma once
#include "error.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
typedef struct {
    size_t bytes;
    const char *whose; // whose limit it is, as the subject of "... has 1.5 GiB"
    bool own;          // whether each process has so much for itself
} MemoryLimit;

// The most bytes that each of `processes` equal processes can have, and which limit that is: the machine's memory, its
// cgroups (v1 and v2, and every one above), or what ulimit -v and -d left when this was first called, less the stacks
// of its threads.
MemoryLimit machine_memory(int processes);
// Bytes that are free now, by the machine, its cgroups and this process's limits.
size_t machine_memory_free(void);
// The most bytes of memory that this process has held so far, as the system counts them; 0: it does not say.
size_t machine_memory_peak(void);
// CPUs that each of `processes` equal processes can have, at least 1: those this one might run on when it was started
// (whatever OpenMP has bound since), divided unless a launcher gave each its own; and at most its share of the cgroups'
// quota of time, rounded up.
int machine_cores(int processes);
// Lets the calling thread, and the programs it starts, run on all those CPUs: with GOMP_CPU_AFFINITY or OMP_PROC_BIND
// OpenMP binds a program's first thread to one CPU, and others would inherit that. Safe between vfork and exec.
void machine_unbind(void);
// Threads for each of `processes` processes: `asked` where that is not 0; else 0, which leaves it to OpenMP, where
// OMP_NUM_THREADS is set; else machine_cores.
int machine_threads(int asked, int processes);
// Whether `threads` threads are not far too many here (more than THREADS_A_CORE for a core). False after filling *e
// (EXIT_CONFIG), which names `what`, the option that asked for them.
#define THREADS_A_CORE 4
bool machine_threads_allowed(const char *what, long long threads, Error *e);

// The least limit among this process's cgroups, read from files under `root` ("": the system's own): bytes of memory
// (SIZE_MAX: no limit) with those that are free; CPUs of time (0: no quota).
size_t cgroup_memory(const char *root, size_t *free_bytes);
double cgroup_cpus(const char *root);
#ifdef __cplusplus
}
#endif
