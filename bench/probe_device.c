// The probe of a GPU: a large copy, and large products by the fastest kernel there is.
#include "bench.h"
#include <stdlib.h>

typedef struct {
    Device *d;
    Tensor x, y, z; // [n,n]
    int kind;       // 0: copy; 1: our product; 2: cuBLASLt's, a backward one
} Work;

static void work(void *arg, int i) {
    Work *w = arg;
    Device *d = w->d;
    if (w->kind == 0) d->copy(d, w->y.data, w->x.data, tensor_bytes(w->x));
    if (w->kind == 1) d->matmul(d, w->y, w->x, w->z);
    if (w->kind == 2) {
        d->products = PRODUCTS_LIBRARY;
        d->matmul_bwd(d, w->x, NONE, w->y, w->x, w->z);
        d->products = PRODUCTS_CHOSEN;
    }
}

// Fills [n,n] with uniform numbers in (-1, 1), repeating one block of them: drawing them all would take too long.
static Tensor uniform(Device *d, DType t, int64_t n) {
    enum { BLOCK = 1 << 20 };
    Tensor block = tensor1(xmalloc(BLOCK * dtype_size(t)), t, BLOCK), x = tensor2(NULL, t, n, n);
    uint32_t u = 1;
    for (int64_t i = 0; i < BLOCK; i++) {
        u = u * 1664525u + 1013904223u;
        tensor_set(block, i, (float)(int32_t)u * 0x1p-31f);
    }
    x.data = d->alloc(d, tensor_bytes(x));
    if (!x.data) die("bench: no memory on the device for a matrix of %lld squared", (long long)n);
    for (size_t at = 0; at < tensor_bytes(x); at += tensor_bytes(block))
        d->copy(d, (char *)x.data + at, block.data,
                tensor_bytes(x) - at < tensor_bytes(block) ? tensor_bytes(x) - at : tensor_bytes(block));
    free(block.data);
    return x;
}

static double rate(const Bench *b, DType t, int64_t n, int kind) {
    Device *d = b->device;
    Work w = {d, uniform(d, t, n), uniform(d, t, n), uniform(d, t, n), kind};
    double amount = kind ? 2.0 * (double)n * (double)n * (double)n : 2 * (double)tensor_bytes(w.x);
    double seconds = bench_time(b, work, &w);
    Tensor all[] = {w.x, w.y, w.z};
    for (int i = 0; i < 3; i++) d->free(d, all[i].data, tensor_bytes(all[i]));
    return amount / seconds * 1e-9;
}

static double best_product(const Bench *b, DType t, int64_t n) {
    double own = rate(b, t, n, 1), theirs = rate(b, t, n, 2);
    return own > theirs ? own : theirs;
}

Probe probe_device(const Bench *b) {
    if (b->iterations) return (Probe){0};
    return (Probe){
        .read = rate(b, F32, 16384, 0), .f32 = best_product(b, F32, 4096), .bf16 = best_product(b, BF16, 8192)};
}
