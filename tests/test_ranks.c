// Several ranks on the CPU: the same numbers as one rank, resuming, stopping, and every way in which a rank can fail.
#include "train_fixture.h"
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/mman.h>
#include <dirent.h>
#include <sys/wait.h>
#include <time.h>

static const char *program(void) { return getenv("GRPO") ? getenv("GRPO") : "build/grpo"; }

static double since(double start) { return wall_seconds() - start; }

// ---- ranks inside the test: a child forks them, so that a rank can be given a fault -----------------------------------

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
    *struck = wall_seconds();
    kill(getpid(), fault.fault); // rewards run on threads of their own
}
static void sample(Device *d, Tensor token, Tensor logp, Tensor x, Tensor w, Tensor key, Tensor pos, Tensor seen,
                   Tensor seen_len, SampleParams p) {
    strike(ROLLOUT);
    real_device.sample(d, token, logp, x, w, key, pos, seen, seen_len, p);
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
static bool share(Comm *c, const char *name, void *data, const uint64_t *end, Error *e) {
    if (!strcmp(name, "checkpoint")) strike(SAVE);
    return real_comm.share(c, name, data, end, e);
}
static bool all_gather(Comm *c, const char *name, Tensor x, Error *e) {
    if (armed && fault.where == GATHER && fault.fault == SKIP_ONE) return *struck = wall_seconds(), armed = false, true;
    strike(GATHER);
    return real_comm.all_gather(c, name, x, e);
}

static void arm(Trainer *t) {
    if (armed || comm_rank(t->run.comm) != fault.victim) return;
    armed = true;
    Device *d = t->run.device;
    real_device = *d;
    d->sample = sample;
    d->logprob = logprob;
    d->grpo_loss = grpo_loss;
    d->adamw = adamw;
    d->matmul_bwd = matmul_bwd;
    counted = *t->rewards.reward[0].info;
    real_reward = counted.fn;
    counted.fn = reward;
    t->rewards.reward[0].info = &counted;
    real_comm = *t->run.comm;
    t->run.comm->share = share;
    t->run.comm->all_gather = all_gather;
}

// What command_train does, with a fault in step 2.
static ExitCode be_rank(Fixture *f, Error *e) {
    Trainer *t = &f->t;
    if (!trainer_open(t, &f->cfg, e) || !trainer_resume(t, e)) return e->code;
    while (t->at.step < t->total_steps) {
        if (t->at.step == 1 && fault.where != NOWHERE) arm(t);
        StepResult s = grpo_step(t, e);
        if (s == STEP_FAILED) return e->code;
        if (s == STEP_STOPPED) {
            error_set(e, EXIT_STOPPED, "stopped after step %lld", (long long)t->at.step);
            return trainer_save(t, e) ? EXIT_STOPPED : e->code;
        }
        if (!train_log(t, s, e)) return e->code;
        if (armed && fault.fault == DISK_IS_FULL) {
            *struck = wall_seconds();
            error_set(e, EXIT_DISK, "the disk is full");
            return EXIT_DISK;
        }
        EvalResult r;
        bool striking = armed && fault.where == EVAL;
        if (striking) fault.where = ROLLOUT;
        if (striking || fault.where == EVAL) {
            ranks_phase("eval", t->at.step);
            if (!eval_run(&t->run, &t->prompter, t->data, &t->rewards, 4, 1, &r, e)) {
                if (e->code != EXIT_STOPPED) return e->code;
                return trainer_save(t, e) ? EXIT_STOPPED : e->code;
            }
        }
        if (!trainer_save(t, e)) return e->code;
    }
    return EXIT_OK;
}

// Runs the fixture's training on as many ranks as `options` say; the exit code, and what was said on stderr.
static int train(Fixture *f, const char *options, Fault what, Str *said) {
    char *log = xasprintf("%s/stderr", f->dir);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        dup2(fd, STDERR_FILENO);
        Error e = {0};
        fault = what;
        armed = false;
        fixture_config(f, options);
        signals_install(true);
        ExitCode code;
        if (ranks_start(&f->cfg, &code, &e)) {
            code = be_rank(f, &e);
            fixture_close(f);
        }
        if (*e.text && ranks_speak(code, &e)) fprintf(stderr, "grpo: error: %s\n", e.text);
        fflush(NULL);
        _exit(code);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    size_t n;
    Error e = {0};
    char *text = file_read(log, 1 << 20, &n, &e);
    if (said) {
        str_clear(said);
        str_add(said, text, n);
    }
    if (WEXITSTATUS(status) && !said) fail_msg("%s: exit %d: %s", options, WEXITSTATUS(status), text);
    free(text);
    free(log);
    return WEXITSTATUS(status);
}

// A file of the fixture's output, whole. Heap.
static char *output(const Fixture *f, const char *name, size_t *n) {
    Error e = {0};
    char *path = xasprintf("%s/out/%s", f->dir, name), *text = file_read(path, (size_t)1 << 28, n, &e);
    if (!text) fail_msg("%s", e.text);
    free(path);
    return text;
}

static void assert_same_output(const Fixture *a, const Fixture *b, const char *name) {
    size_t n, m;
    char *x = output(a, name, &n), *y = output(b, name, &m);
    if (n != m || memcmp(x, y, n)) fail_msg("%s differs", name);
    free(x);
    free(y);
}

// ||a - b|| / ||b|| of two files of f32.
static double distance(const Fixture *a, const Fixture *b, const char *name) {
    size_t n, m;
    char *x = output(a, name, &n), *y = output(b, name, &m);
    double diff = 0, norm = 0;
    assert_int_equal(n, m);
    for (size_t i = 0; i + 4 <= n; i += 4) {
        float p, q;
        memcpy(&p, x + i, 4);
        memcpy(&q, y + i, 4);
        diff += ((double)p - q) * ((double)p - q);
        norm += (double)q * q;
    }
    free(x);
    free(y);
    return sqrt(diff / norm);
}

// The named numbers of a line of metrics.jsonl.
static json_t *metrics_line(const Fixture *f, int line) {
    size_t n;
    char *text = output(f, "metrics.jsonl", &n), *at = text;
    for (; line > 1; line--) at = strchr(at, '\n') + 1;
    *strchr(at, '\n') = 0;
    json_t *j = json_loads(at, 0, NULL);
    free(text);
    assert_non_null(j);
    return j;
}

static void assert_close(const char *name, const char *variant, double a, double b) {
    if (!(fabs(a - b) <= 1e-6 * fabs(b) + 1e-8)) fail_msg("%s: %s is %.9g and %.9g", variant, name, a, b);
}

// ---- the same numbers ---------------------------------------------------------------------------------------------------

#define TINY "threads=1 save_steps=0 comm_timeout=20 "

static void one_two_and_four_ranks_agree(void **state) {
    // Two groups of four: of four ranks two have nothing to answer.
    static const char *const variants[] = {
        "",
        "loss_type=dapo top_entropy_quantile=0.5 entropy_coef=0.01 scale_rewards=batch",
        "loss_type=bnpo dynamic_sampling=2 rewards=correctness,completion_length",
        "steps_per_generation=%d num_iterations=2 sync_ref_model=true ref_model_sync_steps=1",
        "multi_objective_aggregation=normalize_then_sum shuffle_rewards=true beta=0",
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
                                                "completions/mean_length",
                                                "clip_ratio/region_mean"};
            for (int step = 1; step <= 2; step++) {
                json_t *a = metrics_line(&f[k], step), *b = metrics_line(&f[0], step);
                for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                    assert_close(names[i], options, json_number_value(json_object_get(a, names[i])),
                                 json_number_value(json_object_get(b, names[i])));
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

static const char *const files[] = {"model.safetensors", "state/moment1.bin", "state/moment2.bin"};

static void assert_same_checkpoint(const Fixture *a, const Fixture *b, int step, bool master) {
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "step_%d/%s", step, files[i]);
        assert_same_output(a, b, name);
    }
    char name[64];
    snprintf(name, sizeof name, "step_%d/state/master.bin", step);
    if (master) assert_same_output(a, b, name);
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

// ---- stopping and failing ------------------------------------------------------------------------------------------------

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
        fails(w, SIGKILL, EXIT_COMM, 5, "", (const char *const[4]){rank, phase, NULL});
    }
}

static void a_stopped_rank_times_out(void **state) {
    for (Where w = ROLLOUT; w <= GATHER; w += 4) {
        char rank[16], phase[40];
        snprintf(rank, sizeof rank, "rank %d ", (int)w % 3);
        snprintf(phase, sizeof phase, "phase `%s", phase_of[w]);
        fails(w, SIGSTOP, EXIT_COMM, 1 + 5, "comm_timeout=1",
              (const char *const[4]){rank, phase, "has not been heard of for 1 s", "in the collective"});
    }
}

static void a_skipped_collective_is_an_error(void **state) {
    fails(GATHER, SKIP_ONE, EXIT_COMM, 5, "", (const char *const[4]){"`parameters`", "while rank", NULL});
}

static void the_failure_of_one_rank_is_that_of_all(void **state) {
    fails(SAVE, DISK_IS_FULL, EXIT_DISK, 5, "", (const char *const[4]){"grpo: error: the disk is full", NULL});
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

// ---- launchers -----------------------------------------------------------------------------------------------------------

static const char *const launcher_names[] = {"RANK",
                                             "WORLD_SIZE",
                                             "LOCAL_RANK",
                                             "LOCAL_WORLD_SIZE",
                                             "MASTER_ADDR",
                                             "MASTER_PORT",
                                             "SLURM_PROCID",
                                             "SLURM_NTASKS",
                                             "SLURM_LOCALID",
                                             "SLURM_JOB_ID",
                                             "SLURM_STEP_ID",
                                             "SLURM_STEP_NODELIST",
                                             "SLURM_NODELIST",
                                             "SLURM_STEP_NUM_NODES",
                                             "OMPI_COMM_WORLD_RANK",
                                             "OMPI_COMM_WORLD_SIZE",
                                             "OMPI_COMM_WORLD_LOCAL_RANK",
                                             "OMPI_COMM_WORLD_LOCAL_SIZE",
                                             "TORCHELASTIC_USE_AGENT_STORE",
                                             "TORCHELASTIC_RUN_ID"};

static void clear_launchers(void) {
    for (size_t i = 0; i < sizeof launcher_names / sizeof *launcher_names; i++) unsetenv(launcher_names[i]);
}
static void set_all(const char *assignments) { // "A=1 B=2"
    char *all = xstrdup(assignments);
    for (char *word = strtok(all, " "); word; word = strtok(NULL, " ")) {
        *strchr(word, '=') = 0;
        setenv(word, word + strlen(word) + 1, 1);
    }
    free(all);
}

static void environments(void **state) {
    static const struct {
        const char *set, *by;
        int rank, world, local;
        const char *master;
    } good[] = {
        {"", NULL, 0, 1, 0, ""},
        {"MASTER_ADDR=somewhere MASTER_PORT=1", NULL, 0, 1, 0, ""},
        {"RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 MASTER_ADDR=node7 MASTER_PORT=29500", "torchrun", 3, 8, 1, "node7"},
        {"RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_ADDR=x MASTER_PORT=2", "torchrun", 0, 1, 0, ""},
        {"SLURM_PROCID=2 SLURM_NTASKS=4 SLURM_LOCALID=2", "Slurm", 2, 4, 2, "127.0.0.1"},
        {"SLURM_PROCID=5 SLURM_NTASKS=8 SLURM_LOCALID=1 SLURM_JOB_ID=7 SLURM_STEP_ID=0 "
         "SLURM_STEP_NODELIST=gpu[03-04,7],cpu1 SLURM_STEP_NUM_NODES=2",
         "Slurm", 5, 8, 1, "gpu03"},
        {"SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_STEP_NODELIST=alpha,beta", "Slurm", 1, 2, 0, "alpha"},
        {"SLURM_PROCID=0 SLURM_NTASKS=8 SLURM_LOCALID=0 SLURM_JOB_ID=7", NULL, 0, 1, 0, ""}, // the batch script
        {"SLURM_NTASKS=8 SLURM_JOB_ID=7", NULL, 0, 1, 0, ""},                                // salloc's shell
        {"OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1", "Open MPI", 1, 2, 1,
         "127.0.0.1"},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=a MASTER_PORT=9 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0",
         "torchrun", 1, 2, 1, "a"},
    };
    static const struct {
        const char *set, *says[2];
    } bad[] = {
        {"RANK=1", {"RANK is set but WORLD_SIZE is not", "torchrun"}},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1", {"MASTER_ADDR is not"}},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=a", {"MASTER_PORT is not"}},
        {"WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=9", {"WORLD_SIZE is set but RANK is not"}},
        {"RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=9", {"LOCAL_RANK is not"}},
        {"RANK=2 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=9", {"RANK is 2", "WORLD_SIZE is 2"}},
        {"RANK=1 WORLD_SIZE=4 LOCAL_RANK=2 MASTER_ADDR=a MASTER_PORT=9", {"LOCAL_RANK is 2", "RANK is 1"}},
        {"RANK=one WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=9", {"RANK is `one`"}},
        {"RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=99999", {"MASTER_PORT"}},
        {"OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2", {"OMPI_COMM_WORLD_LOCAL_RANK is not", "Open MPI"}},
        {"OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2",
         {"MASTER_ADDR", "-x"}},
        {"SLURM_PROCID=0 SLURM_LOCALID=0", {"SLURM_NTASKS is not"}},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        Launch l;
        Error e = {0};
        clear_launchers();
        set_all(good[i].set);
        if (!launch_read(&l, &e)) fail_msg("%s: %s", good[i].set, e.text);
        if (l.rank != good[i].rank || l.world != good[i].world || l.local != good[i].local ||
            strcmp(l.master, good[i].master) || strcmp(l.by ? l.by : "", good[i].by ? good[i].by : ""))
            fail_msg("%s: rank %d of %d, %d on its host, by %s at %s", good[i].set, l.rank, l.world, l.local, l.by,
                     l.master);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Launch l;
        Error e = {0};
        clear_launchers();
        set_all(bad[i].set);
        if (launch_read(&l, &e)) fail_msg("%s: taken", bad[i].set);
        assert_int_equal(e.code, EXIT_CONFIG);
        for (int k = 0; k < 2 && bad[i].says[k]; k++)
            if (!strstr(e.text, bad[i].says[k])) fail_msg("%s: %s", bad[i].set, e.text);
    }
    clear_launchers();
}

static const char options_of_all[] =
    "model=models/tiny init=random dtype=f32 chat_template=r1-zero max_prompt_length=96 max_completion_length=12 "
    "num_generations=4 per_device_train_batch_size=4 gradient_accumulation_steps=1 learning_rate=1e-3 beta=0.04 "
    "temperature=1 max_steps=2 save_steps=0 progress=off seed=7 rewards=completion_length,xmlcount threads=1";

// Starts `grpo train` as a launcher would; its output goes to DIR/rank_R.
static pid_t launch(const Fixture *f, const char *environment, int rank, const char *more) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid) return pid;
    clear_launchers();
    set_all(environment);
    char *log = xasprintf("%s/rank_%d", f->dir, rank);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    char *command = xasprintf("exec %s train %s train_file=%s/train.jsonl output_dir=%s/out %s", program(),
                              options_of_all, f->dir, f->dir, more);
    execl("/bin/sh", "sh", "-c", command, NULL);
    _exit(127);
}

static int end_of(pid_t pid) {
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static char *said_by(const Fixture *f, int rank) {
    char *log = xasprintf("%s/rank_%d", f->dir, rank);
    size_t n;
    Error e = {0};
    char *text = file_read(log, 1 << 20, &n, &e);
    assert_non_null(text);
    free(log);
    return text;
}

// A port that is free now, and the next ones likely too.
static int some_port(void) {
    static int next;
    return 21000 + (getpid() * 37 + next++ * 16) % 8000;
}

static void torchrun_variables(char *out, size_t n, int rank, int world, int port) {
    snprintf(out, n, "RANK=%d WORLD_SIZE=%d LOCAL_RANK=%d MASTER_ADDR=127.0.0.1 MASTER_PORT=%d", rank, world, rank,
             port);
}

static void launched_ranks_are_forked_ranks(void **state) {
    Fixture forked, f;
    fixture_dir(&forked);
    assert_int_equal(end_of(launch(&forked, "X=1", 0, "gpus=2")), 0);
    static const char *const by[] = {
        "RANK=%d WORLD_SIZE=2 LOCAL_RANK=%d MASTER_ADDR=localhost MASTER_PORT=%d TORCHELASTIC_USE_AGENT_STORE=True",
        "SLURM_PROCID=%d SLURM_NTASKS=2 SLURM_LOCALID=%d SLURM_STEP_ID=0 SLURM_JOB_ID=%d",
        "OMPI_COMM_WORLD_RANK=%d OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=%d MASTER_PORT=%d"};
    for (int k = 0; k < 3; k++) {
        fixture_dir(&f);
        int port = some_port();
        pid_t pid[2];
        for (int r = 1; r >= 0; r--) { // rank 1 comes first, and waits
            char environment[200];
            snprintf(environment, sizeof environment, by[k], r, r, port);
            pid[r] = launch(&f, environment, r, r ? "" : "gpus=2");
        }
        for (int r = 0; r < 2; r++)
            if (end_of(pid[r])) fail_msg("%s: rank %d: %s", by[k], r, said_by(&f, r));
        char *quiet = said_by(&f, 1);
        assert_string_equal(quiet, ""); // rank 0 alone speaks
        free(quiet);
        assert_same_checkpoint(&f, &forked, 2, false);
        assert_same_output(&f, &forked, "completions.jsonl");
        fixture_remove(&f);
    }
    fixture_remove(&forked);
}

static void run_pair(const char *more0, const char *more1, int world, int code[2], char *said[2]) {
    Fixture f;
    fixture_dir(&f);
    int port = some_port();
    pid_t pid[2];
    for (int r = 0; r < 2; r++) {
        char environment[200];
        torchrun_variables(environment, sizeof environment, r, world, port);
        pid[r] = launch(&f, environment, r, r ? more1 : more0);
    }
    for (int r = 0; r < 2; r++) {
        code[r] = end_of(pid[r]);
        said[r] = said_by(&f, r);
    }
    fixture_remove(&f);
}

static void ranks_must_be_given_the_same(void **state) {
    int code[2];
    char *said[2];
    run_pair("", "learning_rate=2e-3", 2, code, said);
    assert_int_equal(code[0], EXIT_CONFIG);
    assert_int_equal(code[1], EXIT_CONFIG);
    char *line = strstr(said[0], "on rank 1 learning_rate is 0.002, on rank 0 it is 0.001") ? said[0] : said[1];
    if (!strstr(line, "on rank 1 learning_rate is 0.002, on rank 0 it is 0.001") || (*said[0] && *said[1]))
        fail_msg("%s\n%s", said[0], said[1]);
    for (int r = 0; r < 2; r++) free(said[r]);
    run_pair("threads=1", "threads=2", 2, code, said); // may differ
    assert_int_equal(code[0] + code[1], 0);
    for (int r = 0; r < 2; r++) free(said[r]);
    run_pair("gpus=3", "comm_timeout=1", 2, code, said); // rank 0 gives up before they meet
    assert_int_equal(code[0], EXIT_CONFIG);
    assert_non_null(strstr(said[0], "gpus is 3, but torchrun started 2 ranks"));
    for (int r = 0; r < 2; r++) free(said[r]);
}

static void a_rank_that_does_not_come_is_named(void **state) {
    Fixture f;
    fixture_dir(&f);
    for (int r = 0; r < 2; r++) {
        char environment[200];
        torchrun_variables(environment, sizeof environment, r, 2, some_port());
        double start = wall_seconds();
        assert_int_equal(end_of(launch(&f, environment, r, "comm_timeout=1")), EXIT_COMM);
        assert_true(since(start) < 6);
        char *text = said_by(&f, r);
        if (!strstr(text, r ? "for rank 0 at 127.0.0.1" : "rank 1 did not come")) fail_msg("%s", text);
        free(text);
    }
    fixture_remove(&f);
}

static void nap(double seconds) {
    nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
}

// Waits until the log of metrics has a line: training is under way.
static void wait_for_steps(const Fixture *f) {
    char *path = xasprintf("%s/out/metrics.jsonl", f->dir);
    struct stat st;
    for (int i = 0; i < 1000 && (stat(path, &st) || !st.st_size); i++) nap(0.02);
    free(path);
}

static void launched_ranks_notice_a_death(void **state) {
    Fixture f;
    fixture_dir(&f);
    int port = some_port();
    pid_t pid[2];
    for (int r = 0; r < 2; r++) {
        char environment[200];
        torchrun_variables(environment, sizeof environment, r, 2, port);
        pid[r] = launch(&f, environment, r, "max_steps=100000");
    }
    wait_for_steps(&f);
    double start = wall_seconds();
    kill(pid[1], SIGKILL); // nobody reaps it yet: a zombie is dead all the same
    assert_int_equal(end_of(pid[0]), EXIT_COMM);
    assert_true(since(start) < 5);
    char *text = said_by(&f, 0);
    if (!strstr(text, "rank 1 (process ") || !strstr(text, "has ended in phase")) fail_msg("%s", text);
    free(text);
    end_of(pid[1]);
    fixture_remove(&f);
}

// A signal to the process that forked; a second one ends it and with it all ranks.
// How many processes have `argument` among theirs; ended ones that nobody waited for have none.
static int processes_with(const char *argument) {
    DIR *all = opendir("/proc");
    assert_non_null(all);
    int n = 0;
    for (struct dirent *one; (one = readdir(all));) {
        char *path = xasprintf("/proc/%s/cmdline", one->d_name), text[8192];
        FILE *file = fopen(path, "r");
        free(path);
        if (!file) continue;
        size_t length = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        text[length] = 0;
        for (size_t at = 0; at < length; at += strlen(text + at) + 1)
            if (!strcmp(text + at, argument)) {
                n++;
                break;
            }
    }
    closedir(all);
    return n;
}

static void the_forking_process_stops_its_ranks(void **state) {
    Fixture f;
    fixture_dir(&f);
    pid_t pid = launch(&f, "X=1", 0, "gpus=2 max_steps=100000");
    wait_for_steps(&f);
    kill(pid, SIGTERM);
    assert_int_equal(end_of(pid), EXIT_STOPPED);
    char *text = said_by(&f, 0);
    assert_non_null(strstr(text, "saved in"));
    free(text);
    pid = launch(&f, "X=1", 0, "gpus=2 max_steps=100000");
    nap(0.5);
    char *argument = xasprintf("output_dir=%s/out", f.dir);
    assert_true(processes_with(argument) >= 2);
    free(argument);
    kill(pid, SIGKILL);
    assert_int_equal(end_of(pid), -SIGKILL);
    nap(0.3);
    char *name = xasprintf("output_dir=%s/out", f.dir);
    assert_int_equal(processes_with(name), 0);
    free(name);
    fixture_remove(&f);
}

// ---- the other commands ---------------------------------------------------------------------------------------------------

static char *run(const Fixture *f, const char *fmt, const char *more) {
    char *args = xasprintf(fmt, f->dir, f->dir);
    char *command = xasprintf("%s %s %s 2>&1", program(), args, more);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    Str out = {0};
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, p)) > 0;) str_add(&out, block, n);
    int status = pclose(p);
    if (status) fail_msg("%s: %s", command, out.s);
    free(command);
    free(args);
    return out.s;
}

static void sft_eval_and_plan(void **state) {
    Fixture f[3];
    for (int k = 0; k < 3; k++) {
        fixture_dir(&f[k]);
        char more[200];
        snprintf(more, sizeof more, "gpus=%d gradient_accumulation_steps=%d", 1 << k, 4 >> k);
        free(run(&f[k],
                 "sft model=models/tiny init=random dtype=f32 chat_template=r1-zero train_file=%s/train.jsonl "
                 "prompt_field=question completion_field=answer output_dir=%s/out max_length=128 max_steps=2 "
                 "learning_rate=1e-3 per_device_train_batch_size=2 threads=1 progress=off max_grad_norm=0 save_steps=1",
                 more));
        if (k == 0) continue;
        json_t *a = metrics_line(&f[k], 1), *b = metrics_line(&f[0], 1);
        static const char *const names[] = {"loss", "grad_norm", "entropy", "num_tokens"};
        for (int i = 0; i < 4; i++)
            assert_close(names[i], "sft", json_number_value(json_object_get(a, names[i])),
                         json_number_value(json_object_get(b, names[i])));
        json_decref(a);
        json_decref(b);
        assert_true(distance(&f[k], &f[0], "step_1/state/moment1.bin") < 1e-6);
    }
    char *one = NULL;
    for (int k = 0; k < 3; k++) {
        char more[40];
        snprintf(more, sizeof more, "gpus=%d", k + 1);
        char *result =
            run(&f[0],
                "eval model=models/tiny init=random dtype=f32 chat_template=r1-zero eval_file=%s/train.jsonl "
                "rewards=completion_length,xmlcount eval_output= max_prompt_length=96 "
                "max_completion_length=12 eval_samples=2 temperature=1 eval_limit=7 threads=1 tokenizer=%.0s",
                more);
        if (!one) one = xstrdup(result);
        assert_string_equal(result, one);
        free(result);
    }
    free(one);
    char *plan1 = run(&f[0], "plan model=models/tiny %.0s%.0s", ""),
         *plan4 = run(&f[0], "plan model=models/tiny %.0s%.0s", "gpus=4");
    assert_non_null(strstr(plan4, "optimizer state (this rank's slice)"));
    assert_null(strstr(plan1, "slice"));
    free(plan1);
    free(plan4);
    for (int k = 0; k < 3; k++) fixture_remove(&f[k]);
}

int main(void) {
    clear_launchers();
    setenv("OMP_NUM_THREADS", "1", 1);
    struck = mmap(NULL, sizeof *struck, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(environments),
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
        cmocka_unit_test(launched_ranks_are_forked_ranks),
        cmocka_unit_test(ranks_must_be_given_the_same),
        cmocka_unit_test(a_rank_that_does_not_come_is_named),
        cmocka_unit_test(launched_ranks_notice_a_death),
        cmocka_unit_test(the_forking_process_stops_its_ranks),
        cmocka_unit_test(sft_eval_and_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
