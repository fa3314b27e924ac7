// Every op of the case table at the shapes of the 0.5B model: bytes or FLOP a second, whichever binds by the probe.
#include "bench.h"
#include "cases.h"

#define COPIES 16 // sets of inputs in rotation, at most, where one alone would stay in the caches

typedef struct {
    Case copy[COPIES];
    int n;
} Rotation;

static void run(void *arg, int i) {
    Rotation *r = arg;
    Case *c = &r->copy[i % r->n];
    c->op->run(c);
}

static void measure(Bench *b, const CaseOp *op, CaseShape s, DType dtype, DType grad) {
    char name[128];
    Case named = {.op = op, .s = s, .dtype = dtype, .grad = grad};
    if (!bench_wants(b, case_name(&named, name, sizeof name))) return;
    if (b->floors) {
        Case c = case_open_shapes(op, s, dtype, grad);
        bench_row_floor(b, name, case_bytes(&c), op->flops ? op->flops(&c) : 0, dtype);
        case_close(&c);
        return;
    }
    double caches = (double)((int64_t)(b->gpu ? 512 : 64) << 20), all = 0;
    int most = b->iterations ? 1 : b->gpu ? COPIES : 4;
    Rotation r = {.n = 0};
    do {
        r.copy[r.n] = case_open_fast(b->device, op, s, dtype, grad);
        all += case_bytes(&r.copy[r.n++]);
    } while (all < caches && r.n < most);
    double bytes = case_bytes(&r.copy[0]) * 1e-9, flop = op->flops ? op->flops(&r.copy[0]) * 1e-9 : 0;
    double rate = dtype == F32 ? b->probe.f32 : b->probe.bf16, seconds = bench_time_ops(b, run, &r);
    if (flop / rate > bytes / b->probe.read) bench_row(b, name, flop / seconds, "GFLOP/s", rate, 0);
    else bench_row(b, name, bytes / seconds, "GB/s", b->probe.read, 0);
    for (int i = 0; i < r.n; i++) case_close(&r.copy[i]);
}

// Whether the table has shapes of that op for GPUs alone.
static bool has_large(const CaseOp *op) {
    for (int i = 0; i < CASE_ROWS; i++)
        if (case_table[i].op == op && case_table[i].large) return true;
    return false;
}

void bench_ops(Bench *b) {
    bench_section(b, "ops at the 0.5B model's shapes");
    for (int i = 0; i < CASE_ROWS; i++) {
        const CaseRow *row = &case_table[i];
        if (!row->bench || (row->large && !b->gpu) || (b->floors && !row->large && has_large(row->op))) continue;
        if (!b->floors || row->op->one_type) measure(b, row->op, row->s, F32, F32);
        if (case_differs(row->op, BF16, F32)) measure(b, row->op, row->s, BF16, F32);
        if (case_differs(row->op, BF16, BF16) && b->gpu) measure(b, row->op, row->s, BF16, BF16);
    }
}
