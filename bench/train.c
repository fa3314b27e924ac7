// Training and prefill: tokens a second, beside what the probe's arithmetic allows by the floor model
// (2 FLOP a weight and token forward, three times that with the backward pass).
#include "model.h"
#include <stdlib.h>

typedef struct {
    Run *run;
    TrainWork work;
    int64_t tokens;
} Step;

static void prefill(void *arg, int i) {
    Step *s = arg;
    model_forward(s->run->device, &s->run->policy, &s->work.acts, (Packed){s->work.ids, s->work.pos, s->work.seq}, NULL,
                  NONE);
}

// Forward, log-probs over the full vocabulary, backward: all of a micro-batch but the loss itself.
static void train(void *arg, int i) {
    Step *s = arg;
    micro_forward(s->run, &s->run->policy, &s->work, 1);
    s->run->device->fill(s->run->device, s->work.dlogp, -1.0f / (float)s->tokens);
    micro_backward(s->run, &s->work, 1, false);
}

static void optimizer(void *arg, int i) { optim_step(((Step *)arg)->run, 1e-6, 1, i + 1, NULL); }

static void measure(Bench *b, Shape shape, DType dtype, int sequences, int64_t length) {
    const char *model = shape == TINY ? "tiny" : "0.5B";
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
    bench_model_open(&m, shape, dtype, (RunShape){.train = true, .train_tokens = T, .train_seqs = sequences});
    ModelDims dims = m.run.hf.dims;
    Packing p = packing_new(T, sequences);
    int32_t *ids = xcalloc((size_t)length + 1, sizeof *ids);
    for (int s = 0; s < sequences; s++) {
        for (int64_t j = 0; j <= length; j++) ids[j] = (int32_t)((uint32_t)(j * 7919 + s * 104729) % (uint32_t)dims.V);
        packing_add(&p, ids, length + 1, 1, NULL);
    }
    Step step = {&m.run, micro_pack(&m.run, &p), T};
    double rate = (dtype == F32 ? b->probe.f32 : b->probe.bf16) * 1e9;
    if (bench_wants(b, name[0]))
        bench_row(b, name[0], (double)T / bench_time(prefill, &step), "tokens/s",
                  rate / forward_flop(dims, length, false), 0);
    if (bench_wants(b, name[1]))
        bench_row(b, name[1], (double)T / bench_time(train, &step), "tokens/s",
                  rate / (3 * forward_flop(dims, length, true)), 0);
    // Read and written: gradient, both moments, the weights, and their f32 masters where they are bf16.
    if (bench_wants(b, name[2])) {
        double bytes = (double)m.run.policy.slab.dim[0] * (dtype == F32 ? 4 + 16 + 8 : 4 + 16 + 8 + 2);
        bench_row(b, name[2], bytes / bench_time(optimizer, &step) * 1e-9, "GB/s", b->probe.read, 0);
    }
    char memory[64];
    snprintf(memory, sizeof memory, "peak memory of this model, %s %s", model, dtype_name(dtype));
    bench_row(b, memory, peak_memory(), "GiB", 0, 0);
    free(ids);
    packing_free(&p);
    bench_model_close(&m);
}

void bench_train(Bench *b) {
    bench_section("prefill and training (forward, backward)");
    peer_run(b, "torch_cpu.py", "train");
    measure(b, TINY, F32, 8, 128);
    measure(b, TINY, BF16, 8, 128);
    measure(b, HALF_B, BF16, 1, 512);
}
