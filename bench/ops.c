// Every op of the case table at the shapes of the 0.5B model: bytes or FLOP a second, whichever binds by the probe.
#include "bench.h"
#include "cases.h"

#define COPIES 16 // sets of inputs in rotation, at most, where one alone would stay in the caches

// grpo_loss is no part of the table: its arguments are structs. Eight completions of T / 8 tokens, with a reference.
static void grpo_loss_make(Case *c) {
    enum { SEQUENCES = 8 };
    int32_t index[SEQUENCES], offsets[SEQUENCES + 1] = {0};
    uint8_t mask[SEQUENCES];
    for (int i = 0; i < SEQUENCES; i++) {
        index[i] = i, mask[i] = 1;
        offsets[i + 1] = (int32_t)(c->s.T / SEQUENCES) * (i + 1);
    }
    case_floats(c, "logp", ARG_IN, F32, c->s.T, 0, 0, -1, 0.3);
    case_floats(c, "old_logp", ARG_IN, F32, c->s.T, 0, 0, -1, 0.3);
    case_floats(c, "ref_logp", ARG_IN, F32, c->s.T, 0, 0, -1, 0.3);
    case_floats(c, "entropy", ARG_IN, F32, c->s.T, 0, 0, 1, 0.3);
    case_floats(c, "rewards", ARG_IN, F32, SEQUENCES, 5, 0, 0, 1);
    case_floats(c, "weights", ARG_IN, F32, 5, 0, 0, 1, 0);
    case_ints(c, "index", tensor1(index, I32, SEQUENCES));
    case_ints(c, "offsets", tensor1(offsets, I32, SEQUENCES + 1));
    case_ints(c, "mask", tensor1(mask, U8, SEQUENCES));
    case_floats(c, "advantage", ARG_OUT, F32, SEQUENCES, 0, 0, 0, 0);
    case_floats(c, "dlogp", ARG_OUT, F32, c->s.T, 0, 0, 0, 0);
    case_floats(c, "dentropy", ARG_OUT, F32, c->s.T, 0, 0, 0, 0);
    case_floats(c, "metrics", ARG_OUT, F32, SEQUENCES, GM_COUNT, 0, 0, 0);
}
static void grpo_loss_run(Case *c) {
    GrpoIn in = {1, 8, 5, .rewards = arg(c, "rewards"), .weights = arg(c, "weights"), .index = arg(c, "index")};
    in.offsets = arg(c, "offsets"), in.logp = arg(c, "logp"), in.old_logp = arg(c, "old_logp");
    in.ref_logp = arg(c, "ref_logp"), in.entropy = arg(c, "entropy"), in.mask = arg(c, "mask");
    GrpoOut out = {arg(c, "advantage"), arg(c, "dlogp"), arg(c, "dentropy"), arg(c, "metrics")};
    GrpoParams p = {.epsilon = 0.2f,
                    .epsilon_high = 0.2f,
                    .beta = 0.04f,
                    .entropy_coef = 0.01f,
                    .delta = -1,
                    .off_policy_threshold = -1};
    p.entropy_threshold = -INFINITY, p.loss_scale = p.entropy_scale = 1e-4f;
    c->d->grpo_loss(c->d, out, in, p);
}
CASE_OP(grpo_loss);

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
        if (!b->floors) measure(b, row->op, row->s, F32, F32);
        measure(b, row->op, row->s, BF16, F32);
        if (row->op->grads && b->gpu) measure(b, row->op, row->s, BF16, BF16);
    }
    measure(b, &op_grpo_loss, (CaseShape){.T = 8192}, F32, F32);
    if (b->gpu) measure(b, &op_grpo_loss, (CaseShape){.T = 1 << 20}, F32, F32);
}
