// The CPU device: plain memory, OpenMP threads, and the ops of one instruction set.
#include "cpu_ops.h"
#include "error.h"
#include "machine.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifdef _OPENMP
#include <omp.h>
#endif

// Memory straight from the operating system: zeroed, and given back at once when freed. Huge pages save the matrix
// products TLB misses.
static void *alloc(Device *d, size_t bytes) {
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}
static void release(Device *d, void *p, size_t bytes) {
    if (p) munmap(p, bytes ? bytes : 1);
}
static void copy(Device *d, void *dst, const void *src, size_t bytes) { memmove(dst, src, bytes); }
static void sync_nothing(Device *d) {}
static void *host_alloc(Device *d, size_t bytes) { return malloc(bytes ? bytes : 1); }
static void host_free(Device *d, void *host, size_t bytes) { free(host); }
// Events are empty here: every call has finished when it returns, so there is nothing to wait for.
static Event *event_new(Device *d) { return xmalloc(1); }
static void event_ignore(Device *d, Event *e) {}
static void fetch(Device *d, void *host, const void *src, size_t bytes, Event *e) { copy(d, host, src, bytes); }
static void event_free(Device *d, Event *e) { free(e); }
static size_t memory(Device *d) { return machine_memory(1).bytes; }
static size_t memory_used(Device *d) { return machine_memory_peak(); }

// Writes the instruction sets a user can choose on this machine, as "generic, avx2".
static void list_isas(char *text, size_t n) {
    for (int isa = CPU_ISA_AUTO + 1, at = 0; isa < CPU_ISA_END; isa++)
        if (!cpu_isa_missing(isa)) at += snprintf(text + at, n - (size_t)at, "%s%s", at ? ", " : "", cpu_isa_name(isa));
}

// The ops of instruction set `isa`, or of the one that auto stands for; fills d->about and d->numerics. NULL after
// filling *e.
static const OpTable *choose_ops(Device *d, int isa, int threads, Error *e) {
    bool chosen = isa != CPU_ISA_AUTO;
    if (!chosen) isa = cpu_isa_auto();
    const OpTable *ops = isa == CPU_ISA_AUTO ? NULL : cpu_isa_ops(isa);
    if (!ops) {
        char there[128];
        list_isas(there, sizeof there);
        error_set(e, EXIT_CONFIG, "%s%s: %s; choose one of %s, or leave it out",
                  chosen ? "cpu_isa=" : "GRPO_CPU_ISA=", chosen ? cpu_isa_name(isa) : getenv("GRPO_CPU_ISA"),
                  isa == CPU_ISA_AUTO ? "no such instruction set" : cpu_isa_missing(isa), there);
        return NULL;
    }
    snprintf(d->about, sizeof d->about, "CPU, %d thread%s, %s%s", threads, threads == 1 ? "" : "s", cpu_isa_about(isa),
             cpu_isa_missing(isa) ? ", in C" : "");
    snprintf(d->numerics, sizeof d->numerics, "%s", cpu_isa_name(isa));
    return ops;
}

Device *cpu_open(int threads, int isa, Error *e) {
    Device *d = xcalloc(1, sizeof *d);
    machine_memory(1); // before this device takes of it
    int n = 1;
#ifdef _OPENMP
    if (threads > 0) omp_set_num_threads(threads);
    n = omp_get_max_threads();
#endif
    d->name = "cpu";
    d->on_host = true;
    const OpTable *ops = choose_ops(d, isa, n, e);
    if (!ops) {
        free(d);
        return NULL;
    }
    d->alloc = alloc;
    d->free = release;
    d->copy = copy;
    d->sync = sync_nothing;
    d->memory = memory;
    d->memory_used = memory_used;
    d->host_alloc = host_alloc;
    d->host_free = host_free;
    d->copy_async = copy;
    d->fetch_async = fetch;
    d->event_new = event_new;
    d->event_record = event_ignore;
    d->event_wait = event_ignore;
    d->event_free = event_free;
#define OP_ENTRY(name, args) d->name = ops->name;
    OPS(OP_ENTRY)
    void *scratch = alloc(d, DEVICE_SCRATCH);
    if (!scratch) {
        error_set(e, EXIT_MEMORY, "cannot take %.0f MiB of scratch memory; close other programs",
                  (double)DEVICE_SCRATCH / 1024 / 1024);
        free(d);
        return NULL;
    }
    d->scratch = arena_over(scratch, DEVICE_SCRATCH);
    return d;
}

void cpu_close(Device *d) {
    if (!d) return;
    release(d, d->scratch.base, DEVICE_SCRATCH);
    free(d);
}
