// Measures what a token of a long completion costs in training: attention's part grows with the tokens before it, all
// else is constant.
#include "bench_model.h"
#include "clock.h"
#include "micro.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static Device real;
static double attention_time; // seconds
static void timed_attention(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv) {
    d->sync(d);
    double start = clock_seconds();
    real.attention(d, y, lse, qkv, seq, prefix, n_kv);
    d->sync(d);
    attention_time += clock_seconds() - start;
}
static void timed_attention_bwd(Device *d, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv, Tensor seq,
                                Tensor prefix, int n_kv) {
    d->sync(d);
    double start = clock_seconds();
    real.attention_bwd(d, dqkv, dy, y, lse, qkv, seq, prefix, n_kv);
    d->sync(d);
    attention_time += clock_seconds() - start;
}

typedef struct {
    Learner *learner;
    TrainWork work;
    double attention, rest; // seconds, each the least of all runs
} Step;

static void train(void *arg, int i) {
    Step *s = arg;
    Device *d = s->learner->engine.device;
    attention_time = 0;
    double start = clock_seconds();
    micro_forward(s->learner->engine.device, &s->learner->engine.policy, &s->work, 1);
    d->fill(d, s->work.dlogp, -1.0f / (float)s->work.dlogp.dim[0]);
    micro_backward(s->learner, &s->work, 1, false, false);
    d->sync(d);
    double rest = clock_seconds() - start - attention_time;
    if (attention_time < s->attention) s->attention = attention_time;
    if (rest < s->rest) s->rest = rest;
}

static void measure(Bench *b, Shape shape, int64_t n) {
    char name[2][80];
    snprintf(name[0], sizeof name[0], "train %s, one of %lld tokens, attention", shape_name[shape], (long long)n);
    snprintf(name[1], sizeof name[1], "train %s, one of %lld tokens, the rest", shape_name[shape], (long long)n);
    if (!bench_wants(b, name[0]) && !bench_wants(b, name[1])) return;
    BenchModel m;
    bench_model_open(b, &m, shape, BF16, (RunShape){.train = true, .train_tokens = n, .train_seqs = 1});
    Packing p = packing_new(n, 1);
    int32_t *ids = xcalloc((size_t)n + 1, sizeof *ids);
    for (int64_t j = 0; j <= n; j++) ids[j] = (int32_t)((uint32_t)(j * 7919) % (uint32_t)m.learner.engine.hf.dims.V);
    packing_add(&p, ids, n + 1, 1, NULL);
    Step step = {.learner = &m.learner, .work = micro_pack(&m.learner, &p), .attention = INFINITY, .rest = INFINITY};
    Device *d = m.learner.engine.device;
    real = *d;
    d->attention = timed_attention;
    d->attention_bwd = timed_attention_bwd;
    bench_time(b, train, &step);
    double tokens = (double)n;
    bench_row_time(b, name[0], step.attention / tokens * 1e6, "us/token", 0);
    bench_row_time(b, name[1], step.rest / tokens * 1e6, "us/token", 0);
    *d = real;
    free(ids);
    packing_free(&p);
    bench_model_close(&m);
}

void bench_long(Bench *b) {
    bench_section(b, "training on long completions, microseconds a token");
    Shape shape = b->gpu ? HALF_B : TINY;
    for (int64_t n = 512; n <= 16384; n *= 2) measure(b, shape, n);
}
