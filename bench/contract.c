// Tests the numerics contract on this device: log-probs as sampled, in batches of any size that sequences join and
// leave, must be bit for bit those of a training pass over the same tokens, packed at random.
#include "bench_model.h"
#include "random.h"
#include "train.h"
#include <stdlib.h>

enum { PROMPTS = 24, GROUP = 8, LONGEST_PROMPT = 96, LONGEST = 320, SLOTS = 128, PACK = 8192 };

typedef struct {
    BenchModel model;
    Packing packing;
    int32_t joined[LONGEST_PROMPT + LONGEST];
    int packed[PROMPTS * GROUP], n_packed; // sequences in the packing
    float logp[PACK];
    uint64_t random;
    int64_t tokens, wrong;
} Contract;

static int below(Contract *c, int n) { return (int)(random_bits(7, 1, c->random++) % (uint64_t)n); }

static void sample(Contract *c, Batch *b, float temperature) {
    Learner *l = &c->model.learner;
    SampleParams params = {.temperature = temperature, .top_p = 1, .repetition_penalty = 1, .seed = c->random};
    Error e = {0};
    for (int p = 0; p < b->prompts; p++)
        for (int n = 1 + below(c, LONGEST_PROMPT), i = 0; i < n; i++)
            ids_add(&b->prompt[p], below(c, l->engine.hf.dims.V));
    for (int i = 0; i < b->n; i++) b->state[i] = SEQ_QUEUED, b->key[i] = (int64_t)c->random++;
    if (!rollout_run(&l->engine.rollout, l->engine.device, &l->engine.policy, l->engine.tokenizer, (StopRule){0},
                     params, b, (RolloutWatch){0}, &e))
        die("bench: %s", e.text);
}

// Runs the training pass over the packed sequences and compares the log-probs.
static void compare(Contract *c, const Batch *b, float temperature) {
    Learner *l = &c->model.learner;
    if (!c->n_packed) return;
    TrainWork w = micro_pack(l, &c->packing);
    micro_forward(l->engine.device, &l->engine.policy, &w, temperature);
    l->engine.device->copy(l->engine.device, c->logp, w.logp.data, tensor_bytes(w.logp));
    l->engine.device->sync(l->engine.device);
    if (l->engine.device->error[0]) die("bench: %s", l->engine.device->error);
    const float *at = c->logp;
    for (int k = 0; k < c->n_packed; at += b->len[c->packed[k++]])
        for (int j = 0; j < b->len[c->packed[k]]; j++, c->tokens++)
            c->wrong += memcmp(at + j, b->logp + (size_t)c->packed[k] * (size_t)b->max_completion + (size_t)j, 4) != 0;
    packing_clear(&c->packing);
    c->n_packed = 0;
}

static void train(Contract *c, const Batch *b, float temperature) {
    int order[PROMPTS * GROUP];
    grpo_order(order, b->n, b->n, c->random++, 3);
    for (int k = 0; k < b->n; k++) {
        int i = order[k];
        const Ids *prompt = &b->prompt[i / b->group];
        memcpy(c->joined, prompt->id, prompt->n * 4);
        memcpy(c->joined + prompt->n, b->ids + (size_t)i * (size_t)b->max_completion, (size_t)b->len[i] * 4);
        int64_t n = (int64_t)prompt->n + b->len[i];
        bool some = c->n_packed > 0 && below(c, 16) == 0; // packings of all sizes
        if (some || !packing_add(&c->packing, c->joined, n, (int64_t)prompt->n, NULL)) {
            compare(c, b, temperature);
            if (!packing_add(&c->packing, c->joined, n, (int64_t)prompt->n, NULL)) die("bench: a sequence is too long");
        }
        c->packed[c->n_packed++] = i;
    }
    compare(c, b, temperature);
}

static void check(Bench *b, Shape shape, DType dtype, int64_t tokens) {
    char name[64];
    snprintf(name, sizeof name, "tokens that differ, %s %s", shape_name[shape], dtype_name(dtype));
    if (!bench_wants(b, name)) return;
    Contract *c = xcalloc(1, sizeof *c);
    bench_model_open(b, &c->model, shape, dtype,
                     (RunShape){.train = true,
                                .train_tokens = PACK,
                                .train_seqs = PROMPTS * GROUP,
                                .rollout = rollout_shape(SLOTS, PROMPTS, LONGEST_PROMPT, LONGEST)});
    c->packing = packing_new(PACK, PROMPTS * GROUP);
    while (c->tokens < tokens) {
        static const float temperature[] = {1, 0.9f, 0.6f};
        float t = temperature[below(c, 3)];
        int64_t left = tokens - c->tokens;
        int prompts = 1 + below(c, left < PROMPTS ? (int)left : PROMPTS), group = 1 + below(c, GROUP);
        int64_t most = left / ((int64_t)prompts * group) + 1;
        int length = 1 + below(c, most < LONGEST ? (int)most : LONGEST);
        Batch batch = batch_new(prompts, group, length, 1);
        sample(c, &batch, t);
        train(c, &batch, t);
        batch_free(&batch);
    }
    char unit[40];
    snprintf(unit, sizeof unit, "of %lld", (long long)c->tokens);
    if (b->iterations) printf("%-46s %12lld %s\n", name, (long long)c->wrong, unit);
    else bench_row(b, name, (double)c->wrong, unit, 0, 0);
    b->failed |= c->wrong > 0;
    packing_free(&c->packing);
    bench_model_close(&c->model);
    free(c);
}

void bench_contract(Bench *b) {
    bench_section(b, "log-probs, sampled against trained");
    int64_t tokens = b->tokens ? b->tokens : b->gpu ? 1000000 : 2000;
    check(b, TINY, F32, tokens / 4);
    check(b, TINY, BF16, tokens / 4);
    if (b->gpu && shape_chosen(b, HALF_B)) check(b, HALF_B, BF16, tokens);
}
