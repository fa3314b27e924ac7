// The engine on the CUDA device, beside the CPU device; and what a user sees where the GPU fails him. Under emulation
// (MODE=emu) faults can be asked for, launches are counted, and device memory is out of the host's reach.
#include "file.h"
#include "on_device.h"
#include "train_fixture.h"
#include <math.h>
#include <sys/wait.h>

// The emulator's, where there is one (tests/emu/emu.h).
int64_t emu_launches_total(void) __attribute__((weak));
int64_t emu_launches_replayed(void) __attribute__((weak));

static char *self; // this program

static bool gpu_answers(void) {
    Error e;
    Device *d = device_open(DEVICE_CUDA, 0, 0, CPU_ISA_AUTO, &e);
    device_close(d);
    return d != NULL;
}
#define NEEDS_GPU()                                                                                                    \
    do {                                                                                                               \
        if (!gpu_answers()) {                                                                                          \
            printf("SKIP %s: no GPU, and no emulation of one (MODE=emu)\n", __func__);                                 \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)
#define NEEDS_EMULATION()                                                                                              \
    do {                                                                                                               \
        if (!emu_launches_total) {                                                                                     \
            printf("SKIP %s: faults on purpose need the emulation of a GPU (MODE=emu)\n", __func__);                   \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)

#define SMALL                                                                                                          \
    "per_device_train_batch_size=4 gradient_accumulation_steps=1 max_completion_length=8 max_prompt_length=80 "

// ||a - b|| / ||b||
static double distance(const float *a, const float *b, int n) {
    double diff = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        diff += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(norm > 0 ? diff / norm : diff);
}

// Five steps of GRPO on either device: the same tokens, a first ratio of exactly 1 also where training computes the
// log-probs itself (what was sampled is what is trained on, to the bit), and every sequence's loss within 1e-4.
static void five_steps_follow_the_cpu(void **state) {
    NEEDS_GPU();
    Fixture gpu, cpu;
    fixture_dir(&gpu);
    fixture_dir(&cpu);
    fixture_open(&gpu, SMALL "device=cuda");
    fixture_open(&cpu, SMALL "device=cpu");
    const Batch *a = &gpu.t.generation.batch, *b = &cpu.t.generation.batch;
    for (int s = 0; s < 5; s++) {
        gpu.t.generation.exact = s % 2;
        assert_int_equal(fixture_step(&gpu), STEP_DONE);
        assert_int_equal(fixture_step(&cpu), STEP_DONE);
        for (int i = 0; i < a->n; i++) {
            assert_true(gpu.t.generation.metric[i][GM_RATIO_MIN] == 1 && gpu.t.generation.metric[i][GM_RATIO_MAX] == 1);
            assert_int_equal(a->len[i], b->len[i]);
            assert_memory_equal(a->ids + i * a->max_completion, b->ids + i * b->max_completion, (size_t)a->len[i] * 4);
        }
        double off = distance(a->loss, b->loss, a->n);
        if (!(off < 1e-4)) fail_msg("step %d: losses differ by %g", s + 1, off);
        off = fabs(gpu.t.stats.grad_norm / cpu.t.stats.grad_norm - 1);
        if (!(off < 1e-4)) fail_msg("step %d: gradients' norms differ by %g", s + 1, off);
    }
    fixture_close(&gpu);
    fixture_close(&cpu);
    fixture_remove(&gpu);
    fixture_remove(&cpu);
}

// What the sampler kept trains as what is computed again: two steps, the second of them with half of a used generation.
static void kept_numbers_train_a_gpu_the_same(void **state) {
    NEEDS_GPU();
    Fixture f[2];
    for (int exact = 0; exact < 2; exact++) {
        fixture_dir(&f[exact]);
        fixture_open(&f[exact],
                     SMALL "device=cuda dtype=bf16 beta=0 top_entropy_quantile=0.5 entropy_coef=0.1 top_k=40 "
                           "steps_per_generation=2");
        assert_true(f[exact].t.generation.exact);
        f[exact].t.generation.exact = exact;
        for (int s = 0; s < 2; s++) assert_int_equal(fixture_step(&f[exact]), STEP_DONE);
    }
    const Learner *a = &f[0].t.learner, *b = &f[1].t.learner;
    const Tensor mine[] = {a->engine.policy.slab, a->grad.slab, a->moment1},
                 its[] = {b->engine.policy.slab, b->grad.slab, b->moment1};
    for (int i = 0; i < 3; i++) {
        void *bytes = bytes_of(a->engine.device, mine[i]);
        assert_bytes(b->engine.device, its[i], bytes);
        free(bytes);
    }
    size_t sums = (size_t)f[0].t.generation.batch.n * sizeof *f[0].t.generation.metric;
    assert_memory_equal(f[0].t.generation.metric, f[1].t.generation.metric, sums);
    for (int k = 0; k < 2; k++) {
        fixture_close(&f[k]);
        fixture_remove(&f[k]);
    }
}

// A run that stops after its first step and goes on from the checkpoint ends in the bytes of one that never stopped.
#define RESUMED SMALL "device=cuda dtype=bf16 max_steps=2"
static void check_resumed(const char *config, Products products) {
    void *weights[2], *moments[2];
    size_t bytes = 0;
    for (int k = 0; k < 2; k++) {
        Fixture f;
        Error e = {0};
        fixture_dir(&f);
        for (int part = 1 - k; part < 2; part++) { // k = 0: straight through
            fixture_open(&f, config);
            f.t.learner.engine.device->products = products;
            if (!trainer_resume(&f.t, &e)) fail_msg("%s", e.text);
            assert_int_equal(f.t.state.step, k && part ? 1 : 0);
            while (f.t.state.step < (k && !part ? 1 : 2)) {
                assert_int_equal(fixture_step(&f), STEP_DONE);
                for (int i = 0; i < f.t.generation.batch.n; i++)
                    assert_true(f.t.generation.metric[i][GM_RATIO_MIN] == 1 &&
                                f.t.generation.metric[i][GM_RATIO_MAX] == 1);
            }
            if (k && !part) {
                if (!trainer_save(&f.t, &e)) fail_msg("%s", e.text);
                fixture_close(&f);
            }
        }
        const Learner *l = &f.t.learner;
        weights[k] = bytes_of(l->engine.device, l->engine.policy.slab);
        moments[k] = bytes_of(l->engine.device, l->moment1);
        if (k) {
            bytes = tensor_bytes(l->engine.policy.slab);
            assert_memory_equal(moments[0], moments[1], tensor_bytes(l->moment1));
        }
        fixture_close(&f);
        fixture_remove(&f);
    }
    assert_memory_equal(weights[0], weights[1], bytes);
    for (int k = 0; k < 2; k++) free(weights[k]), free(moments[k]);
}
static void a_resumed_run_is_the_same_run(void **state) {
    NEEDS_GPU();
    check_resumed(RESUMED, PRODUCTS_CHOSEN);
}

// The same on an emulated Hopper card, with each of the kernels for it: those that serve many tokens serve these, and
// gradients' products always go by theirs.
static void so_it_is_on_hopper(void **state) {
    NEEDS_EMULATION();
    static const char *const kernel[] = {"matmul_hopper_kernel", "product_hopper_kernel", "head_hopper_kernel",
                                         "attention_hopper_kernel", "attention_bwd_hopper_kernel"};
    enum { KERNELS = sizeof kernel / sizeof *kernel };
    int64_t before[KERNELS], opened[KERNELS];
    setenv("EMU_ARCH", "90", 1);
    for (int i = 0; i < KERNELS; i++) before[i] = emu_launches(kernel[i]);
    assert_true(gpu_answers());
    for (int i = 0; i < KERNELS; i++) opened[i] = emu_launches(kernel[i]) - before[i]; // to check it
    // More tokens than the head's kernel asks for.
    check_resumed(RESUMED " share_prompts=false max_completion_length=20", PRODUCTS_OWN);
    for (int i = 0; i < KERNELS; i++) {
        int64_t ran = emu_launches(kernel[i]) - before[i] - 4 * opened[i]; // and three fixtures
        if (opened[i] <= 0 || ran <= 0)
            fail_msg("%s: %lld launches when opened, %lld in the runs", kernel[i], (long long)opened[i],
                     (long long)ran);
    }
}
static int back_to_the_usual_card(void **state) { return unsetenv("EMU_ARCH"); }

// Launches of one rollout with completions of n tokens: asked for one by one, and by graphs.
static void rollout_launches(const char *options, int n, int64_t *single, int64_t *replayed, int *tokens) {
    Fixture f;
    Error e = {0};
    char more[256];
    snprintf(more, sizeof more, "device=cuda beta=0 max_completion_length=%d gradient_accumulation_steps=1 %s", n,
             options);
    fixture_dir(&f);
    fixture_open(&f, more);
    Trainer *t = &f.t;
    for (int p = 0; p < t->generation.batch.prompts; p++)
        assert_true(prompter_next(&t->questions.prompter, t->questions.data, &t->generation.batch, p, &e));
    for (int i = 0; i < t->generation.batch.n; i++) t->generation.batch.key[i] = i;
    t->learner.engine.device->sync(t->learner.engine.device);
    int64_t all = emu_launches_total(), by_graph = emu_launches_replayed();
    StopRule never = {0};
    if (!rollout_run(&t->learner.engine.rollout, t->learner.engine.device, &t->learner.engine.policy,
                     t->learner.engine.tokenizer, never, sample_params(&f.cfg), &t->generation.batch, (RolloutWatch){0},
                     &e))
        fail_msg("%s", e.text);
    *replayed = emu_launches_replayed() - by_graph;
    *single = emu_launches_total() - all - *replayed;
    *tokens = 0;
    for (int i = 0; i < t->generation.batch.n; i++) *tokens += t->generation.batch.len[i];
    assert_int_equal(*tokens, n * t->generation.batch.n);
    fixture_close(&f);
    fixture_remove(&f);
}

// A token costs no launch of its own: every step after the first is a graph's.
static void tokens_come_from_graphs(void **state) {
    NEEDS_EMULATION();
    int64_t single[2], replayed[2];
    int tokens[2];
    rollout_launches("dtype=f32", 6, &single[0], &replayed[0], &tokens[0]);
    rollout_launches("dtype=f32", 15, &single[1], &replayed[1], &tokens[1]); // two bursts
    assert_int_equal(single[0], single[1]);
    int64_t a_step = replayed[0] / 4; // 6 tokens: the first from the prompt, one by plain calls, 4 replayed
    assert_true(a_step > 10);
    assert_int_equal(replayed[0], 4 * a_step);
    assert_int_equal(replayed[1], 13 * a_step);
    // In bf16 a layer is five kernels, as its norms and swiglu are in those of its products; and embedding, the last
    // norm, the head, the draw and what follows it are one each.
    rollout_launches("dtype=bf16", 6, &single[0], &replayed[0], &tokens[0]);
    assert_int_equal(replayed[0], 4 * (5 * 2 + 5));
    // Six for more sequences, where the card has no room for all tiles of gate and up at once: those keep their norm.
    rollout_launches("dtype=bf16 num_generations=40 per_device_train_batch_size=40", 4, &single[0], &replayed[0],
                     &tokens[0]);
    assert_int_equal(replayed[0], 2 * (6 * 2 + 5));
}

// ---- the program --------------------------------------------------------------------------------------------------

// Runs a command through the shell; its exit code, both outputs in *out.
static int shell(const char *command, Str *out) {
    str_clear(out);
    str_puts(out, "");
    FILE *p = popen(command, "r");
    assert_non_null(p);
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, p)) > 0;) str_add(out, block, n);
    int status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int grpo(const char *environment, const char *args, Str *out) {
    char *command =
        xasprintf("%s %s %s 2>&1 </dev/null", environment, getenv("GRPO") ? getenv("GRPO") : "build/grpo", args);
    int code = shell(command, out);
    free(command);
    return code;
}

#define SAMPLE "sample model=models/tiny init=random max_prompt_length=80 max_completion_length=3 prompt=Hi "

static void faults_are_one_clear_line(void **state) {
    NEEDS_EMULATION();
    static const struct {
        const char *environment, *args;
        int code;
        const char *says[3];
    } cases[] = {
        {"EMU_DEVICES=0", SAMPLE "device=cuda", EXIT_CONFIG, {"no GPU answers", "device=cpu"}},
        {"EMU_DEVICES=0",
         SAMPLE "device=auto",
         EXIT_OK,
         {"note: device=auto: this runs on the CPU; device=cuda: no GPU answers"}},
        {"EMU_DRIVER=11020", SAMPLE "device=cuda", EXIT_CONFIG, {"CUDA 11.2", "newer NVIDIA driver"}},
        {"EMU_DRIVER=0", SAMPLE "device=auto", EXIT_OK, {"this runs on the CPU"}},
        {"EMU_ARCH=90 GRPO_HOPPER=none",
         SAMPLE "device=auto",
         EXIT_OK,
         {"this runs on the CPU", "GRPO_HOPPER=none in the environment: choose off"}},
        {"EMU_IMAGE=0", SAMPLE "device=cuda", EXIT_CONFIG, {"no code for emulated GPU (sm_80)", "CUDA_ARCH=80"}},
        {"EMU_DRIVER=11020", "doctor", EXIT_OK, {"WARN  GPU ", "CUDA 11.2", "newer NVIDIA driver"}},
        {"EMU_IMAGE=0", "doctor", EXIT_OK, {"WARN  GPU ", "no code for emulated GPU (sm_80)", "CUDA_ARCH=80"}},
        {"EMU_FAIL_LAUNCH=advance_kernel",
         SAMPLE "device=cuda",
         EXIT_COMM,
         {"unspecified launch failure", "report it"}},
        {"EMU_FAIL_LAUNCH=rmsnorm_kernel", SAMPLE "device=cuda", EXIT_COMM, {"or work before it"}},
        {"EMU_FAIL_ALLOC=1", SAMPLE "device=cuda", EXIT_MEMORY, {"kernels' scratch memory", "64 MiB"}},
        {"EMU_FAIL_ALLOC=2", SAMPLE "device=cuda", EXIT_MEMORY, {"out of memory"}},
        {"EMU_MEMORY_MIB=85", "plan model=models/tiny device=cuda", EXIT_OK, {"this GPU has", "short by", "beta=0"}},
        {"EMU_MEMORY_MIB=85", "plan model=models/tiny", EXIT_OK, {"this GPU has", "reference_weights=reload"}},
        {"EMU_DEVICES=0", "plan model=models/tiny", EXIT_OK, {"this machine has", "fits"}},
    };
    Str out = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = grpo(cases[i].environment, cases[i].args, &out);
        if (code != cases[i].code)
            fail_msg("%s %s: exit code %d: %s", cases[i].environment, cases[i].args, code, out.s);
        for (int k = 0; k < 3 && cases[i].says[k]; k++)
            if (!strstr(out.s, cases[i].says[k]))
                fail_msg("%s %s does not say '%s': %s", cases[i].environment, cases[i].args, cases[i].says[k], out.s);
        if (code && (strncmp(out.s, "grpo: error: ", 13) || strchr(out.s, '\n') != out.s + out.n - 1))
            fail_msg("%s %s: not one line: %s", cases[i].environment, cases[i].args, out.s);
    }
    // Too little for the run: the plan, and what would help.
    assert_int_equal(grpo("EMU_MEMORY_MIB=66", SAMPLE "device=cuda", &out), EXIT_MEMORY);
    assert_non_null(strstr(out.s, "not enough memory for this run"));
    assert_non_null(strstr(out.s, "this GPU has"));
    assert_non_null(strstr(out.s, "short by"));
    str_free(&out);
}

// The last number of that name in a run's metrics.
static double last_metric(const char *path, const char *name) {
    Error e = {0};
    size_t n;
    char *text = file_read(path, 1 << 20, &n, &e), *at = NULL, *key = xasprintf("\"%s\": ", name);
    if (!text) fail_msg("%s", e.text);
    for (char *p = text; (p = strstr(p, key)); p++) at = p;
    assert_non_null(at);
    double value = strtod(at + strlen(key), NULL);
    free(text);
    free(key);
    return value;
}

// Cold start, training, evaluation and sampling as a user runs them, with device memory out of the host's reach and
// work that waits until somebody asks: nothing reads or writes a tensor of the device, or reads a copy before it is
// there.
static void commands_leave_device_memory_alone(void **state) {
    NEEDS_EMULATION();
    Fixture f;
    Str out = {0};
    fixture_dir(&f);
    char *command = xasprintf("EMU_GUARD=1 ASAN_OPTIONS=detect_leaks=0 TEST_TOUCH=1 %s 2>&1", self);
    assert_int_not_equal(shell(command, &out), 0); // the guard itself holds
    free(command);
    char *pairs = xasprintf("%s/pairs.jsonl", f.dir);
    FILE *file = fopen(pairs, "w");
    assert_non_null(file);
    for (int i = 0; i < 6; i++) fprintf(file, "{\"prompt\": \"%d and 2?\", \"completion\": \"It is %d\"}\n", i, i + 2);
    fclose(file);
    double loss[2];
    for (int k = 0; k < 2; k++) {
        const char *device = k ? "cuda" : "cpu", *environment = k ? "EMU_GUARD=1 EMU_DEFER=1" : "";
        char *args =
            xasprintf("sft model=models/tiny init=random dtype=f32 chat_template=r1-zero train_file=%s device=%s "
                      "max_length=128 per_device_train_batch_size=2 gradient_accumulation_steps=1 max_steps=3 "
                      "learning_rate=1e-3 progress=off output_dir=%s/sft_%s",
                      pairs, device, f.dir, device);
        if (grpo(environment, args, &out)) fail_msg("%s: %s", args, out.s);
        free(args);
        char *metrics = xasprintf("%s/sft_%s/metrics.jsonl", f.dir, device);
        loss[k] = last_metric(metrics, "loss");
        free(metrics);
    }
    if (!(fabs(loss[1] / loss[0] - 1) < 1e-4)) fail_msg("sft: loss %.9g, on the CPU %.9g", loss[1], loss[0]);
    const char *const rest[] = {
        "train model=%s/sft_cuda/step_3 dtype=f32 chat_template=r1-zero train_file=%s/train.jsonl device=cuda "
        "max_prompt_length=80 max_completion_length=4 num_generations=2 per_device_train_batch_size=2 "
        "gradient_accumulation_steps=1 max_steps=1 progress=off repetition_penalty=1.1 stop=q "
        "reference_weights=reload output_dir=%s/rl",
        "eval model=%s/rl/step_1 dtype=bf16 chat_template=r1-zero eval_file=%s/train.jsonl device=cuda eval_limit=2 "
        "max_prompt_length=80 max_completion_length=4 eval_output=%s/eval.json",
    };
    for (int k = 0; k < 2; k++) {
        char *args = xasprintf(rest[k], f.dir, f.dir, f.dir);
        if (grpo("EMU_GUARD=1 EMU_DEFER=1", args, &out)) fail_msg("%s: %s", args, out.s);
        free(args);
    }
    // The cold start on a Hopper card, whose own kernels serve its many tokens; and the CPU's beside it.
    char *launches = xasprintf("%s/launches", f.dir);
    for (int k = 0; k < 2; k++) {
        const char *device = k ? "cuda" : "cpu";
        char *args = xasprintf("sft model=models/tiny init=random dtype=bf16 chat_template=r1-zero train_file=%s "
                               "device=%s max_length=128 per_device_train_batch_size=6 gradient_accumulation_steps=1 "
                               "max_steps=2 learning_rate=1e-3 progress=off output_dir=%s/half_%s",
                               pairs, device, f.dir, device);
        char *environment = xasprintf("EMU_ARCH=90 GRPO_HOPPER=off:head,product EMU_LAUNCHES=%s", launches);
        if (grpo(environment, args, &out)) fail_msg("%s: %s", args, out.s);
        char *metrics = xasprintf("%s/half_%s/metrics.jsonl", f.dir, device);
        loss[k] = last_metric(metrics, "loss");
        free(metrics), free(environment), free(args);
    }
    if (!(fabs(loss[1] / loss[0] - 1) < 3e-3)) fail_msg("sft: loss %.9g on Hopper, %.9g on the CPU", loss[1], loss[0]);
    Error e = {0};
    size_t bytes = 0;
    char *ran = file_read(launches, 1 << 20, &bytes, &e);
    if (!ran) fail_msg("%s", e.text);
    assert_true(strstr(ran, "matmul_hopper") && strstr(ran, "attention_hopper") && strstr(ran, "attention_bwd_hopper"));
    free(ran), free(launches);
    free(pairs);
    str_free(&out);
    fixture_remove(&f);
}

// What nobody may do: writes to device memory from the host.
static int touch(void) {
    Error e;
    Device *d = device_open(DEVICE_CUDA, 0, 0, CPU_ISA_AUTO, &e);
    volatile float *x = d ? d->alloc(d, 64) : NULL;
    if (x) x[0] = 1;
    return 0;
}

// A step on two GPUs is that of two ranks on the CPU. Where a kernel fails, a collective says so; where something fails
// that one rank alone does, the other does not wait for it, and that is what the run says.
static void two_gpus_do_as_two_ranks(void **state) {
    NEEDS_EMULATION();
    Fixture f;
    Str out = {0};
    double norm[2];
    fixture_dir(&f);
    for (int k = 0; k < 4; k++) {
        char *args = xasprintf("train model=models/tiny init=random dtype=f32 chat_template=r1-zero "
                               "train_file=%s/train.jsonl device=%s gpus=2 max_prompt_length=80 "
                               "max_completion_length=8 num_generations=4 per_device_train_batch_size=4 max_steps=1 "
                               "gradient_accumulation_steps=1 progress=off resume=never "
                               "rewards=regex:pattern=e output_dir=%s/two_%d",
                               f.dir, k ? "cuda" : "cpu", f.dir, k);
        char *directory = xasprintf("%s/two_%d", f.dir, k), *metrics = xasprintf("%s/metrics.jsonl", directory);
        if (k == 3 && (mkdir(directory, 0700) || mkdir(metrics, 0700))) fail_msg("%s", metrics);
        int code = grpo(k == 2 ? "EMU_DEVICES=2 EMU_FAIL_LAUNCH=adamw_kernel" : "EMU_DEVICES=2", args, &out);
        if (k < 2 && code) fail_msg("%s: %s", args, out.s);
        if (k == 2 && (code != EXIT_COMM || !strstr(out.s, "or work before it: unspecified launch failure")))
            fail_msg("%s: %d: %s", args, code, out.s);
        if (k == 3 && (code != EXIT_DISK || !strstr(out.s, "metrics.jsonl: opening failed")))
            fail_msg("%s: %d: %s", args, code, out.s);
        if (k < 2) norm[k] = last_metric(metrics, "grad_norm");
        free(args), free(directory), free(metrics);
    }
    if (!(norm[0] > 0 && fabs(norm[1] / norm[0] - 1) < 1e-4)) fail_msg("norm %.9g, on the CPU %.9g", norm[1], norm[0]);
    str_free(&out);
    fixture_remove(&f);
}

int main(int argc, char **argv) {
    self = argv[0];
    if (getenv("TEST_TOUCH")) return touch();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_steps_follow_the_cpu),
        cmocka_unit_test(kept_numbers_train_a_gpu_the_same),
        cmocka_unit_test(a_resumed_run_is_the_same_run),
        cmocka_unit_test_teardown(so_it_is_on_hopper, back_to_the_usual_card),
        cmocka_unit_test(tokens_come_from_graphs),
        cmocka_unit_test(faults_are_one_clear_line),
        cmocka_unit_test(commands_leave_device_memory_alone),
        cmocka_unit_test(two_gpus_do_as_two_ranks),
    };
    return cmocka_run_group_tests_name("cuda", tests, NULL, NULL);
}
