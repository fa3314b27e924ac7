// A random start. Element i of parameter p is a function of (seed, p, i) alone: the same at any thread count, in any
// layout, in any dtype up to rounding.
#include "host.h"
#include <math.h>

// A hash of a 64-bit counter: the output function of SplitMix64 (Steele, Lea, Flood 2014).
static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

// Two normal numbers from one hash of 64 bits (Box and Muller 1958): 32 bits for the radius, 32 for the angle. The
// largest value there is is sqrt(-2 ln 2^-33) = 6.8.
static void normal_pair(uint64_t bits, float *a, float *b) {
    float u = ((float)(uint32_t)(bits >> 32) + 0.5f) * 0x1p-32f,
          angle = (float)(uint32_t)bits * (0x1p-31f * (float)M_PI);
    float radius = sqrtf(-2 * logf(u));
    *a = radius * cosf(angle);
    *b = radius * sinf(angle);
}

static void fill_normal(Tensor x, uint64_t key, float stddev) {
    int64_t n = tensor_numel(x);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += 2) {
        float value[2];
        normal_pair(mix(key + (uint64_t)(i / 2 + 1) * 0x9e3779b97f4a7c15u), &value[0], &value[1]);
        tensor_set(x, i, stddev * value[0]);
        if (i + 1 < n) tensor_set(x, i + 1, stddev * value[1]);
    }
}

void model_init_random(Model *m, uint64_t seed) {
    for (int p = 0; p < m->n_params; p++) {
        Tensor x = m->params[p].t;
        float init = m->params[p].spec->init;
        if (init > 0) fill_normal(x, mix(mix(seed) ^ (uint64_t)p), init);
        else
            for (int64_t i = 0; i < tensor_numel(x); i++) tensor_set(x, i, init < 0 ? 1 : 0);
    }
}
