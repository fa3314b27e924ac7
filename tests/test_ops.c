// The case table on the device under test: against the f64 oracles, gradients against finite differences, and the
// numerics contract: the same bits at any thread count, and for a row alone as among others.
#include "cases.h"
#include "nearest.h"
#include "on_device.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct {
    DType dtype, grad;
} Types;
static const Types types[] = {{F32, F32}, {BF16, F32}, {BF16, BF16}};

// Calls f on every case of the table that is there for correctness; of one op where GRPO_TEST_OP names it.
static void for_cases(Device *d, void (*f)(Case *c)) {
    const char *only = getenv("GRPO_TEST_OP"), *names[CASE_ROWS];
    bool found = !only;
    for (int i = 0; i < CASE_ROWS; i++) {
        names[i] = case_table[i].op->name;
        found = found || !strcmp(only, names[i]);
    }
    const char *near = found ? NULL : nearest_name(only, names, CASE_ROWS);
    if (!found) fail_msg("no op is called %s%s%s", only, near ? "; perhaps " : "", near ? near : "");
    for (int i = 0; i < CASE_ROWS; i++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            const CaseRow *row = &case_table[i];
            if (only && strcmp(only, row->op->name) != 0) continue;
            if (row->bench || !case_differs(row->op, types[t].dtype, types[t].grad)) continue;
            Case c = case_open(d, row->op, row->s, types[t].dtype, types[t].grad, true);
            f(&c);
            case_close(&c);
        }
}

// f32: rounding in sums of a few thousand terms. bf16: one value is rounded by at most u = 2^-8, many together by less
// than u/2 in this norm; stochastic rounding errs twice as far; a gradient takes in a second rounded tensor, which
// attention_bwd multiplies with dy before it cancels against it (delta is made from y as stored). logprob_bwd rounds
// the logits' gradient to the activations' type before its products.
static double tolerance(const Case *c, const Arg *a, bool gradient) {
    if (a->t.dtype == I32) return 0;
    if (a->t.dtype == I64) return 1e-14;
    if (c->op == &op_logprob_bwd && c->dtype == BF16) return 0x1p-7;
    if (a->t.dtype == F32) return 2e-6;
    double u = tensor_numel(a->t) < 1000 ? 0x1.01p-8 : 0x1p-9;
    if (c->op == &op_attention_bwd) return 4 * u;
    return gradient || c->op == &op_adamw ? 2 * u : u;
}

static void check(const Case *c, const Arg *a, double error, double limit) {
    char name[128];
    if (getenv("GRPO_TEST_VERBOSE")) printf("%-50s %-6s %.2e\n", case_name(c, name, sizeof name), a->name, error);
    if (!(error <= limit))
        fail_msg("%s: %s: error %g above %g", case_name(c, name, sizeof name), a->name, error, limit);
}

static void assert_same_output(const Case *a, const Case *b, bool rows_only, const char *what) {
    char name[128];
    for (int i = 0; i < a->n_args; i++) {
        const Arg *x = &a->arg[i], *y = &b->arg[i];
        if (!arg_is_set(x) || (rows_only && !x->per_row)) continue;
        if (!device_same(a->d, x->t, y->t))
            fail_msg("%s: %s: other bits %s", case_name(a, name, sizeof name), x->name, what);
    }
}

static void check_values(Case *c) {
    c->op->run(c);
    if (c->op->oracle) c->op->oracle(c);
    for (int i = 0; i < c->n_args; i++) {
        Arg *a = &c->arg[i];
        if (c->op->oracle && arg_is_set(a)) check(c, a, arg_error(c, a), c->op->exact ? 0 : tolerance(c, a, false));
        if (c->op->objective && a->gradient)
            check(c, a, gradient_error(c, a), tolerance(c, case_find(c, a->gradient), true));
    }
    // Nothing that a call leaves behind, a counter say, is in the way of the next.
    Case again = case_open(c->d, c->op, c->s, c->dtype, c->grad, false);
    again.op->run(&again);
    assert_same_output(c, &again, false, "the second time");
    case_close(&again);
}
static void ops_match_oracles(void **state) { for_cases(*state, check_values); }

static void check_threads(Case *c) {
#ifdef _OPENMP
    int usual = omp_get_max_threads();
    omp_set_num_threads(1);
    c->op->run(c);
    int most = test_on_cuda() ? 2 : 3; // there the threads of the host have no say: the same again
    for (int threads = 2; threads <= most; threads++) {
        Case other = case_open(c->d, c->op, c->s, c->dtype, c->grad, false);
        omp_set_num_threads(threads);
        other.op->run(&other);
        assert_same_output(c, &other, false, "on several threads");
        case_close(&other);
    }
    omp_set_num_threads(usual);
#endif
}
static void same_bits_on_any_threads(void **state) { for_cases(*state, check_threads); }

// The emulation's stand-in for it sums every row by itself.
static bool library_multiplies(const Case *c) {
    return c->op->by_library && test_on_cuda() && !strstr(c->d->about, "emulated");
}
static void check_rows(Case *c) {
    bool per_row = false;
    for (int i = 0; i < c->n_args; i++) per_row |= c->arg[i].per_row && arg_is_set(&c->arg[i]);
    if (!per_row || library_multiplies(c)) return;
    c->op->run(c);
    Case alone = case_open(c->d, c->op, c->s, c->dtype, c->grad, false);
    int64_t rows = c->arg[0].t.dim[0];
    for (int64_t r = rows - 1; r >= 0; r--) {
        Case one = alone;
        for (int i = 0; i < one.n_args; i++)
            if (one.arg[i].per_row) one.arg[i].t = tensor_rows(one.arg[i].t, r, 1);
        one.op->run(&one);
    }
    assert_same_output(c, &alone, true, "for a row alone");
    case_close(&alone);
}
static void same_bits_for_a_row_alone(void **state) { for_cases(*state, check_rows); }

// The kernel that makes attention's gradients on a Hopper card takes only what is aligned; the portable one's have
// other last bits.
static bool by_boxes(const Case *c) {
    char line[VARIANT_LINE];
    for (int i = 0; c->op == &op_attention_bwd && c->d->variant && c->d->variant(c->d, i, line); i++)
        if (strstr(line, "gradients of attention") && strstr(line, ": used")) return true;
    return false;
}
// Nothing may depend on where memory lies: here every argument begins one element further; where a library multiplies,
// or a kernel is chosen by the alignment, as far on as keeps it.
enum { ALIGNED = 256 };
static size_t further(const Arg *a, bool by_library) {
    return by_library ? ALIGNED : a->align ? a->align : dtype_size(a->t.dtype);
}
static void check_place(Case *c) {
    bool by_library = library_multiplies(c) || by_boxes(c);
    c->op->run(c);
    Case moved = case_open(c->d, c->op, c->s, c->dtype, c->grad, false);
    void *home[CASE_ARGS];
    for (int i = 0; i < moved.n_args; i++) {
        Tensor *x = &moved.arg[i].t;
        home[i] = x->data;
        char *room = c->d->alloc(c->d, tensor_bytes(*x) + ALIGNED);
        assert_non_null(room);
        x->data = room + further(&moved.arg[i], by_library);
        c->d->copy(c->d, x->data, home[i], tensor_bytes(*x));
    }
    moved.op->run(&moved);
    assert_same_output(c, &moved, false, "elsewhere in memory");
    for (int i = 0; i < moved.n_args; i++) {
        Tensor *x = &moved.arg[i].t;
        c->d->free(c->d, (char *)x->data - further(&moved.arg[i], by_library), tensor_bytes(*x) + ALIGNED);
        x->data = home[i];
    }
    case_close(&moved);
}
static void same_bits_at_any_place(void **state) { for_cases(*state, check_place); }

// dx may be dres.
static void rmsnorm_bwd_in_place(void **state) {
    Device *d = *state;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        CaseShape s = {.T = 40, .D = 100, .opt = true};
        Case a = case_open(d, &op_rmsnorm_bwd, s, types[t].dtype, types[t].grad, false);
        a.op->run(&a);
        Case b = case_open(d, &op_rmsnorm_bwd, s, types[t].dtype, types[t].grad, false);
        d->rmsnorm_bwd(d, arg(&b, "dres"), arg(&b, "dw"), arg(&b, "dres"), arg(&b, "dy"), arg(&b, "sum"),
                       arg(&b, "rstd"), arg(&b, "w"));
        assert_true(device_same(d, arg(&a, "dx"), arg(&b, "dres")));
        assert_true(device_same(d, arg(&a, "dw"), arg(&b, "dw")));
        case_close(&a);
        case_close(&b);
    }
}

// Each row of the embedding's gradient is the f32 sum of its tokens' rows in ascending order, rounded once.
static void embed_bwd_adds_in_token_order(void **state) {
    Device *d = *state;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        Case c =
            case_open(d, &op_embed_bwd, (CaseShape){.T = 1500, .D = 5, .V = 4}, types[t].dtype, types[t].grad, true);
        c.op->run(&c);
        double *after = tensor_values(d, arg(&c, "dw")), *dw = before(&c, "dw"), *dy = before(&c, "dy");
        for (int64_t v = 0; v < c.s.V; v++)
            for (int64_t i = 0; i < c.s.D; i++) {
                float sum = (float)dw[v * c.s.D + i];
                for (int64_t u = 0; u < c.s.T; u++)
                    if ((int64_t)before(&c, "ids")[u] == v && v != CASE_PAD) sum += (float)dy[u * c.s.D + i];
                assert_true(after[v * c.s.D + i] == stored(c.grad, (double)sum));
            }
        free(after);
        case_close(&c);
    }
}

// Of more tokens than its blocks hold angles for at a time, each is turned as in a small batch, and all add to the
// bias.
static void rope_bwd_of_many_tokens(void **state) {
    Device *d = *state;
    CaseShape s = {.T = 8300, .H = 1, .K = 1, .d = 4, .opt = true};
    Case a = case_open(d, &op_rope_bwd, s, F32, F32, true), b = case_open(d, &op_rope_bwd, s, F32, F32, false);
    a.op->run(&a);
    RopeTable table = case_table_of(s.d);
    for (int64_t t = 0, half = s.T / 2; t < s.T; t += half)
        d->rope_bwd(d, tensor_rows(arg(&b, "dqkv"), t, half), NONE, tensor_rows(arg(&b, "pos"), t, half), &table,
                    (int)s.K);
    assert_true(device_same(d, arg(&a, "dqkv"), arg(&b, "dqkv")));
    int64_t width = tensor_numel(arg(&a, "dbias"));
    double *turned = tensor_values(d, arg(&a, "dqkv")), *dbias = tensor_values(d, arg(&a, "dbias"));
    for (int64_t i = 0; i < width; i++) {
        double sum = before(&a, "dbias")[i];
        for (int64_t t = 0; t < s.T; t++) sum += turned[t * width + i];
        assert_true(fabs(dbias[i] - sum) < 1e-3); // of 8300 numbers around 1 in f32
    }
    free(turned), free(dbias);
    case_close(&a);
    case_close(&b);
}

// Once `copy` returns, memory of the host can be read and written, pinned memory too.
static void copy_waits(void **state) {
    Device *d = *state;
    enum { N = 1000 };
    float *pinned = d->host_alloc(d, N * sizeof *pinned), back[N];
    Tensor x = tensor1(d->alloc(d, N * sizeof *back), F32, N);
    assert_true(pinned && x.data);
    d->fill(d, x, 3);
    d->copy(d, pinned, x.data, sizeof back);
    for (int i = 0; i < N; i++) assert_true(pinned[i] == 3);
    for (int i = 0; i < N; i++) pinned[i] = 5;
    d->copy(d, x.data, pinned, sizeof back);
    for (int i = 0; i < N; i++) pinned[i] = 7;
    d->copy(d, back, x.data, sizeof back);
    for (int i = 0; i < N; i++) assert_true(back[i] == 5);
    d->free(d, x.data, sizeof back);
    d->host_free(d, pinned, sizeof back);
}

// NaN and infinity survive every rounding to bf16, and large values round to infinity.
static void cast_keeps_specials(void **state) {
    Device *d = *state;
    float x[] = {NAN, INFINITY, -INFINITY, 3.4e38f, -0.0f, 1e-45f, 1.0f, 1.00390625f, 1.01171875f};
    uint16_t y[9] = {0};
    Tensor from = to_device(d, tensor1(x, F32, 9)), to = to_device(d, tensor1(y, BF16, 9));
    d->cast(d, to, from);
    device_fetch(d, y, to);
    device_drop(d, from), device_drop(d, to);
    assert_true(isnan(bf16_to_f32(y[0])));
    assert_true(bf16_to_f32(y[1]) == INFINITY && bf16_to_f32(y[2]) == -INFINITY && bf16_to_f32(y[3]) == INFINITY);
    assert_true(y[4] == 0x8000 && y[5] == 0);
    assert_true(y[6] == 0x3f80 && y[7] == 0x3f80 && y[8] == 0x3f82); // ties go to even
}

static int open_device(void **state) { return (*state = test_device(0)) ? 0 : -1; }
static int close_device(void **state) {
    Device *d = *state;
    bool clean = d->scratch.used == 0; // every op gave its scratch back
    device_close(d);
    return clean ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ops_match_oracles),
        cmocka_unit_test(same_bits_on_any_threads),
        cmocka_unit_test(same_bits_for_a_row_alone),
        cmocka_unit_test(same_bits_at_any_place),
        cmocka_unit_test(rmsnorm_bwd_in_place),
        cmocka_unit_test(embed_bwd_adds_in_token_order),
        cmocka_unit_test(rope_bwd_of_many_tokens),
        cmocka_unit_test(cast_keeps_specials),
        cmocka_unit_test(copy_waits),
    };
    return cmocka_run_group_tests_name("ops", tests, open_device, close_device);
}
