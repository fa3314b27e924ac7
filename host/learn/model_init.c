// A random start. Element i of parameter p is a function of (seed, p, i) alone: the same at any thread count, in any
// layout, in any dtype up to rounding.
#include "model_init.h"
#include "error.h"
#include "random.h"
#include "staging.h"
#include <math.h>
#include <stdlib.h>

// Two normal numbers from one hash of 64 bits (Box and Muller 1958): 32 bits for the radius, 32 for the angle. The
// largest value there is is sqrt(-2 ln 2^-33) = 6.8.
static void normal_pair(uint64_t bits, float *a, float *b) {
    float u = ((float)(uint32_t)(bits >> 32) + 0.5f) * 0x1p-32f,
          angle = (float)(uint32_t)bits * (0x1p-31f * (float)M_PI);
    float radius = sqrtf(-2 * logf(u));
    *a = radius * cosf(angle);
    *b = radius * sinf(angle);
}

// Elements first .. first + n, first an even number, of a parameter's normal numbers.
static void fill_normal(Tensor x, int64_t first, uint64_t key, float stddev) {
    int64_t n = tensor_numel(x);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += 2) {
        float value[2];
        normal_pair(random_mix(key + (uint64_t)((first + i) / 2 + 1) * RANDOM_STEP), &value[0], &value[1]);
        tensor_set(x, i, stddev * value[0]);
        if (i + 1 < n) tensor_set(x, i + 1, stddev * value[1]);
    }
}

static void fill(Tensor x, int64_t first, uint64_t key, float init) {
    if (init > 0) fill_normal(x, first, key, init);
    else
        for (int64_t i = 0; i < tensor_numel(x); i++) tensor_set(x, i, init < 0 ? 1 : 0);
}

void model_init_param(Device *d, Model *m, int p, uint64_t seed) {
    enum { BLOCK = 1 << 20 }; // elements drawn at a time where they go elsewhere
    void *room = on_host(d) ? NULL : xmalloc(BLOCK * sizeof(float));
    Tensor x = m->params[p].t, flat = tensor1(x.data, x.dtype, tensor_numel(x));
    float init = m->params[p].spec->init;
    uint64_t key = random_mix(random_mix(seed) ^ (uint64_t)p);
    if (!room) fill(flat, 0, key, init);
    for (int64_t first = 0; room && first < flat.dim[0]; first += BLOCK) {
        Tensor to = tensor_rows(flat, first, flat.dim[0] - first < BLOCK ? flat.dim[0] - first : BLOCK), block = to;
        block.data = room;
        fill(block, first, key, init);
        d->copy(d, to.data, room, tensor_bytes(to));
    }
    free(room);
}

void model_init_random(Device *d, Model *m, uint64_t seed) {
    for (int p = 0; p < m->n_params; p++) model_init_param(d, m, p, seed);
}

void adapter_init_random(Device *d, Adapter *a, uint64_t seed, bool gaussian) {
    float *room = xmalloc(tensor_bytes(a->slab));
    for (int p = 0; p < a->n_params; p++) {
        Tensor x = a->params[p].t;
        if (!strstr(a->params[p].name, ".lora_A.")) continue;
        uint64_t key = random_mix(random_mix(seed) ^ (uint64_t)p ^ (uint64_t)1 << 32); // apart from the model's
        float bound = 1 / sqrtf((float)x.dim[1]);
        if (gaussian) fill_normal(tensor1(room, F32, tensor_numel(x)), 0, key, 1 / (float)a->spec.rank);
        for (int64_t i = 0; i < tensor_numel(x) && !gaussian; i++) {
            uint32_t bits = (uint32_t)(random_mix(key + (uint64_t)(i + 1) * RANDOM_STEP) >> 40); // 24 of them
            room[i] = bound * (((float)bits + 0.5f) * 0x1p-23f - 1);
        }
        d->copy(d, x.data, room, tensor_bytes(x));
    }
    d->sync(d);
    free(room);
}
