// A model, its gradients, activations, cache and one batch of packed sequences, in memory of their own that host and
// device both reach; weights by a formula that tools/golden_model.py computes to the same bits.
#pragma once
#include "model.h"
#include "random.h"
#include <math.h>
#include <stdlib.h>
#include <stdint.h>
#include <string.h>

static inline uint64_t mix64(uint64_t x) { return random_mix(x + RANDOM_STEP); }
// A number of [-1, 1) made of h, exact in f32.
static inline float unit(uint64_t h) { return 2.0f * ((float)(mix64(h) >> 40) * 0x1p-24f) - 1.0f; }
static inline uint64_t name_hash(const char *name) { // FNV-1a
    uint64_t h = 0xcbf29ce484222325ull;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3ull;
    return h;
}
static inline void param_fill(const Param *p, float base, float scale) {
    uint64_t h = name_hash(p->name);
    for (int64_t i = 0; i < tensor_numel(p->t); i++) tensor_set(p->t, i, base + scale * unit(h + (uint64_t)i));
}

typedef struct {
    ModelDims dims;
    DType dtype;
    int64_t tokens, kv_rows; // capacities
    Keep keep;
    AdapterSpec lora; // rank 0: none
} CaseSpec;

typedef struct {
    Device *device;
    CaseSpec spec;
    void *memory;
    size_t bytes;
    Model model, grad; // grad is f32; where keep
    Activations acts;
    KvCache cache;
    // The batch: T tokens in B sequences. Every token but a sequence's last is scored: N = T - B.
    int64_t T, B, N;
    Tensor ids, pos, seq, prefix;      // [tokens], [tokens], [tokens+1], [tokens] i32
    Tensor rows, target;               // [tokens] i32, the first N in use, as of the columns below
    Tensor logp, lse, entropy;         // [tokens]
    Tensor dlogp, dentropy, kv_row;    // [tokens]
    Tensor span, key, token, step_pos; // decode: [tokens,4] i32, [tokens] i64, i32, i32
    const LayerDone *told;             // whom case_backward tells of layers that are done; NULL: nobody
} ModelCase;

// Zeros that host and device both reach (pinned host memory is a GPU's too): results are there once the device is done.
static inline void *shared_memory(Device *d, size_t bytes) {
    void *p = d->host_alloc(d, bytes);
    if (!p) die("no memory for a model of the tests");
    return memset(p, 0, bytes);
}

static inline void case_carve(ModelCase *c, Arena *a) {
    CaseSpec s = c->spec;
    Arena nothing = arena_measure();
    s.dims.low_rank = s.lora.rank;
    c->model = model_carve(a, s.dims, s.dtype);
    if (s.keep) c->grad = model_carve(s.lora.rank ? &nothing : a, s.dims, F32);
    if (s.lora.rank) c->model.adapter = adapter_carve(a, s.dims, &s.lora);
    if (s.lora.rank && s.keep) c->grad.adapter = adapter_carve(a, s.dims, &s.lora);
    c->acts = activations_carve(a, s.dims, s.dtype, s.tokens, s.keep);
    if (s.kv_rows > 0) c->cache = kv_carve(a, s.dims, s.dtype, s.kv_rows);
    Tensor *i32s[] = {&c->ids, &c->pos, &c->rows, &c->target, &c->kv_row, &c->token, &c->step_pos};
    Tensor *f32s[] = {&c->logp, &c->lse, &c->entropy, &c->dlogp, &c->dentropy};
    for (size_t i = 0; i < sizeof i32s / sizeof *i32s; i++) *i32s[i] = arena_new(a, I32, s.tokens);
    for (size_t i = 0; i < sizeof f32s / sizeof *f32s; i++) *f32s[i] = arena_new(a, F32, s.tokens);
    c->seq = arena_new(a, I32, s.tokens + 1);
    c->prefix = arena_new(a, I32, s.tokens);
    c->span = arena_new(a, I32, s.tokens, 4);
    c->key = arena_new(a, I64, s.tokens);
}

static inline void case_views_free(ModelCase *c) {
    model_free(&c->model);
    if (c->spec.keep) model_free(&c->grad);
    activations_free(&c->acts);
}

static inline ModelCase *model_case(Device *d, CaseSpec spec) {
    ModelCase *c = xcalloc(1, sizeof *c);
    c->device = d;
    c->spec = spec;
    Arena measure = arena_measure();
    case_carve(c, &measure);
    case_views_free(c);
    c->bytes = measure.used;
    c->memory = shared_memory(d, c->bytes);
    Arena a = arena_over(c->memory, c->bytes);
    case_carve(c, &a);
    return c;
}

static inline void model_case_free(ModelCase *c) {
    case_views_free(c);
    c->device->host_free(c->device, c->memory, c->bytes);
    free(c);
}

// Weights that keep every layer busy: biases that are not 0, norms that are not 1.
static inline void case_fill(ModelCase *c) {
    for (int i = 0; i < c->model.n_params; i++) {
        const Param *p = &c->model.params[i];
        bool norm = strstr(p->name, "norm.weight"), vector = p->spec->cols == SYM_NONE;
        float fan_in = sqrtf((float)p->t.dim[1]);
        bool head = strstr(p->name, "lm_head") || (c->spec.dims.tied && strstr(p->name, "embed"));
        param_fill(p, norm ? 1 : 0, vector ? 0.4f : head ? 4 / fan_in : strstr(p->name, "embed") ? 1 : 2 / fan_in);
    }
    for (int i = 0; c->model.adapter && i < c->model.adapter->n_params; i++)
        param_fill(&c->model.adapter->params[i], 0, 1 / sqrtf((float)c->model.adapter->params[i].t.dim[1]));
}

// Packs B sequences; length[B], ids back to back.
static inline void case_pack(ModelCase *c, const int32_t *ids, const int *length, int64_t B) {
    int64_t T = 0, N = 0;
    i32(c->seq)[0] = 0;
    for (int64_t b = 0; b < B; b++) {
        for (int p = 0; p < length[b]; p++, T++) {
            i32(c->ids)[T] = ids[T];
            i32(c->pos)[T] = p;
            if (p + 1 == length[b]) continue;
            i32(c->rows)[N] = (int32_t)T;
            i32(c->target)[N++] = ids[T + 1];
        }
        i32(c->seq)[b + 1] = (int32_t)T;
        i32(c->prefix)[b] = -1;
    }
    if (T > c->spec.tokens) die("%lld tokens in a test case for %lld", (long long)T, (long long)c->spec.tokens);
    c->T = T, c->B = B, c->N = N;
}

static inline Packed case_packed(const ModelCase *c) {
    return (Packed){tensor_rows(c->ids, 0, c->T), tensor_rows(c->pos, 0, c->T), tensor_rows(c->seq, 0, c->B + 1),
                    tensor_rows(c->prefix, 0, c->B)};
}
// The first N rows of a column.
static inline Tensor scored(const ModelCase *c, Tensor column) { return tensor_rows(column, 0, c->N); }

// Hidden states, log-probs and entropies of the packed batch, waited for. With kv: row t of the batch goes to cache row
// kv_row[t].
static inline void case_forward(ModelCase *c, float temperature, bool kv) {
    Device *d = c->device;
    model_forward(d, &c->model, &c->acts, case_packed(c), kv ? &c->cache : NULL,
                  kv ? tensor_rows(c->kv_row, 0, c->T) : NONE);
    if (c->N > 0)
        d->logprob(d, scored(c, c->logp), scored(c, c->lse), scored(c, c->entropy), tensor_rows(c->acts.out, 0, c->T),
                   scored(c, c->rows), c->model.head, scored(c, c->target), temperature);
    d->sync(d);
}

// Adds to grad the gradient of sum(dlogp * logp + dentropy * entropy), after case_forward.
static inline void case_backward(ModelCase *c, float temperature) {
    Device *d = c->device;
    d->logprob_bwd(d, tensor_rows(c->acts.dx, 0, c->T), c->grad.head, scored(c, c->dlogp), scored(c, c->dentropy),
                   tensor_rows(c->acts.out, 0, c->T), scored(c, c->rows), c->model.head, scored(c, c->target),
                   scored(c, c->lse), scored(c, c->entropy), temperature);
    model_backward(d, &c->model, &c->grad, &c->acts, case_packed(c), c->told);
    d->sync(d);
}

// The value whose gradient case_backward gives.
static inline double case_loss(const ModelCase *c) {
    double loss = 0;
    for (int64_t n = 0; n < c->N; n++)
        loss += (double)f32(c->dlogp)[n] * f32(c->logp)[n] + (double)f32(c->dentropy)[n] * f32(c->entropy)[n];
    return loss;
}
