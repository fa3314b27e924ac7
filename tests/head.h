// Helpers of the head's tests: random tensors, relative error, threads.
#pragma once
#include "ops.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#ifdef _OPENMP
#include <omp.h>
#include <stdint.h>
#include <string.h>
#endif

static Device *dev;

static uint64_t rng_state = 1;
static inline float uniform(void) { // (-1, 1)
    rng_state = rng_state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(rng_state >> 40) / (1 << 23) - 1);
}
// Of NaN (whole numbers: -1): what an op has to write and does not shows.
static inline Tensor new_tensor(DType t, int64_t a, int64_t b) {
    Tensor x = tensor2(NULL, t, a, b);
    x.data = memset(xmalloc(tensor_bytes(x) + 1), 0xff, tensor_bytes(x) + 1);
    return x;
}
static inline Tensor new_zeros(DType t, int64_t a, int64_t b) {
    Tensor x = new_tensor(t, a, b);
    memset(x.data, 0, tensor_bytes(x));
    return x;
}
static inline Tensor new_random(DType t, int64_t a, int64_t b, float scale) {
    Tensor x = new_tensor(t, a, b);
    for (int64_t i = 0; i < a * b; i++) tensor_set(x, i, scale * uniform());
    return x;
}
// ||x - ref|| / ||ref||
static inline double relative(Tensor x, const double *ref) {
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < tensor_numel(x); i++) {
        double e = tensor_get(x, i) - ref[i];
        diff += e * e;
        norm += ref[i] * ref[i];
    }
    return sqrt(diff / (norm > 0 ? norm : 1));
}
static inline void assert_device_well(void) {
    dev->sync(dev);
    if (dev->error[0]) fail_msg("%s: %s", dev->name, dev->error);
}
// Ways to cut rows into batches: the rows of the batch that begins at row i of n. The first way has a batch for each of
// a GPU's tiles; the CPU does the others too.
static inline int64_t batch_at(int way, int64_t i, int64_t n) {
    static const int64_t every[] = {0, 1, 2, 7, 70};
    int64_t size = way ? every[way] : i < 1 ? 1 : i < 8 ? 7 : i < 30 ? 22 : 40;
    return n - i < size ? n - i : size;
}
static inline int batchings(void) { return strcmp(dev->name, "cpu") ? 1 : 5; }
// Threads matter to the CPU only.
static inline int most_threads(void) { return strcmp(dev->name, "cpu") ? 1 : 3; }
static inline void set_threads(int n) {
#ifdef _OPENMP
    omp_set_num_threads(n);
#endif
}
