// Rollout: sampled tokens a second, everything counted (model, sampling with log-prob, detokenizing).
#include "bench_model.h"
#include "clock.h"
#include <stdlib.h>
#include <stdio.h>

typedef struct {
    Engine *engine;
    Batch batch;
} Sampling;

static void sample(void *arg, int i) {
    Sampling *s = arg;
    Batch *b = &s->batch;
    Error e = {0};
    for (int j = 0; j < b->n; j++) {
        b->state[j] = SEQ_QUEUED;
        b->len[j] = 0;
        b->key[j] = (int64_t)i * b->n + j;
        free(b->text[j]);
        b->text[j] = NULL;
    }
    SampleParams params = {.temperature = 0.9f, .top_p = 1, .repetition_penalty = 1, .seed = 1};
    if (!rollout_run(&s->engine->rollout, s->engine->device, &s->engine->policy, s->engine->tokenizer, (StopRule){0},
                     params, b, (RolloutWatch){0}, &e))
        die("bench: %s", e.text);
}

double rollout_seconds(const Bench *b, Engine *engine, int prompts, int group, int prompt, int length) {
    Sampling s = {engine, batch_new(prompts, group, length, 1)};
    for (int p = 0; p < prompts; p++)
        for (int i = 0; i < prompt; i++) ids_add(&s.batch.prompt[p], (i + 31 * p) % engine->hf.dims.V);
    double t = bench_time(b, sample, &s);
    batch_free(&s.batch);
    return t;
}

static void measure(Bench *b, Shape shape, DType dtype, int group, int length) {
    char name[64];
    snprintf(name, sizeof name, "decode %s, B = %d, %s", shape_name[shape], group, dtype_name(dtype));
    if (!bench_wants(b, name)) return;
    BenchModel m;
    peak_memory_reset();
    bench_model_open(b, &m, shape, dtype, (RunShape){.rollout = rollout_shape(group, 1, 64, length)});
    // The prompt and the first token are in both times: their difference is decode steps alone.
    double step = (rollout_seconds(b, &m.learner.engine, 1, group, 16, length) -
                   rollout_seconds(b, &m.learner.engine, 1, group, 16, 1)) /
                  (length - 1);
    double weights = (double)model_param_count(m.learner.engine.hf.dims) * (double)dtype_size(dtype) * 1e-9;
    if (group == 1) {
        bench_row(b, name, weights / step, "GB/s", b->probe.read, 0);
        snprintf(name, sizeof name, "decode %s, B = %d, %s, tokens", shape_name[shape], group, dtype_name(dtype));
        bench_row(b, name, 1 / step, "tokens/s", b->probe.read / weights, 0);
    } else bench_row(b, name, group / step, "tokens/s", 0, 0);
    bench_model_memory(b, &m, name);
    bench_model_close(&m);
}

// A GPU's decode step at context 400 on average; the sequences share their prompt, as a group does, but the floor reads
// every sequence's keys and values.
static void measure_step(Bench *b, Shape shape, int B) {
    enum { LENGTH = 129, PROMPT = 400 - LENGTH / 2 };
    char name[64];
    snprintf(name, sizeof name, "decode step %s, B = %d, context 400", shape_name[shape], B);
    if (!bench_wants(b, name)) return;
    BenchModel m;
    bench_model_open(b, &m, shape, BF16, (RunShape){.rollout = rollout_shape(B, 1, PROMPT, LENGTH)});
    double step = (rollout_seconds(b, &m.learner.engine, 1, B, PROMPT, LENGTH) -
                   rollout_seconds(b, &m.learner.engine, 1, B, PROMPT, 1)) /
                  (LENGTH - 1);
    bench_row_time(b, name, step * 1e3, "ms",
                   1e3 * floor_decode(m.learner.engine.hf.dims, B, 400, b->probe.read * 1e9, b->probe.bf16 * 1e9));
    bench_model_memory(b, &m, name);
    bench_model_close(&m);
}

// Measures a whole rollout in `slots` slots, everything counted: the prompts, the decode steps, sampling.
static void measure_rollout(Bench *b, const char *name, Shape shape, int prompts, int group, int slots, int prompt,
                            int length) {
    double tokens = (double)prompts * group * length, bw = b->probe.read * 1e9, p = b->probe.bf16 * 1e9;
    if (!bench_wants(b, name)) return;
    BenchModel m;
    bench_model_open(b, &m, shape, BF16,
                     (RunShape){.rollout = rollout_shape(slots, (slots + group - 1) / group + 1, prompt, length)});
    double seconds = rollout_seconds(b, &m.learner.engine, prompts, group, prompt, length);
    double floor = tokens / slots * floor_decode(m.learner.engine.hf.dims, slots, prompt + length / 2.0, bw, p) +
                   prompts * prompt * floor_forward(m.learner.engine.hf.dims, prompt) / p;
    bench_row(b, name, tokens / seconds, "tokens/s", tokens / floor, 0);
    bench_model_memory(b, &m, name);
    bench_model_close(&m);
}

// Whole rollouts on a CPU, all sequences at a time, beside the best of the peers.
static void bench_rollout_cpu(Bench *b) {
    enum { PROMPT = 100, LENGTH = 32 };
    static const int prompts[] = {1, 1, 4}, group[] = {1, 8, 8};
    static const char *const peer[] = {"torch_cpu.py", "llama_cpp_cpu.py", "openvino_genai_cpu.py"};
    bench_section(b, "rollouts");
    for (int i = 0; i < 3; i++) peer_run(b, peer[i], "rollout");
    for (int i = 0; i < 3; i++) {
        char name[96];
        snprintf(name, sizeof name, "rollout %s, %d x %d completions of %d after %d, bf16", shape_name[HALF_B],
                 prompts[i], group[i], LENGTH, PROMPT);
        measure_rollout(b, name, HALF_B, prompts[i], group[i], prompts[i] * group[i], PROMPT, LENGTH);
    }
}

// A GPU's: more groups than there are slots.
static void bench_rollout_gpu(Bench *b, Shape shape) {
    enum { PROMPTS = 64, GROUP = 16, SLOTS = 512 };
    char name[64];
    snprintf(name, sizeof name, "rollout %s, %d x %d completions", shape_name[shape], PROMPTS, GROUP);
    measure_rollout(b, name, shape, PROMPTS, GROUP, SLOTS, 128, 300);
}

void bench_rollout(Bench *b) {
    bench_section(b, "decode");
    peer_run(b, b->gpu ? "hf_generate.py" : "torch_cpu.py", "decode");
    if (b->gpu) peer_run(b, "cuda_sources.py", "decode");
    if (!b->gpu) {
        if (shape_chosen(b, HALF_B)) {
            measure(b, HALF_B, BF16, 1, 33);
            measure(b, HALF_B, BF16, 8, 17);
        }
        measure(b, TINY, F32, 64, 129);
        if (shape_chosen(b, HALF_B)) bench_rollout_cpu(b);
        return;
    }
    for (Shape s = HALF_B; s < SHAPES; s++) {
        if (!shape_chosen(b, s)) continue;
        static const int batch[] = {8, 64, 256, 1024};
        for (int i = 0; i < 4; i++) measure_step(b, s, batch[i]);
        bench_rollout_gpu(b, s);
    }
}
