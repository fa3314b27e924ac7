// Every row of the case table as nvcc compiled it, on the machine of tests/ptx: against the C twins, and against the
// g++ emulation of the same kernels. `make check-ptx` runs it, with EMU_PTX naming the folder of the compiled kernels.
#include "on_device.h"
#include "cases.h"
#include "emu/emu.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

typedef struct {
    DType dtype, grad;
} Types;
static const Types types[] = {{F32, F32}, {BF16, F32}, {BF16, BF16}};

// The first difference between the two ways of running a kernel, and how many rows have the same bits.
static struct {
    int rows, same;
    char first[256];
} bits;

static double tolerance(const Case *c, const Arg *a) {
    if (a->t.dtype == I32) return 0;
    if (a->t.dtype == I64) return 1e-13;
    // Of bf16, two roundings of almost equal numbers differ by up to 2^-8, many together by half of that.
    if (c->dtype == BF16) return c->op == &op_attention_bwd || c->op == &op_logprob_bwd ? 0x1p-6 : 0x1p-8;
    return 4e-6;
}

// Of a shape of speed, what an hour allows: the machine makes some tenths of a GFLOP a second of f32, and some in
// tensor cores.
static bool affordable(const CaseRow *row, Types t) {
    Case c = case_open_shapes(row->op, row->s, t.dtype, t.grad);
    double flop = row->op->flops ? row->op->flops(&c) : 0, most = t.dtype == F32 ? 5e10 : 1e11;
    char name[128];
    case_name(&c, name, sizeof name);
    if (row->bench && flop > most) printf("SKIP %s: %.0f GFLOP, above %.0f\n", name, flop * 1e-9, most * 1e-9);
    case_close(&c);
    return !row->bench || flop <= most;
}

// A forward product once more, recorded while its weights stay as they are: it may copy them before it waits for the
// kernels before it, and its tokens only after. The same bits, by another way.
static void check_early_weights(Device *gpu, const CaseRow *row, Types t, const Case *waited, int64_t instructions) {
    if (!strstr(row->op->name, "matmul") || strstr(row->op->name, "bwd") || !row->s.T) return;
    Case early = case_open(gpu, row->op, row->s, t.dtype, t.grad, false);
    emu_machine(true);
    gpu->graph_begin(gpu, arg(&early, "w"));
    early.op->run(&early);
    Graph *g = gpu->graph_end(gpu);
    int64_t before_run = emu_machine_instructions();
    if (g) gpu->graph_run(gpu, g);
    gpu->sync(gpu);
    bool other_way = emu_machine_instructions() - before_run != instructions;
    emu_machine(false);
    if (g) gpu->graph_free(gpu, g);
    for (int i = 0; i < early.n_args; i++)
        if (!device_same(gpu, early.arg[i].t, waited->arg[i].t))
            fail_msg("%s T=%lld: %s has other bits where weights are copied early", row->op->name, (long long)row->s.T,
                     early.arg[i].name);
    if (!other_way) fail_msg("%s T=%lld: nothing is copied early", row->op->name, (long long)row->s.T);
    case_close(&early);
}

static void check_row(Device *cpu, Device *gpu, const CaseRow *row, Types t) {
    char name[128];
    emu_machine(false);
    Case twin = case_open(cpu, row->op, row->s, t.dtype, t.grad, false);
    Case emulated = case_open(gpu, row->op, row->s, t.dtype, t.grad, false);
    Case compiled = case_open(gpu, row->op, row->s, t.dtype, t.grad, false);
    twin.op->run(&twin);
    emulated.op->run(&emulated);
    gpu->sync(gpu);
    emu_machine(true);
    int64_t before_run = emu_machine_instructions();
    compiled.op->run(&compiled);
    gpu->sync(gpu);
    int64_t ran = emu_machine_instructions() - before_run;
    emu_machine(false);
    case_name(&compiled, name, sizeof name);
    bool same = true;
    double worst = 0;
    for (int i = 0; i < compiled.n_args; i++) {
        const Arg *a = &compiled.arg[i];
        if (!arg_is_set(a)) continue;
        if (!device_same(gpu, a->t, emulated.arg[i].t)) {
            if (!bits.first[0]) snprintf(bits.first, sizeof bits.first, "%s of %s", a->name, name);
            same = false;
        }
        int64_t n = tensor_numel(a->t);
        double *got = arg_values(gpu, a), *wanted = arg_values(cpu, &twin.arg[i]);
        double error = relative_error(got, wanted, n);
        if (!(error <= tolerance(&compiled, a)))
            fail_msg("%s: %s: error %g above %g against the C twin", name, a->name, error, tolerance(&compiled, a));
        if (error > worst) worst = error;
        free(got), free(wanted);
    }
    bits.rows++, bits.same += same;
    printf("%-52s error %.1e  %9lld instructions  %s\n", name, worst, (long long)ran,
           same ? "the emulation's bits" : "");
    fflush(stdout);
    check_early_weights(gpu, row, t, &compiled, ran);
    case_close(&twin), case_close(&emulated), case_close(&compiled);
}

static void rows_match_their_twins(void **state) {
    Device **d = *state;
    const char *only = getenv("GRPO_TEST_OP"), *all = getenv("PTX_ALL");
    for (int i = 0; i < CASE_ROWS; i++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            const CaseRow *row = &case_table[i];
            if (only && strcmp(only, row->op->name) != 0) continue;
            if (row->large || (row->bench && !all) || !case_differs(row->op, types[t].dtype, types[t].grad)) continue;
            if (affordable(row, types[t])) check_row(d[0], d[1], row, types[t]);
        }
    printf("%d of %d rows have the bits of the g++ emulation; the first difference: %s\n", bits.same, bits.rows,
           bits.first[0] ? bits.first : "none");
    assert_true(bits.rows > 0);
}

static int open_devices(void **state) {
    static Device *d[2];
    emu_machine(false);
    Error e = {0};
    d[0] = device_open(DEVICE_CPU, 0, 0, CPU_ISA_AUTO, &e);
    d[1] = device_open(DEVICE_CUDA, 0, 0, CPU_ISA_AUTO, &e);
    *state = d;
    if (!d[0] || !d[1]) return -1;
    d[1]->products = PRODUCTS_OWN; // the library's are no kernels of ours
    return 0;
}
static int close_devices(void **state) {
    Device **d = *state;
    device_close(d[0]), device_close(d[1]);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_match_their_twins)};
    return cmocka_run_group_tests_name("ptx_ops", tests, open_devices, close_devices);
}
