// Lays out the memory of a forward pass (the intermediates that the backward pass needs) and the cache of keys and
// values.
#include "error.h"
#include "model.h"
#include <stdlib.h>

static bool has_head_norms(ModelDims n) {
    for (int i = 0; i < n.family->n_params; i++)
        if (n.family->params[i].rows == SYM_HEAD) return true;
    return false;
}

// Lays out the intermediates of one layer, except the outputs of its norms and of swiglu.
static LayerActs carve_layer(Arena *a, ModelDims n, DType t, int64_t T, Keep keep) {
    return (LayerActs){
        .res1 = arena_new(a, t, T, n.D),
        .rstd1 = arena_new(a, F32, T),
        .qkv = arena_new(a, t, T, n.H + 2 * n.K, n.d),
        .heads = keep && has_head_norms(n) ? arena_new(a, t, T, n.H + n.K, n.d) : NONE,
        .att = arena_new(a, t, T, n.H, n.d),
        .lse = arena_new(a, F32, T, n.H),
        .res2 = arena_new(a, t, T, n.D),
        .rstd2 = arena_new(a, F32, T),
        .gate_up = keep || n.low_rank ? arena_new(a, t, T, 2 * n.F) : NONE,
    };
}

// Takes the memory that an adapter's products need.
static void carve_low(Activations *x, Arena *a, ModelDims n, DType t) {
    int64_t widest = (int64_t)(n.H + 2 * n.K) * n.d, rows = x->capacity < ADAPTER_ROWS ? x->capacity : ADAPTER_ROWS;
    if (widest < 2 * n.F) widest = 2 * n.F;
    if (widest < n.D) widest = n.D;
    if (t != F32) x->full = arena_new(a, F32, rows, widest);
    x->low = arena_new(a, F32, x->capacity, 3 * n.low_rank);
    if (x->keep) x->dlow = arena_new(a, F32, x->capacity, 3 * n.low_rank);
}

Activations activations_carve(Arena *a, ModelDims n, DType t, int64_t T, Keep keep) {
    Activations x = {.capacity = T, .keep = keep};
    x.layer = xcalloc((size_t)n.L, sizeof *x.layer);
    Tensor norm1 = NONE, norm2 = NONE, mlp = NONE;
    for (int l = 0; l < n.L; l++) {
        x.layer[l] = keep >= KEEP_PRODUCTS || l == 0 ? carve_layer(a, n, t, T, keep) : x.layer[0];
        if (keep == KEEP_RESIDUALS && l > 0) x.layer[l].res1 = arena_new(a, t, T, n.D);
        if (l == 0 || keep == KEEP_ALL) {
            norm1 = arena_new(a, t, T, n.D);
            norm2 = arena_new(a, t, T, n.D);
            mlp = arena_new(a, t, T, n.F);
        }
        x.layer[l].norm1 = norm1;
        x.layer[l].norm2 = norm2;
        x.layer[l].mlp = mlp;
    }
    x.block = arena_new(a, t, T, n.D);
    x.final_res = arena_new(a, t, T, n.D);
    x.final_rstd = arena_new(a, F32, T);
    x.out = arena_new(a, t, T, n.D);
    if (n.low_rank) carve_low(&x, a, n, t);
    if (!keep) return x;
    x.dx = arena_new(a, t, T, n.D);
    x.dres = arena_new(a, t, T, n.D);
    x.dgate_up = arena_new(a, t, T, 2 * n.F);
    x.dmlp = arena_new(a, t, T, n.F);
    x.dqkv = arena_new(a, t, T, n.H + 2 * n.K, n.d);
    x.datt = arena_new(a, t, T, n.H, n.d);
    return x;
}

void activations_free(Activations *a) {
    free(a->layer);
    *a = (Activations){0};
}

KvCache kv_carve(Arena *a, ModelDims n, DType t, int64_t rows) {
    return (KvCache){arena_new(a, t, n.L, rows, 2 * n.K, n.d), rows};
}

Tensor kv_layer(const KvCache *c, int l) {
    Tensor x = c->kv;
    size_t bytes = (size_t)(x.dim[1] * x.dim[2] * x.dim[3]) * dtype_size(x.dtype);
    return tensor3((char *)x.data + (size_t)l * bytes, x.dtype, x.dim[1], x.dim[2], x.dim[3]);
}
