// Rollout: sampled tokens a second, everything counted (model, sampling with log-prob, detokenizing).
#include "model.h"
#include <stdlib.h>

typedef struct {
    Run *run;
    Batch batch;
} Sampling;

static void sample(void *arg, int i) {
    Sampling *s = arg;
    Batch *b = &s->batch;
    for (int j = 0; j < b->n; j++) {
        b->state[j] = SEQ_QUEUED;
        b->len[j] = 0;
        b->key[j] = (int64_t)i * b->n + j;
        free(b->text[j]);
        b->text[j] = NULL;
    }
    SampleParams params = {.temperature = 0.9f, .top_p = 1, .repetition_penalty = 1, .seed = 1};
    rollout_run(&s->run->rollout, s->run->device, &s->run->policy, s->run->tokenizer, (StopRule){0}, params, b,
                (RolloutWatch){0}, NULL);
}

// Seconds of drawing `length` tokens for each of `group` sequences that share a prompt of 16 tokens.
static double seconds_of(Run *run, int group, int length) {
    Sampling s = {run, batch_new(1, group, length, 1)};
    for (int i = 0; i < 16; i++) ids_add(&s.batch.prompt[0], i + 1);
    double t = bench_time(sample, &s);
    batch_free(&s.batch);
    return t;
}

static void measure(Bench *b, Shape shape, DType dtype, int group, int length) {
    char name[64];
    snprintf(name, sizeof name, "decode %s, B = %d, %s", shape == TINY ? "tiny" : "0.5B", group, dtype_name(dtype));
    if (!bench_wants(b, name)) return;
    BenchModel m;
    bench_model_open(&m, shape, dtype, (RunShape){.rollout = rollout_shape(group, 1, 64, length)});
    // The prompt and the first token are in both times: their difference is decode steps alone.
    double step = (seconds_of(&m.run, group, length) - seconds_of(&m.run, group, 1)) / (length - 1);
    double weights = (double)model_param_count(m.run.hf.dims) * (double)dtype_size(dtype) * 1e-9;
    if (group == 1) {
        bench_row(b, name, weights / step, "GB/s", b->probe.read, 0);
        snprintf(name, sizeof name, "decode %s, B = %d, %s, tokens", shape == TINY ? "tiny" : "0.5B", group,
                 dtype_name(dtype));
        bench_row(b, name, 1 / step, "tokens/s", b->probe.read / weights, 0);
    } else bench_row(b, name, group / step, "tokens/s", 0, 0);
    bench_model_close(&m);
}

void bench_rollout(Bench *b) {
    bench_section("decode");
    peer_run(b, "torch_cpu.py", "decode");
    measure(b, HALF_B, BF16, 1, 33);
    measure(b, HALF_B, BF16, 8, 17);
    measure(b, TINY, F32, 64, 129);
}
