// Several ranks on the CPU: the same numbers as one rank, resuming, stopping, and every way in which a rank can fail.
#include "exchange.h"
#include "train_commands.h"
#include "eval.h"
#include "file.h"
#include "ranks_run.h"
#include <signal.h>
#include <sys/mman.h>

// ---- ranks inside the test: a child forks them, so that a rank can be given a fault ---------------------------------

typedef enum { NOWHERE, ROLLOUT, REWARDS, REFERENCE, TRAIN, OPTIMIZER, SAVE, EVAL, GATHER } Where;
enum { DISK_IS_FULL = 1000, SKIP_ONE, NOT_A_NUMBER }; // faults that are no signals

// What happens to `victim` in phase `where` of step 2.
typedef struct {
    int victim;
    Where where;
    int fault; // a signal, or one of the above
} Fault;

static Fault fault;
static Device real_device;
static Comm real_comm;
static bool armed;
static double *struck; // when, for the test that waits for the end

static void strike(Where here) {
    if (!armed || fault.where != here || fault.fault == NOT_A_NUMBER) return;
    armed = false;
    *struck = clock_seconds();
    kill(getpid(), fault.fault); // rewards run on threads of their own
}
static void sample(Device *d, SampleOut to, Tensor x, Tensor w, Tensor key, Tensor pos, Tensor seen, Tensor seen_len,
                   SampleParams p) {
    strike(ROLLOUT);
    real_device.sample(d, to, x, w, key, pos, seen, seen_len, p);
}
static void logprob(Device *d, Tensor logp, Tensor lse, Tensor entropy, Tensor x, Tensor rows, Tensor w, Tensor target,
                    float temperature) {
    strike(REFERENCE);
    real_device.logprob(d, logp, lse, entropy, x, rows, w, target, temperature);
}
static void grpo_loss(Device *d, GrpoOut out, GrpoIn in, GrpoParams p) {
    strike(TRAIN);
    real_device.grpo_loss(d, out, in, p);
    if (fault.fault == NOT_A_NUMBER && fault.where == TRAIN && armed) {
        armed = false;
        f32(out.metrics)[GM_LOSS] = NAN;
    }
}
static void matmul_bwd(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w) {
    real_device.matmul_bwd(d, dx, dw, dy, x, w);
    if (fault.fault == NOT_A_NUMBER && fault.where == OPTIMIZER && armed) {
        armed = false;
        tensor_set(dw, 0, NAN);
    }
}
static void adamw(Device *d, Tensor w, Tensor master, Tensor m, Tensor v, Tensor dw, AdamParams p) {
    strike(OPTIMIZER);
    real_device.adamw(d, w, master, m, v, dw, p);
}
static RewardInfo counted;
static void (*real_reward)(const Reward *r, const Sample *s, int n, float *score);
static void reward(const Reward *r, const Sample *s, int n, float *score) {
    strike(REWARDS);
    real_reward(r, s, n, score);
}
static bool exchange(Comm *c, const char *name, void *data, const uint64_t *end, Error *e) {
    if (!strcmp(name, "checkpoint")) strike(SAVE);
    return real_comm.exchange(c, name, data, end, e);
}
static bool all_gather(Comm *c, const char *name, Tensor x, Error *e) {
    if (armed && fault.where == GATHER && fault.fault == SKIP_ONE)
        return *struck = clock_seconds(), armed = false, true;
    strike(GATHER);
    return real_comm.all_gather(c, name, x, e);
}

static void arm(Trainer *t) {
    if (armed || comm_rank(t->learner.engine.comm) != fault.victim) return;
    armed = true;
    Device *d = t->learner.engine.device;
    real_device = *d;
    d->sample = sample;
    d->logprob = logprob;
    d->grpo_loss = grpo_loss;
    d->adamw = adamw;
    d->matmul_bwd = matmul_bwd;
    counted = *t->scoring.rewards.reward[0].info;
    real_reward = counted.fn;
    counted.fn = reward;
    t->scoring.rewards.reward[0].info = &counted;
    real_comm = *t->learner.engine.comm;
    t->learner.engine.comm->exchange = exchange;
    t->learner.engine.comm->all_gather = all_gather;
}

// What command_train does, with a fault in step 2.
static ExitCode be_rank(Fixture *f, Error *e) {
    Trainer *t = &f->t;
    if (!trainer_open(t, &f->cfg, e) || !trainer_resume(t, e)) return e->code;
    while (t->state.step < t->total_steps) {
        if (t->state.step == 1 && fault.where != NOWHERE) arm(t);
        StepResult s = grpo_step(t, e);
        if (s == STEP_FAILED) return e->code;
        if (s == STEP_STOPPED) {
            error_set(e, EXIT_STOPPED, "stopped after step %lld", (long long)t->state.step);
            return trainer_save(t, e) ? EXIT_STOPPED : e->code;
        }
        if (!train_log(t, s, e)) return e->code;
        if (armed && fault.fault == DISK_IS_FULL) {
            *struck = clock_seconds();
            error_set(e, EXIT_DISK, "the disk is full");
            return EXIT_DISK;
        }
        EvalResult r;
        bool striking = armed && fault.where == EVAL;
        if (striking) fault.where = ROLLOUT;
        if (striking || fault.where == EVAL) {
            ranks_phase("eval", t->state.step);
            if (!eval_run(&t->learner.engine, &t->questions.prompter, t->questions.held_out, &t->scoring.rewards, 4, 1,
                          &r, e)) {
                if (e->code != EXIT_STOPPED) return e->code;
                return trainer_save(t, e) ? EXIT_STOPPED : e->code;
            }
        }
        if (!trainer_save(t, e)) return e->code;
    }
    return EXIT_OK;
}

// Runs the fixture's training on as many ranks as `options` say; the exit code, and what was said on stderr
// (run_ranks).
static int train(Fixture *f, const char *options, Fault what, Str *said) {
    char *all = xasprintf("%s eval_steps=1000 eval_file=%s/train.jsonl", options, f->dir); // so that there is one
    fault = what;
    armed = false;
    int code = run_ranks(f, all, be_rank, said);
    free(all);
    return code;
}

// ---- the same numbers -----------------------------------------------------------------------------------------------

#define TINY "threads=1 save_steps=0 comm_timeout=20 "

// Each rank's own times, rank 0's within its step's, and its memory; rank 0's under the names that one rank has.
static void assert_costs_of_ranks(const json_t *line, int ranks) {
    static const char *const names[] = {"time/rollout", "time/reward",    "time/reference",
                                        "time/train",   "time/optimizer", "memory/process_gib"};
    double step = json_number_value(json_object_get(line, "step_time"));
    for (int r = 0; r <= ranks; r++) {
        double sum = 0;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            char name[64];
            snprintf(name, sizeof name, r ? "%s/rank_%d" : "%s", names[i], r);
            const json_t *told = json_object_get(line, name);
            assert_true(json_is_number(told) == (r < ranks));
            double x = json_number_value(told);
            if (strncmp(names[i], "time/", 5)) assert_true(r == ranks || (x > 0.001 && x < 64));
            else sum += x;
        }
        assert_true(r == ranks ||
                    (sum > 0 && sum < 60)); // another rank may have begun before rank 0 had written its logs
        assert_true(r || sum <= 1.001 * step);
    }
}

static void one_two_and_four_ranks_agree(void **state) {
    // Two groups of four: of four ranks two have nothing to answer.
    static const char *const variants[] = {
        "",
        "loss_type=dapo top_entropy_quantile=0.5 entropy_coef=0.01 scale_rewards=batch",
        "loss_type=bnpo dynamic_sampling=2 rewards=correctness,completion_length",
        "steps_per_generation=%d num_iterations=2 sync_ref_model=true ref_model_sync_steps=1",
        "multi_objective_aggregation=normalize_then_sum shuffle_rewards=true beta=0",
        // A micro-batch is a whole group with its prompt once; of four ranks each has one. The reference is made again.
        "per_device_train_batch_size=4 gradient_checkpointing=true reference_weights=reload",
        "lora_r=3 lora_alpha=8 learning_rate=1e-2",
    };
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        Fixture f[3];
        for (int k = 0; k < 3; k++) {
            int ranks = 1 << k, accumulate = 4 >> k;
            char more[300], options[500];
            snprintf(more, sizeof more, variants[v], 2 * accumulate);
            fixture_dir(&f[k]);
            snprintf(options, sizeof options,
                     TINY "gpus=%d per_device_train_batch_size=2 gradient_accumulation_steps=%d max_steps=2 "
                          "max_grad_norm=0 %s",
                     ranks, accumulate, more);
            train(&f[k], options, (Fault){0}, NULL);
            if (k == 0) continue;
            assert_same_output(&f[k], &f[0], "completions.jsonl"); // of step 1 at least to the bit, and here of both
            static const char *const names[] = {"loss",
                                                "grad_norm",
                                                "reward",
                                                "entropy",
                                                "num_tokens",
                                                "frac_rows_saved",
                                                "completions/mean_length",
                                                "clip_ratio/region_mean"};
            for (int step = 1; step <= 2; step++) {
                json_t *a = metrics_line(&f[k], step), *b = metrics_line(&f[0], step);
                for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                    assert_close(names[i], options, json_number_value(json_object_get(a, names[i])),
                                 json_number_value(json_object_get(b, names[i])));
                assert_costs_of_ranks(a, ranks);
                json_decref(a);
                json_decref(b);
            }
            // The first moment after one step is the gradient, times a constant.
            double error = distance(&f[k], &f[0], "step_1/state/moment1.bin");
            if (!(error < 1e-6)) fail_msg("%s: gradients differ by %g", options, error);
        }
        for (int k = 0; k < 3; k++) fixture_remove(&f[k]);
    }
}

static void runs_repeat_to_the_byte(void **state) {
    static const char *const variants[] = {
        "gpus=2 gradient_accumulation_steps=2", "gpus=3 gradient_accumulation_steps=2 dtype=bf16",
        "gpus=4 gradient_accumulation_steps=1 dtype=bf16 optim_dtype=bf16 grad_dtype=bf16 max_steps=3"};
    for (int v = 0; v < 3; v++) {
        Fixture f[2];
        char options[300];
        snprintf(options, sizeof options, TINY "per_device_train_batch_size=2 max_steps=2 %s", variants[v]);
        for (int k = 0; k < 2; k++) {
            fixture_dir(&f[k]);
            train(&f[k], options, (Fault){0}, NULL);
        }
        assert_same_checkpoint(&f[0], &f[1], 2, v == 1);
        assert_same_output(&f[0], &f[1], "completions.jsonl");
        for (int k = 0; k < 2; k++) fixture_remove(&f[k]);
    }
}

// Stochastic rounding draws an element's bits by its place in the whole, not in a rank's slice: but for gradients that
// differ in their last bits, state in bf16 is the same on any number of ranks.
static void rounding_does_not_know_ranks(void **state) {
    Fixture f[2];
    for (int k = 0; k < 2; k++) {
        char options[300];
        snprintf(options, sizeof options,
                 TINY "dtype=bf16 optim_dtype=bf16 per_device_train_batch_size=2 max_steps=1 gpus=%d "
                      "gradient_accumulation_steps=%d",
                 1 + 2 * k, 6 / (1 + 2 * k));
        fixture_dir(&f[k]);
        train(&f[k], options, (Fault){0}, NULL);
    }
    size_t n, m, differ = 0;
    char *a = output(&f[0], "step_1/state/moment1.bin", &n), *b = output(&f[1], "step_1/state/moment1.bin", &m);
    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i += 2) differ += memcmp(a + i, b + i, 2) != 0;
    if (differ > n / 2 / 100) fail_msg("%zu of %zu elements differ", differ, n / 2);
    free(a);
    free(b);
    for (int k = 0; k < 2; k++) fixture_remove(&f[k]);
}

static void move_checkpoint_away(const Fixture *f, int step) {
    char *path = xasprintf("%s/out/step_%d", f->dir, step);
    Error e = {0};
    assert_true(disk_remove(path, &e));
    free(path);
}

// From the checkpoint of step 2, with as many ranks: the same bytes. With another number: the same numbers.
static void a_checkpoint_goes_on_with_any_number_of_ranks(void **state) {
    const char *half_used =
        TINY "per_device_train_batch_size=2 max_steps=4 save_total_limit=9 num_iterations=2 dtype=bf16 "
             "gpus=%d gradient_accumulation_steps=%d steps_per_generation=%d";
    char two[300], other[300];
    snprintf(two, sizeof two, half_used, 2, 2, 4);
    Fixture straight, f;
    fixture_dir(&straight);
    train(&straight, two, (Fault){0}, NULL);
    for (int k = 0; k < 3; k++) {
        int ranks = 1 << k;
        fixture_dir(&f);
        train(&f, two, (Fault){0}, NULL);
        move_checkpoint_away(&f, 4);
        move_checkpoint_away(&f, 3);
        snprintf(other, sizeof other, half_used, ranks, 4 / ranks, 8 / ranks);
        train(&f, other, (Fault){0}, NULL);
        if (ranks == 2) assert_same_checkpoint(&f, &straight, 4, true);
        else assert_true(distance(&f, &straight, "step_4/state/master.bin") < 1e-5);
        fixture_remove(&f);
    }
    // A half-used generation of another size cannot be used up.
    fixture_dir(&f);
    train(&f, two, (Fault){0}, NULL);
    move_checkpoint_away(&f, 4);
    Str said = {0};
    snprintf(other, sizeof other, half_used, 4, 2, 4);
    assert_int_equal(train(&f, other, (Fault){0}, &said), EXIT_CONFIG);
    assert_non_null(strstr(said.s, "4 ranks"));
    assert_non_null(strstr(said.s, "state/config.yaml"));
    str_free(&said);
    fixture_remove(&f);
    fixture_remove(&straight);
}

// ---- stopping and failing -------------------------------------------------------------------------------------------

static const char three[] = TINY "gpus=3 per_device_train_batch_size=4 gradient_accumulation_steps=1 max_steps=3 ";
static const char *const phase_of[] = {
    [ROLLOUT] = "rollout",     [REWARDS] = "r" /* or rollout: rewards run beside it */,
    [REFERENCE] = "reference", [TRAIN] = "train",
    [OPTIMIZER] = "optimizer", [SAVE] = "save",
    [EVAL] = "eval",           [GATHER] = "optimizer"};

static void a_signal_to_one_rank_stops_all(void **state) {
    Fixture straight, f;
    Str said = {0};
    fixture_dir(&straight);
    train(&straight, three, (Fault){0}, NULL);
    for (Where w = ROLLOUT; w <= EVAL; w++) {
        fixture_dir(&f);
        int code = train(&f, three, (Fault){(int)w % 3, w, SIGTERM}, &said);
        if (code != EXIT_STOPPED) fail_msg("SIGTERM in %s: exit %d: %s", phase_of[w], code, said.s);
        char *first = strstr(said.s, "grpo: SIGTERM: stopping");
        assert_non_null(first);
        if (strstr(first + 1, "grpo: SIGTERM: stopping")) fail_msg("%s: said twice: %s", phase_of[w], said.s);
        train(&f, three, (Fault){0}, NULL);
        assert_same_checkpoint(&f, &straight, 3, false);
        assert_same_output(&f, &straight, "completions.jsonl");
        fixture_remove(&f);
    }
    str_free(&said);
    fixture_remove(&straight);
}

// The others leave with one line that names the rank and where it was; what was saved before is good.
static void fails(Where w, int sig, int code, double within, const char *options, const char *const words[4]) {
    Fixture f;
    Str said = {0};
    fixture_dir(&f);
    char *all = xasprintf("%s%s", three, options);
    int got = train(&f, all, (Fault){(int)w % 3, w, sig}, &said);
    double took = since(*struck);
    if (got != code) fail_msg("fault %d in phase %d: exit %d: %s", sig, w, got, said.s);
    if (took > within) fail_msg("fault %d in phase %d: ended after %.1f s: %s", sig, w, took, said.s);
    for (int i = 0; i < 4 && words[i]; i++)
        if (!strstr(said.s, words[i])) fail_msg("fault %d in phase %d: \"%s\" not in: %s", sig, w, words[i], said.s);
    char *line = strstr(said.s, "grpo: error: ");
    assert_non_null(line);
    assert_null(strstr(line + 1, "grpo: error: "));
    if (w == OPTIMIZER || w == SAVE) train(&f, three, (Fault){0}, NULL); // and goes on
    free(all);
    str_free(&said);
    fixture_remove(&f);
}

static void a_killed_rank_ends_all(void **state) {
    for (Where w = ROLLOUT; w <= GATHER; w++) {
        char rank[16], phase[40];
        snprintf(rank, sizeof rank, "rank %d ", (int)w % 3);
        snprintf(phase, sizeof phase, "phase `%s", phase_of[w]);
        fails(w, SIGKILL, EXIT_COMM, 15, "", (const char *const[4]){rank, phase, NULL});
    }
}

static void a_stopped_rank_times_out(void **state) {
    for (Where w = ROLLOUT; w <= GATHER; w += 4) {
        char rank[16], phase[40];
        snprintf(rank, sizeof rank, "rank %d ", (int)w % 3);
        snprintf(phase, sizeof phase, "phase `%s", phase_of[w]);
        fails(w, SIGSTOP, EXIT_COMM, 1 + 15, "comm_timeout=1",
              (const char *const[4]){rank, phase, "has not been heard of for 1 s", "in the collective"});
    }
}

static void a_skipped_collective_is_an_error(void **state) {
    fails(GATHER, SKIP_ONE, EXIT_COMM, 15, "", (const char *const[4]){"`parameters`", "while rank", NULL});
}

static void the_failure_of_one_rank_is_that_of_all(void **state) {
    fails(SAVE, DISK_IS_FULL, EXIT_DISK, 15, "", (const char *const[4]){"grpo: error: the disk is full", NULL});
}

// A number that is not finite on one rank: all of them skip the step, and the log names it.
static void a_bad_number_on_one_rank_is_skipped_by_all(void **state) {
    for (int k = 0; k < 2; k++) {
        Fixture f;
        Str said = {0};
        fixture_dir(&f);
        char options[300];
        snprintf(options, sizeof options, "%s save_total_limit=9", three);
        if (train(&f, options, (Fault){2, k ? OPTIMIZER : TRAIN, NOT_A_NUMBER}, &said)) fail_msg("%s", said.s);
        json_t *second = metrics_line(&f, 2), *third = metrics_line(&f, 3);
        assert_int_equal(json_integer_value(json_object_get(second, "skipped")), 1);
        assert_true(isfinite(json_number_value(json_object_get(third, "loss"))));
        size_t n;
        char *one = output(&f, "step_1/model.safetensors", &n), *two = output(&f, "step_2/model.safetensors", &n),
             *last = output(&f, "step_3/model.safetensors", &n);
        assert_memory_equal(one, two, n);
        assert_memory_not_equal(two, last, n);
        free(one);
        free(two);
        free(last);
        json_decref(second);
        json_decref(third);
        str_free(&said);
        fixture_remove(&f);
    }
}

int main(void) {
    clear_launchers();
    setenv("OMP_NUM_THREADS", "1", 1);
    struck = mmap(NULL, sizeof *struck, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_two_and_four_ranks_agree),
        cmocka_unit_test(runs_repeat_to_the_byte),
        cmocka_unit_test(rounding_does_not_know_ranks),
        cmocka_unit_test(a_checkpoint_goes_on_with_any_number_of_ranks),
        cmocka_unit_test(a_signal_to_one_rank_stops_all),
        cmocka_unit_test(a_killed_rank_ends_all),
        cmocka_unit_test(a_stopped_rank_times_out),
        cmocka_unit_test(a_skipped_collective_is_an_error),
        cmocka_unit_test(the_failure_of_one_rank_is_that_of_all),
        cmocka_unit_test(a_bad_number_on_one_rank_is_skipped_by_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
