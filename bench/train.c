// Measures training and prefill in tokens a second, beside the limit that follows from the probe's FLOP/s by the floor
// model (2 FLOP a weight and token forward, three times that with the backward pass).
#include "bench_model.h"
#include "clock.h"
#include "micro.h"
#include "optim.h"
#include <stdlib.h>
#include <stdio.h>

typedef struct {
    Learner *learner;
    TrainWork work;
    int64_t tokens;
} Step;

static void prefill(void *arg, int i) {
    Step *s = arg;
    model_forward(s->learner->engine.device, &s->learner->engine.policy, &s->work.acts,
                  (Packed){s->work.ids, s->work.pos, s->work.seq, s->work.prefix}, NULL, NONE);
    s->learner->engine.device->sync(s->learner->engine.device);
}

// Forward, log-probs over the full vocabulary, backward: all of a micro-batch but the loss itself.
static void train(void *arg, int i) {
    Step *s = arg;
    micro_forward(s->learner->engine.device, &s->learner->engine.policy, &s->work, 1);
    s->learner->engine.device->fill(s->learner->engine.device, s->work.dlogp, -1.0f / (float)s->tokens);
    micro_backward(s->learner, &s->work, 1, false, false);
    s->learner->engine.device->sync(s->learner->engine.device);
}

static void optimizer(void *arg, int i) {
    Learner *l = ((Step *)arg)->learner;
    optim_step(l, 1e-6, 1, i + 1, NULL);
    l->engine.device->sync(l->engine.device);
}

static void measure(Bench *b, Shape shape, DType dtype, int sequences, int64_t length) {
    const char *model = shape_name[shape];
    char name[3][64];
    const char *const what[] = {"prefill", "train", "AdamW"};
    bool any = false;
    for (int i = 0; i < 3; i++) {
        snprintf(name[i], sizeof name[i], "%s %s, %d x %lld tokens, %s", what[i], model, sequences, (long long)length,
                 dtype_name(dtype));
        any |= bench_wants(b, name[i]);
    }
    if (!any) return;
    int64_t T = sequences * length;
    BenchModel m;
    peak_memory_reset();
    bench_model_open(b, &m, shape, dtype, (RunShape){.train = true, .train_tokens = T, .train_seqs = sequences});
    ModelDims dims = m.learner.engine.hf.dims;
    Packing p = packing_new(T, sequences);
    int32_t *ids = xcalloc((size_t)length + 1, sizeof *ids);
    for (int s = 0; s < sequences; s++) {
        for (int64_t j = 0; j <= length; j++) ids[j] = (int32_t)((uint32_t)(j * 7919 + s * 104729) % (uint32_t)dims.V);
        packing_add(&p, ids, length + 1, 1, NULL);
    }
    Step step = {&m.learner, micro_pack(&m.learner, &p), T};
    double rate = (dtype == F32 ? b->probe.f32 : b->probe.bf16) * 1e9;
    if (bench_wants(b, name[0]))
        bench_row(b, name[0], (double)T / bench_time(b, prefill, &step), "tokens/s",
                  rate / (floor_forward(dims, (double)length) - 2 * floor_head(dims)), 0);
    if (bench_wants(b, name[1]))
        bench_row(b, name[1], (double)T / bench_time(b, train, &step), "tokens/s",
                  rate / (3 * floor_forward(dims, (double)length)), 0);
    if (bench_wants(b, name[2])) {
        double bytes = (double)m.learner.engine.policy.slab.dim[0] *
                       floor_adamw((double)dtype_size(dtype), (double)dtype_size(m.learner.grad.dtype),
                                   (double)dtype_size(m.learner.moment1.dtype));
        bench_row(b, name[2], bytes / bench_time(b, optimizer, &step) * 1e-9, "GB/s", b->probe.read, 0);
    }
    bench_model_memory(b, &m, name[1]);
    free(ids);
    packing_free(&p);
    bench_model_close(&m);
}

void bench_train(Bench *b) {
    bench_section(b, "prefill and training (forward, backward)");
    peer_run(b, b->gpu ? "torch_cuda.py" : "torch_cpu.py", "train");
    if (b->gpu) peer_run(b, "cuda_sources.py", "train");
    if (!b->gpu) {
        measure(b, TINY, F32, 8, 128);
        measure(b, TINY, BF16, 8, 128);
        if (shape_chosen(b, HALF_B)) measure(b, HALF_B, BF16, 1, 512);
        return;
    }
    for (Shape s = HALF_B; s < SHAPES; s++)
        if (shape_chosen(b, s)) measure(b, s, BF16, 16, 512);
}
