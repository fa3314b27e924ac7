// Timing calls on the device, and the peak of this process's memory.
#include "bench.h"
#include "clock.h"
#include "error.h"
#include <stdlib.h>
#include <string.h>

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void finish(const Bench *b) {
    b->device->sync(b->device);
    if (b->device->error[0]) die("bench: %s", b->device->error);
}

// Calls `calls` times; seconds of one.
static double clocked(const Bench *b, void (*fn)(void *arg, int i), void *arg, int first, int calls) {
    double start = clock_seconds();
    for (int i = 0; i < calls; i++) fn(arg, first + i);
    finish(b);
    return (clock_seconds() - start) / calls;
}

double bench_time(const Bench *b, void (*fn)(void *arg, int i), void *arg) {
    enum { MOST = 200 };
    double t[MOST], all = 0;
    int n = 0;
    if (b->iterations) return clocked(b, fn, arg, 0, b->iterations);
    clocked(b, fn, arg, 0, 1);
    while (n < MOST && (n < 5 || all < 0.4) && (n == 0 || all < 5)) {
        t[n] = clocked(b, fn, arg, n + 1, 1);
        all += t[n++];
    }
    qsort(t, (size_t)n, sizeof *t, ascending);
    return t[n / 2];
}

void bench_time_both(const Bench *b, void (*fn)(void *arg, int i), void *const arg[2], double seconds[2]) {
    enum { MOST = 200 };
    double t[2][MOST], all = 0;
    int n = 0;
    if (!b->iterations) clocked(b, fn, arg[1], 0, 1);
    for (; n < MOST && (b->iterations ? n < b->iterations : (n < 5 || all < 0.8) && (n == 0 || all < 10)); n++)
        for (int k = 0; k < 2; k++) all += t[k][n] = clocked(b, fn, arg[k], n + 1, 1);
    for (int k = 0; k < 2; k++) {
        qsort(t[k], (size_t)n, sizeof **t, ascending);
        seconds[k] = t[k][n / 2];
    }
}

typedef struct {
    Device *device;
    Graph *graph;
} Recorded;
static void run_recorded(void *arg, int i) {
    Recorded *r = arg;
    r->device->graph_run(r->device, r->graph);
}

double bench_time_ops(const Bench *b, void (*fn)(void *arg, int i), void *arg) {
    Device *d = b->device;
    if (!b->gpu || b->iterations) return bench_time(b, fn, arg);
    clocked(b, fn, arg, 0, 1);
    // Enough calls that launching the graph and waiting for it, some ten microseconds, do not count.
    double once = clocked(b, fn, arg, 0, 16);
    int calls = once > 1e-3 ? 4 : once > 1e-4 ? 32 : 256;
    d->graph_begin(d, NONE);
    for (int i = 0; i < calls; i++) fn(arg, i);
    Recorded r = {d, d->graph_end(d)};
    finish(b);
    double seconds = bench_time(b, run_recorded, &r) / calls;
    d->graph_free(d, r.graph);
    return seconds;
}

// Resets the peak of the process's memory (VmHWM) to what it holds now: that is what writing 5 to clear_refs does.
void peak_memory_reset(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return;
    fputs("5", f);
    fclose(f);
}

double peak_memory(void) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %ld", &kib) == 1) break;
    if (f) fclose(f);
    return (double)kib / (1 << 20);
}
