// Every op of the case table at the shapes of the 0.5B model: bytes or FLOP a second, whichever binds by the probe.
#include "bench.h"
#include "cases.h"

#define COPIES 4 // sets of inputs in rotation, where one alone would stay in the caches
#define CACHES ((double)(64 << 20))

typedef struct {
    Case copy[COPIES];
    int n;
} Rotation;

static void run(void *arg, int i) {
    Rotation *r = arg;
    Case *c = &r->copy[i % r->n];
    c->op->run(c);
}

static void measure(Bench *b, Device *d, const CaseRow *row, DType dtype) {
    char name[128];
    Case named = {.op = row->op, .s = row->s, .dtype = dtype, .grad = F32};
    if (!bench_wants(b, case_name(&named, name, sizeof name))) return;
    Rotation r = {.n = 0};
    do r.copy[r.n] = case_open(d, row->op, row->s, dtype, F32, false);
    while (case_bytes(&r.copy[r.n++]) < CACHES && r.n < COPIES);
    double bytes = case_bytes(&r.copy[0]) * 1e-9, flop = row->op->flops ? row->op->flops(&r.copy[0]) * 1e-9 : 0;
    double rate = dtype == F32 ? b->probe.f32 : b->probe.bf16, seconds = bench_time(run, &r);
    if (flop / rate > bytes / b->probe.read) bench_row(b, name, flop / seconds, "GFLOP/s", rate, 0);
    else bench_row(b, name, bytes / seconds, "GB/s", b->probe.read, 0);
    for (int i = 0; i < r.n; i++) case_close(&r.copy[i]);
}

void bench_ops(Bench *b) {
    Device *d = cpu_open(0);
    if (!d) die("bench: no memory");
    bench_section("ops at the 0.5B model's shapes");
    for (int i = 0; i < CASE_ROWS; i++) {
        if (!case_table[i].bench) continue;
        measure(b, d, &case_table[i], F32);
        measure(b, d, &case_table[i], BF16);
    }
    cpu_close(d);
}
