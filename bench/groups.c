// Measures what training saves by computing a group's prompt once: a micro-batch's forward and backward pass (all but
// the loss), over the same completions packed alone and with a shared prompt. Log-probs are the sampler's, as in the
// first update of a generation.
#include "bench_model.h"
#include "micro.h"
#include "random.h"
#include <stdlib.h>
#include <stdio.h>

typedef struct {
    const char *what;
    int prompts, group;
    int64_t prompt, shortest, longest; // tokens
} Groups;
// The recipe's prompts are GSM8K's questions behind the shipped system message: 86 to 286 tokens, 134 in the mean.
static const Groups groups[] = {{"1 x 8 of 32 after 100", 1, 8, 100, 32, 32},
                                {"1 x 8 of 100-200 after 134", 1, 8, 134, 100, 200},
                                {"1 x 16 of 512 after 64", 1, 16, 64, 512, 512},
                                {"8 x 1 of 100-200 after 134", 8, 1, 134, 100, 200}};

// The micro-batch, packed one of the two ways, and what the sampler would have kept of it.
typedef struct {
    Learner *learner;
    Packing packing;
    float *lse, *entropy; // [N]
} Step;

static void train(void *arg, int i) {
    Step *s = arg;
    Device *d = s->learner->engine.device;
    TrainWork w = micro_pack(s->learner, &s->packing);
    micro_upload(s->learner, w.lse, s->lse);
    micro_upload(s->learner, w.entropy, s->entropy);
    micro_hidden(s->learner->engine.device, &s->learner->engine.policy, &w);
    d->fill(d, w.dlogp, -1.0f / (float)w.dlogp.dim[0]);
    micro_backward(s->learner, &w, 1, false, false);
    d->sync(d);
}

// Packs all completions, each with its own prompt or with the shared ones.
static void pack(Packing *p, const Groups *g, int V, bool shared) {
    int32_t *ids = xcalloc((size_t)(g->prompt + g->longest), sizeof *ids);
    for (int i = 0; i < g->prompts * g->group; i++) {
        int64_t n = g->shortest + (int64_t)(random_bits(3, 1, (uint64_t)i) % (uint64_t)(g->longest - g->shortest + 1));
        int64_t first = shared && g->group > 1 ? g->prompt - 1 : 0;
        for (int64_t j = 0; j < g->prompt + n; j++)
            ids[j] = (int32_t)(random_bits(5, (uint64_t)(j < g->prompt ? i / g->group : 1000 + i), (uint64_t)j) %
                               (uint64_t)V);
        if (i % g->group == 0 && !packing_prefix(p, ids, first)) die("bench: a prompt does not fit");
        if (!packing_add(p, ids + first, g->prompt + n - first, g->prompt - first, NULL)) die("bench: no room");
    }
    free(ids);
}

static Step step_open(Learner *l, const Groups *g, bool shared) {
    int sequences = g->prompts * g->group;
    Step s = {l, packing_new(sequences * (g->prompt + g->longest), sequences), NULL, NULL};
    pack(&s.packing, g, l->engine.hf.dims.V, shared);
    TrainWork w = micro_pack(l, &s.packing);
    micro_forward(l->engine.device, &l->engine.policy, &w, 1);
    Tensor kept[] = {w.lse, w.entropy};
    float **to[] = {&s.lse, &s.entropy};
    for (int i = 0; i < 2; i++) {
        *to[i] = xmalloc(tensor_bytes(kept[i]));
        l->engine.device->copy(l->engine.device, *to[i], kept[i].data, tensor_bytes(kept[i]));
    }
    return s;
}

static void step_close(Step *s) {
    packing_free(&s->packing);
    free(s->lse);
    free(s->entropy);
}

static void measure(Bench *b, Shape shape, const Groups *g) {
    char name[2][80], ratio[80];
    for (int shared = 0; shared < 2; shared++)
        snprintf(name[shared], sizeof name[0], "train %s, %s, %s", shape_name[shape], g->what,
                 shared ? "shared" : "alone");
    snprintf(ratio, sizeof ratio, "train %s, %s, times", shape_name[shape], g->what);
    if (!bench_wants(b, ratio)) return;
    int sequences = g->prompts * g->group;
    int64_t T = sequences * (g->prompt + g->longest);
    BenchModel m;
    bench_model_open(b, &m, shape, BF16, (RunShape){.train = true, .train_tokens = T, .train_seqs = sequences});
    Step step[2] = {step_open(&m.learner, g, false), step_open(&m.learner, g, true)};
    double seconds[2];
    bench_time_both(b, train, (void *[]){&step[0], &step[1]}, seconds);
    for (int shared = 0; shared < 2; shared++) {
        bench_row_time(b, name[shared], seconds[shared] * 1e3, "ms", 0);
        step_close(&step[shared]);
    }
    bench_row(b, ratio, seconds[0] / seconds[1], "x", 0, 0);
    bench_model_close(&m);
}

void bench_groups(Bench *b) {
    bench_section(b, "training with prompts computed once a group (share_prompts)");
    for (Shape s = b->gpu ? HALF_B : TINY; s < (b->gpu ? SHAPES : ONE_HALF_B); s++)
        for (size_t g = 0; g < sizeof groups / sizeof *groups && (s == TINY || shape_chosen(b, s)); g++)
            measure(b, s, &groups[g]);
}
