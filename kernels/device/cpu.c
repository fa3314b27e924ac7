// The CPU device: plain memory, OpenMP threads, the table of ops.
#include "error.h"
#include "machine.h"
#include "ops.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifdef _OPENMP
#include <omp.h>
#endif

// Pages come straight from the kernel: zero, and given back at once. Huge pages spare the matrix products TLB misses.
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
// Whatever was asked for is done when the call returns: every event has passed.
static Event *event_new(Device *d) { return xmalloc(1); }
static void event_ignore(Device *d, Event *e) {}
static void fetch(Device *d, void *host, const void *src, size_t bytes, Event *e) { copy(d, host, src, bytes); }
static void event_free(Device *d, Event *e) { free(e); }
static size_t memory(Device *d) { return machine_memory(1).bytes; }

static const char *instruction_set(void) {
#if defined(__AVX512BF16__)
    return "AVX-512 with bf16 dot products";
#elif defined(__AVX512F__)
    return "AVX-512";
#elif defined(__AVX2__)
    return "AVX2";
#else
    return "portable vectors";
#endif
}

Device *cpu_open(int threads) {
    Device *d = xcalloc(1, sizeof *d);
    machine_memory(1); // before this device takes of it
    int n = 1;
#ifdef _OPENMP
    if (threads > 0) omp_set_num_threads(threads);
    n = omp_get_max_threads();
#endif
    d->name = "cpu";
    d->on_host = true;
    snprintf(d->about, sizeof d->about, "CPU, %d thread%s, %s", n, n == 1 ? "" : "s", instruction_set());
    d->alloc = alloc;
    d->free = release;
    d->copy = copy;
    d->sync = sync_nothing;
    d->memory = memory;
    d->host_alloc = host_alloc;
    d->host_free = host_free;
    d->copy_async = copy;
    d->fetch_async = fetch;
    d->event_new = event_new;
    d->event_record = event_ignore;
    d->event_wait = event_ignore;
    d->event_free = event_free;
#define OP_ENTRY(name, args) d->name = cpu_##name;
    OPS(OP_ENTRY)
    void *scratch = alloc(d, DEVICE_SCRATCH);
    if (!scratch) {
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
