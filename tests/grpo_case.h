// A batch for the grpo_loss op on the device under test.
#pragma once
#include "grpo_math.h"
#include "grpo_scalars.h"
#include "near.h"
#include "on_device.h"
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

static Device *device; // under test
// Launches so far under emulation, which brings it; NULL on a GPU and on the CPU.
int64_t emu_launches_total(void) __attribute__((weak));

// A batch and room for the op's results, all in host memory.
typedef struct {
    int64_t n, tokens;
    GrpoIn in;
    GrpoOut out;
} Case;

// What an op has to write and does not shows.
static inline float *not_numbers(int64_t n) {
    float *x = xmalloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = NAN;
    return x;
}
static inline Case case_new(int64_t groups, int64_t group_size, int64_t n_rewards, const int *length) {
    int64_t n = groups * group_size, N = 0;
    for (int64_t i = 0; i < n; i++) N += length[i];
    Case c = {.n = n, .tokens = N};
    c.in = (GrpoIn){
        .groups = groups,
        .group_size = group_size,
        .n_rewards = n_rewards,
        .rewards = tensor2(xcalloc((size_t)(n * n_rewards), 4), F32, n, n_rewards),
        .weights = tensor1(xcalloc((size_t)n_rewards, 4), F32, n_rewards),
        .index = tensor1(xcalloc((size_t)n, 4), I32, n),
        .offsets = tensor1(xcalloc((size_t)n + 1, 4), I32, n + 1),
        .logp = tensor1(xcalloc((size_t)N, 4), F32, N),
        .old_logp = tensor1(xcalloc((size_t)N, 4), F32, N),
        .ref_logp = tensor1(xcalloc((size_t)N, 4), F32, N),
        .entropy = tensor1(xcalloc((size_t)N, 4), F32, N),
        .mask = tensor1(xcalloc((size_t)n, 1), U8, n),
    };
    c.out = (GrpoOut){
        .advantage = tensor1(not_numbers(n), F32, n),
        .dlogp = tensor1(not_numbers(N), F32, N),
        .dentropy = tensor1(not_numbers(N), F32, N),
        .metrics = tensor2(not_numbers(n * GM_COUNT), F32, n, GM_COUNT),
    };
    for (int64_t i = 0; i < n; i++) {
        i32(c.in.index)[i] = (int32_t)i;
        i32(c.in.offsets)[i + 1] = i32(c.in.offsets)[i] + length[i];
        ((uint8_t *)c.in.mask.data)[i] = 1;
    }
    for (int64_t k = 0; k < n_rewards; k++) f32(c.in.weights)[k] = 1;
    return c;
}

static inline void case_free(Case *c) {
    Tensor all[] = {c->in.rewards,   c->in.weights,  c->in.index,     c->in.offsets, c->in.logp,
                    c->in.old_logp,  c->in.ref_logp, c->in.entropy,   c->in.mask,    c->out.dlogp,
                    c->out.dentropy, c->out.metrics, c->out.advantage};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i].data);
}

static const GrpoParams plain = {
    .epsilon = 0.2f,
    .epsilon_high = 0.2f,
    .delta = -1,
    .off_policy_threshold = -1,
    .sapo_tau_pos = 1,
    .sapo_tau_neg = 1.05f,
    .vespo_k_pos = 2,
    .vespo_lambda_pos = 3,
    .vespo_k_neg = 3,
    .vespo_lambda_neg = 2,
    .entropy_threshold = -INFINITY,
    .loss_scale = 1,
    .entropy_scale = 1,
};

// The scalars of the whole batch, as the training loop makes them.
static inline void case_scalars(const Case *c, GrpoParams *p, double top_entropy_quantile, int max_completion) {
    float *masked = xmalloc(sizeof(float) * (size_t)(c->tokens + 1));
    int64_t tokens = 0, kept;
    for (int64_t i = 0; i < c->n; i++)
        for (int32_t t = i32(c->in.offsets)[i]; ((uint8_t *)c->in.mask.data)[i] && t < i32(c->in.offsets)[i + 1]; t++)
            masked[tokens++] = f32(c->in.entropy)[t];
    p->batch_std = grpo_batch_std(f32(c->in.rewards), f32(c->in.weights), c->in.groups, c->in.group_size,
                                  c->in.n_rewards, p->aggregation);
    p->loss_scale = grpo_loss_scale(p->loss_type, (LossCounts){c->n, tokens, c->n, tokens, max_completion});
    p->entropy_threshold = grpo_entropy_threshold(masked, tokens, top_entropy_quantile, &kept);
    p->entropy_scale = (float)(1.0 / (double)(kept > 0 ? kept : 1));
    free(masked);
}

// Runs the op on the device under test: the columns travel there, the results back.
static inline void run_on_device(GrpoOut out, GrpoIn in, GrpoParams p) {
    Tensor *given[] = {&in.rewards,  &in.weights,  &in.index,   &in.offsets, &in.logp,
                       &in.old_logp, &in.ref_logp, &in.entropy, &in.mask};
    Tensor *results[] = {&out.advantage, &out.dlogp, &out.dentropy, &out.metrics}, home[4];
    for (int i = 0; i < 9; i++) *given[i] = to_device(device, *given[i]);
    for (int i = 0; i < 4; i++) home[i] = *results[i], *results[i] = to_device(device, home[i]);
    int64_t launches = emu_launches_total ? emu_launches_total() : 0;
    device->grpo_loss(device, out, in, p);
    bool emulated = emu_launches_total && !strcmp(device->name, "cuda");
    if (emulated) assert_int_equal(emu_launches_total() - launches, 1);
    for (int i = 0; i < 4; i++) device_fetch(device, home[i].data, *results[i]);
    for (int i = 0; i < 9; i++) device_drop(device, *given[i]);
    for (int i = 0; i < 4; i++) device_drop(device, *results[i]);
}
static inline void case_run(Case *c, GrpoParams p) { run_on_device(c->out, c->in, p); }
static inline float metric(const Case *c, int64_t i, GrpoMetric m) { return f32(c->out.metrics)[i * GM_COUNT + m]; }
static inline double metric_sum(const Case *c, GrpoMetric m) {
    double s = 0;
    for (int64_t i = 0; i < c->n; i++) s += metric(c, i, m);
    return s;
}

static inline int open_device(void **state) { return (device = test_device(0)) ? 0 : -1; }
static inline int close_device(void **state) {
    device_close(device);
    return 0;
}
