// Matrix products: those of Qwen2.5-0.5B, forward and backward, for 512 tokens, and forward for 32 and for one. On a
// GPU the backward ones thrice: as a run makes them, by the library alone and by wgmma alone.
#include "bench.h"
#include "floor.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRED 0.3                 // of the probe; less fails the benchmark
#define TILES    0.15                // the same of tile registers, which wait for memory: oneDNN reaches 0.19 to 0.33
#define MANY     ((int64_t)96 << 20) // bytes of weights in rotation, six times for few tokens: more than caches hold

typedef struct {
    Device *d;
    int64_t M, N, K, copies;
    Tensor x, w, y, dx, dw; // [M,K] [copies*N,K] [M,N] [M,K] [N,K]
} Product;

static Tensor weights(const Product *p, int i) { return tensor_rows(p->w, i % p->copies * p->N, p->N); }
static void forward(void *arg, int i) {
    Product *p = arg;
    p->d->matmul(p->d, p->y, p->x, weights(p, i));
}
static void forward_swiglu(void *arg, int i) { // y is large enough for either half
    Product *p = arg;
    p->d->matmul_swiglu(p->d, tensor2(p->y.data, p->y.dtype, p->M, p->N / 2), NONE, p->x, weights(p, i));
}
static void backward_x(void *arg, int i) {
    Product *p = arg;
    p->d->matmul_bwd(p->d, p->dx, NONE, p->y, p->x, weights(p, i));
}
static void backward_w(void *arg, int i) {
    Product *p = arg;
    p->d->matmul_bwd(p->d, NONE, p->dw, p->y, p->x, weights(p, i));
}

// Whether backward products go by wgmma where they are asked to; a line says why not.
static bool wgmma_there(const Bench *b) {
    char line[VARIANT_LINE];
    for (int i = 0; b->device->variant(b->device, i, line); i++)
        if (!strncmp(line, "products for gradients", 22)) {
            if (strstr(line, ": used")) return true;
            printf("SKIP %s\n", line);
            return false;
        }
    return false;
}

static Tensor filled(Device *d, DType t, int64_t rows, int64_t cols) {
    Tensor x = tensor2(NULL, t, rows, cols);
    x.data = d->alloc(d, tensor_bytes(x));
    if (!x.data) die("bench: no memory");
    uint32_t u = 1;
    Tensor host = x;
    host.data = xmalloc(tensor_bytes(x));
    for (int64_t i = 0; i < rows * cols; i++) {
        u = u * 1664525u + 1013904223u;
        tensor_set(host, i, (float)(int32_t)u * 0x1p-31f);
    }
    d->copy(d, x.data, host.data, tensor_bytes(x));
    d->sync(d);
    free(host.data);
    return x;
}

// Seconds of one product; by the library, the best of as many of its proposals as are asked for.
static double timed(Bench *b, void (*fn)(void *, int), Product *p, Products who, int proposals) {
    double best = INFINITY;
    p->d->products = who;
    for (p->d->proposal = 0; p->d->proposal < proposals; p->d->proposal++) best = fmin(best, bench_time_ops(b, fn, p));
    p->d->products = PRODUCTS_CHOSEN, p->d->proposal = 0;
    return best;
}

static void measure(Bench *b, const char *layer, DType t, int64_t M, int64_t N, int64_t K, bool wgmma) {
    static const struct {
        const char *name;
        void (*fn)(void *, int);
        Products who;
        int proposals;
    } way[] = {{"", forward, PRODUCTS_CHOSEN, 1},
               {" + swiglu", forward_swiglu, PRODUCTS_CHOSEN, 1},
               {" dx", backward_x, PRODUCTS_CHOSEN, 1},
               {" dw", backward_w, PRODUCTS_CHOSEN, 1},
               {" dx by cuBLASLt", backward_x, PRODUCTS_LIBRARY, 8},
               {" dw by cuBLASLt", backward_w, PRODUCTS_LIBRARY, 8},
               {" dx by wgmma", backward_x, PRODUCTS_OWN, 1},
               {" dw by wgmma", backward_w, PRODUCTS_OWN, 1}};
    Device *d = b->device;
    Product p = {.d = d, .M = M, .N = N, .K = K};
    const bool tiles = t == BF16 && b->probe.bf16_unit && !strncmp(b->probe.bf16_unit, "tile", 4);
    double limit = t == F32 ? b->probe.f32 : b->probe.bf16, required = b->gpu ? 0 : tiles ? TILES : REQUIRED;
    int ways = M < 512 ? 2 : !b->gpu ? 4 : wgmma ? 8 : 6; // decoding has no backward pass
    bool ready = false;
    for (int i = 0; i < ways; i++) {
        char name[96];
        const bool swiglu = way[i].fn == forward_swiglu; // on a CPU it is two ops
        if (swiglu && (!b->gpu || strcmp(layer, "gate_up") != 0)) continue;
        snprintf(name, sizeof name, "matmul %s%s [%lld,%lld,%lld] %s", layer, way[i].name, (long long)M, (long long)N,
                 (long long)K, dtype_name(t));
        if (!bench_wants(b, name)) continue;
        double flop = 2.0 * (double)(M * N * K);
        double bytes = (double)(N * K + (b->gpu ? M * (K + (swiglu ? N / 2 : N)) : 0)) *
                       (double)dtype_size(t); // dw's f32 is left out
        if (b->floors) {
            bench_row_floor(b, name, bytes, flop, t);
            continue;
        }
        if (!ready) {
            p.copies = MANY * (b->gpu || M < 512 ? 6 : 1) / (N * K * (int64_t)dtype_size(t)) + 1;
            p.x = filled(d, t, M, K);
            p.w = filled(d, t, p.copies * N, K);
            p.y = filled(d, t, M, N);
            p.dx = filled(d, t, M, K);
            p.dw = filled(d, F32, N, K);
            ready = true;
        }
        double s = timed(b, way[i].fn, &p, way[i].who, way[i].proposals);
        // Below the required share it is measured twice more: on a busy machine another program may have slowed it.
        for (int again = 0; M >= 512 && flop / s * 1e-9 < required * limit && again < 2; again++)
            s = fmin(s, bench_time_ops(b, way[i].fn, &p));
        if (b->gpu) bench_row_time(b, name, s * 1e6, "us", floor_of(bytes, flop, b->probe.read, limit) * 1e-3);
        else if (M < 512) bench_row(b, name, bytes / s * 1e-9, "GB/s", b->probe.read, 0);
        else bench_row(b, name, flop / s * 1e-9, "GFLOP/s", limit, required);
    }
    Tensor all[] = {p.x, p.w, p.y, p.dx, p.dw};
    for (int i = 0; ready && i < 5; i++) d->free(d, all[i].data, tensor_bytes(all[i]));
}

void bench_products(Bench *b) {
    static const struct {
        const char *layer;
        int64_t N, K;
    } shape[] = {{"qkv", 1152, 896}, {"o", 896, 896}, {"gate_up", 9728, 896}, {"down", 896, 4864}};
    static const int64_t few[] = {512, 32, 1, 0}, many[] = {8192, 256, 8, 0};
    bench_section(b, "matrix products of 0.5B [tokens, out, in]");
    peer_run(b, b->gpu ? "torch_cuda.py" : "torch_cpu.py", "products");
    bool wgmma = b->floors || (b->gpu && wgmma_there(b));
    for (int t = b->gpu ? BF16 : F32; t <= BF16; t++)
        for (const int64_t *M = b->gpu ? many : few; *M; M++)
            for (int i = 0; i < 4; i++) measure(b, shape[i].layer, (DType)t, *M, shape[i].N, shape[i].K, wgmma);
}
