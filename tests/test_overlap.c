// Gradients that are added up over ranks while the backward pass goes on: the same bits as after it, begun before its
// end; and ranks that stop, die or go wrong meanwhile. On GPUs (GRPO_TEST_DEVICE=cuda) each rank needs one of its own;
// on the CPU, which adds up after the pass, the parts are put into the pass too.
#include "on_device.h"
#include "ranks_run.h"
#include "several_gpus.h"
#include <signal.h>
#include <sys/mman.h>

// The emulator's, where there is one (tests/emu/emu.h).
void emu_fail_launch(const char *kernel) __attribute__((weak));

enum { NOTHING, STOPS_BEHIND, DIES, HANGS, NOT_A_NUMBER, KERNEL_FAILS }; // what rank 1 does in step 2
enum { LAYERS = 2, PRODUCTS = 4 * LAYERS, MICROS = 2 };                  // backward products of a pass over models/tiny

// What the ranks leave for the test, in memory they share.
typedef struct {
    int step;           // that rank 0 is in
    int parts;          // rank 0 has begun in that step
    int products[64];   // that were behind each of these
    char bad[2][160];   // what was not finite in step 2, by ranks 0 and 1
    int64_t skipped[2]; // steps
} Told;
static Told *told;

static bool within; // whether parts are added up within the pass
static int fault;
static Fixture *run;
static int rank, products;
static Device real_device;
static Comm real_comm;

static bool now(int what) { return fault == what && rank == 1 && run->t.state.step == 1; }

static bool reduce_part(Comm *c, const char *name, Tensor x, int64_t first, int64_t count, Error *e) {
    if (rank == 0) told->products[told->parts % 64] = products;
    if (rank == 0) __atomic_add_fetch(&told->parts, 1, __ATOMIC_SEQ_CST);
    bool ok = real_comm.reduce_part(c, name, x, first, count, e);
    if (now(DIES)) kill(getpid(), SIGKILL);
    if (now(HANGS)) kill(getpid(), SIGSTOP);
    return ok;
}
static void matmul_bwd(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w) {
    real_device.matmul_bwd(d, dx, dw, dy, x, w);
    products++;
    if (now(NOT_A_NUMBER) && products == PRODUCTS + 1) d->fill(d, tensor_rows(dw, 0, 1), NAN);
    if (now(KERNEL_FAILS) && products == PRODUCTS + 5) emu_fail_launch("swiglu_bwd_kernel");
}
// Rank 1 stops in its first micro-batch, once rank 0 has begun to add up what its last one left.
static void grpo_loss(Device *d, GrpoOut out, GrpoIn in, GrpoParams p) {
    real_device.grpo_loss(d, out, in, p);
    if (!now(STOPS_BEHIND) || products) return;
    for (double start = clock_seconds(); since(start) < 60 && told->step < 2;) usleep(1000);
    for (double start = clock_seconds(); since(start) < 60 && !__atomic_load_n(&told->parts, __ATOMIC_SEQ_CST);)
        usleep(1000);
    kill(getpid(), SIGTERM);
}

static void spy(Trainer *t) {
    Device *d = t->learner.engine.device;
    Comm *c = t->learner.engine.comm;
    rank = comm_rank(c);
    real_device = *d;
    d->matmul_bwd = matmul_bwd;
    d->grpo_loss = grpo_loss;
    if (!c) return;
    real_comm = *c;
    c->beside = within;
    c->reduce_part = reduce_part;
}

// What command_train does.
static ExitCode be_rank(Fixture *f, Error *e) {
    Trainer *t = &f->t;
    if (!trainer_open(t, &f->cfg, e) || !trainer_resume(t, e)) return e->code;
    spy(t);
    while (t->state.step < t->total_steps) {
        products = 0;
        if (rank == 0) told->parts = 0, told->step = (int)t->state.step + 1;
        StepResult s = grpo_step(t, e);
        if (s == STEP_FAILED) return e->code;
        if (s == STEP_SKIPPED && rank < 2) {
            told->skipped[rank]++;
            memcpy(told->bad[rank], t->stats.bad, sizeof t->stats.bad);
        }
        if (s == STEP_STOPPED) error_set(e, EXIT_STOPPED, "stopped after step %lld", (long long)t->state.step);
        if (s != STEP_STOPPED && !train_log(t, s, e)) return e->code;
        if (!trainer_save(t, e)) return e->code;
        if (s == STEP_STOPPED) return EXIT_STOPPED;
    }
    return EXIT_OK;
}

#define TINY                                                                                                           \
    "threads=1 comm_timeout=60 max_steps=2 per_device_train_batch_size=2 gradient_accumulation_steps=2 "               \
    "max_completion_length=2 beta=0 save_total_limit=9 "

// Trains the fixture on some ranks; the exit code, and what was said on stderr (run_ranks).
static int train(Fixture *f, bool in_the_pass, int what, const char *options, Str *said) {
    char *all = xasprintf(TINY "%s", options);
    *told = (Told){0};
    run = f, within = in_the_pass, fault = what;
    int code = run_ranks(f, all, be_rank, said);
    free(all);
    return code;
}

static void assert_said(const Str *said, const char *words) {
    if (!strstr(said->s, words)) fail_msg("\"%s\" is not in: %s", words, said->s);
}

// The embedding is the head too: its gradient comes last, and with it what does not decay. A layer's is on its way
// before the products of the layer below.
static void assert_order(bool in_the_pass) {
    const int before = (MICROS - 1) * PRODUCTS, all = MICROS * PRODUCTS;
    assert_int_equal(told->parts, LAYERS + 2);
    for (int k = 0; k < told->parts; k++) {
        int want = in_the_pass && k < LAYERS ? before + 4 * (k + 1) : all;
        assert_int_equal(told->products[k], want);
    }
}

static void the_bits_are_those_of_adding_up_afterwards(void **state) {
    static const struct {
        int ranks;
        const char *options;
        bool master;
    } variants[] = {
        {2, "", false},
        {3, "dtype=bf16 gradient_checkpointing=true", true},
        {4, "dtype=bf16 grad_dtype=bf16 max_grad_norm=0.01", true},
        {2, "lora_r=3 lora_alpha=8 learning_rate=1e-2", false},
        {1, "", false},
    };
    NEEDS_GPUS(4);
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        Fixture f[2];
        char *options = xasprintf("gpus=%d max_steps=1 %s", variants[v].ranks, variants[v].options);
        bool lora = strstr(options, "lora");
        for (int k = 0; k < 2; k++) {
            fixture_dir(&f[k]);
            train(&f[k], k, NOTHING, options, NULL);
            if (variants[v].ranks == 1) assert_int_equal(told->parts, 0);
            else if (lora) assert_int_equal(told->parts, LAYERS); // all decays, and there is no more
            else assert_order(k);
        }
        assert_same_output(&f[0], &f[1], "step_1/state/moment1.bin"); // the gradients, times a constant
        if (!lora) assert_same_checkpoint(&f[0], &f[1], 1, variants[v].master);
        json_t *a = metrics_line(&f[0], 1), *b = metrics_line(&f[1], 1);
        assert_true(json_number_value(json_object_get(a, "grad_norm")) > 0);
        assert_true(json_equal(json_object_get(a, "grad_norm"), json_object_get(b, "grad_norm")));
        json_decref(a), json_decref(b);
        for (int k = 0; k < 2; k++) fixture_remove(&f[k]);
        free(options);
    }
}

// A rank that was asked to stop between its micro-batches adds up what it has: others have begun. The same command
// then ends in the bytes of a run that never stopped.
static void a_rank_that_stops_joins_what_others_began(void **state) {
    NEEDS_GPUS(3);
    Fixture straight, f;
    Str said = {0};
    fixture_dir(&straight), fixture_dir(&f);
    train(&straight, true, NOTHING, "gpus=3", NULL);
    int code = train(&f, true, STOPS_BEHIND, "gpus=3", &said);
    if (code != EXIT_STOPPED) fail_msg("exit %d: %s", code, said.s);
    assert_int_equal(told->step, 2);
    assert_int_equal(told->parts, LAYERS + 2);
    train(&f, true, NOTHING, "gpus=3", NULL);
    assert_same_checkpoint(&f, &straight, 2, false);
    str_free(&said);
    fixture_remove(&straight), fixture_remove(&f);
}

// A rank that is gone after its first part: every other leaves with one line that names it, its phase and the
// collective.
static void a_lost_rank_is_named(void **state) {
    NEEDS_GPUS(3);
    for (int hangs = 0; hangs < 2; hangs++) {
        Fixture f;
        Str said = {0};
        fixture_dir(&f);
        int code = train(&f, true, hangs ? HANGS : DIES, hangs ? "gpus=3 comm_timeout=2" : "gpus=3", &said);
        if (code != EXIT_COMM) fail_msg("exit %d: %s", code, said.s);
        assert_said(&said, "rank 1 ");
        assert_said(&said, "phase `train` of step 2");
        if (hangs) assert_said(&said, "has not been heard of for 2 s");
        if (hangs) assert_said(&said, "in the collective `gradients`");
        str_free(&said);
        fixture_remove(&f);
    }
}

static void a_bad_gradient_is_named_by_all(void **state) {
    NEEDS_GPUS(3);
    Fixture f;
    fixture_dir(&f);
    train(&f, true, NOT_A_NUMBER, "gpus=3", NULL);
    for (int r = 0; r < 2; r++) {
        assert_int_equal(told->skipped[r], 1);
        if (!strstr(told->bad[r], "model.layers.1.mlp.down_proj.weight")) fail_msg("rank %d: %s", r, told->bad[r]);
    }
    size_t n, m;
    char *one = output(&f, "step_1/model.safetensors", &n), *two = output(&f, "step_2/model.safetensors", &m);
    assert_true(n == m && !memcmp(one, two, n));
    free(one), free(two);
    fixture_remove(&f);
}

// Runs a supervised command on so many ranks: the gradient norms of its two steps. An emulated GPU does its work at
// once there: put off, a part that is sent too early would be whole by the time it goes.
static void supervised(const Fixture *f, const char *command, int ranks, double norm[2]) {
    char *line = xasprintf(
        "EMU_DEFER=0 %s %s model=models/tiny init=random dtype=f32 chat_template=r1-zero train_file=%s/%s.jsonl "
        "device=%s gpus=%d threads=1 max_length=128 per_device_train_batch_size=2 max_steps=2 "
        "gradient_accumulation_steps=%d learning_rate=1e-3 progress=off output_dir=%s/out >%s/said 2>&1",
        program(), command, f->dir, command, test_on_cuda() ? "cuda" : "cpu", ranks, 4 / ranks, f->dir, f->dir);
    if (system(line)) fail_msg("%s", line);
    for (int step = 1; step <= 2; step++) {
        json_t *at = metrics_line(f, step);
        norm[step - 1] = json_number_value(json_object_get(at, "grad_norm"));
        json_decref(at);
    }
    char *out = xasprintf("%s/out", f->dir);
    Error e = {0};
    assert_true(disk_remove(out, &e));
    free(out), free(line);
}

// What has no Trainer: two ranks of two micro-batches have the gradients of one rank of four.
static void supervised_commands_do_so_too(void **state) {
    static const char *const commands[] = {"sft", "reward_model"};
    NEEDS_GPUS(2);
    Fixture f;
    fixture_dir(&f);
    for (int k = 0; k < 2; k++) {
        char *path = xasprintf("%s/%s.jsonl", f.dir, commands[k]);
        FILE *rows = fopen(path, "w");
        assert_non_null(rows);
        for (int i = 0; i < 24; i++)
            fprintf(rows, "{\"prompt\": \"Count to %d.\", \"%s\": \"One, two, %d until %d.\"%s}\n", i % 7,
                    k ? "chosen" : "completion", i % 5, i, k ? ", \"rejected\": \"No.\"" : "");
        assert_int_equal(fclose(rows), 0);
        double one[2], two[2];
        supervised(&f, commands[k], 1, one), supervised(&f, commands[k], 2, two);
        for (int i = 0; i < 2; i++)
            if (!(one[i] > 0 && fabs(two[i] / one[i] - 1) < 1e-5))
                fail_msg("%s: norm %.9g, on one rank %.9g", commands[k], two[i], one[i]);
        free(path);
    }
    fixture_remove(&f);
}

// A kernel that fails on one GPU in the middle of the pass is what all ranks end with.
static void a_kernel_that_fails_ends_all(void **state) {
    if (!test_on_cuda() || !emu_fail_launch) {
        printf("  SKIP: faults on purpose need the emulation of a GPU (MODE=emu)\n");
        skip();
    }
    Fixture f;
    Str said = {0};
    fixture_dir(&f);
    int code = train(&f, true, KERNEL_FAILS, "gpus=3", &said);
    if (code != EXIT_COMM) fail_msg("exit %d: %s", code, said.s);
    assert_said(&said, "or work before it: unspecified launch failure");
    str_free(&said);
    fixture_remove(&f);
}

int main(void) {
    clear_launchers();
    setenv("OMP_NUM_THREADS", "1", 1);
    setenv("EMU_DEVICES", "4", 0);
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bits_are_those_of_adding_up_afterwards),
        cmocka_unit_test(a_rank_that_stops_joins_what_others_began),
        cmocka_unit_test(a_lost_rank_is_named),
        cmocka_unit_test(a_bad_gradient_is_named_by_all),
        cmocka_unit_test(supervised_commands_do_so_too),
        cmocka_unit_test(a_kernel_that_fails_ends_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
