// An adapter as its spec says, beside a model's dims: carved out of memory, its parameters by PEFT's names and as a
// product sees them.
#include "error.h"
#include "model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TARGET_NAME(name, block, product) #name,
const char *const lora_target_names[N_TARGETS] = {LORA_TARGETS(TARGET_NAME)};
#define TARGET_PLACE(name, block, product) {block, product},
static const struct {
    const char *block;
    LayerProduct product;
} place[N_TARGETS] = {LORA_TARGETS(TARGET_PLACE)};

float adapter_scale(const AdapterSpec *s) { return (float)(s->alpha / (s->rslora ? sqrt(s->rank) : s->rank)); }

bool adapter_spec_equal(const AdapterSpec *a, const AdapterSpec *b) {
    return a->rank == b->rank && adapter_scale(a) == adapter_scale(b) &&
           !memcmp(a->target, b->target, sizeof a->target) && a->scores == b->scores;
}

// Columns of the input and of the output of a projection.
static void projection(ModelDims n, int target, int64_t *in, int64_t *out) {
    int64_t heads = (int64_t)n.H * n.d, kv = (int64_t)n.K * n.d;
    *in = target == TARGET_o_proj ? heads : target == TARGET_down_proj ? n.F : n.D;
    switch (target) {
    case TARGET_q_proj: *out = heads; break;
    case TARGET_k_proj:
    case TARGET_v_proj: *out = kv; break;
    case TARGET_gate_proj:
    case TARGET_up_proj: *out = n.F; break;
    default: *out = n.D;
    }
}

static Tensor add_param(Adapter *a, const char *half, int layer, int target, int64_t cols) {
    Param *p = &a->params[a->n_params++];
    p->offset = a->slab.dim[0];
    p->layer = layer;
    snprintf(p->name, sizeof p->name, "base_model.model.model.layers.%d.%s.%s.%s.weight", layer, place[target].block,
             lora_target_names[target], half);
    p->t = tensor2(NULL, F32, a->spec.rank, cols);
    a->slab.dim[0] += a->spec.rank * cols;
    return p->t;
}

// The projections of one product: all their A, then all their B.
static ProductAdapter add_product(Adapter *a, ModelDims n, int layer, LayerProduct product) {
    ProductAdapter p = {.a = NONE, .b = NONE};
    int64_t in = 0, out, rows = 0, elements = 0;
    p.out = (LowRank){.rank = a->spec.rank, .scale = adapter_scale(&a->spec)};
    for (int t = 0; t < N_TARGETS; t++) {
        if (place[t].product != product) continue;
        projection(n, t, &in, &out);
        p.out.width[p.out.n] = out;
        p.out.low[p.out.n++] = a->spec.target[t];
        if (!a->spec.target[t]) continue;
        rows += add_param(a, "lora_A", layer, t, in).dim[0];
        elements += a->spec.rank * out;
    }
    for (int t = 0; t < N_TARGETS; t++) {
        projection(n, t, &in, &out);
        if (place[t].product == product && a->spec.target[t]) add_param(a, "lora_B", layer, t, out);
    }
    projection(n,
               product == PRODUCT_O      ? TARGET_o_proj
               : product == PRODUCT_DOWN ? TARGET_down_proj
                                         : TARGET_q_proj,
               &in, &out);
    p.in = (LowRank){.n = 1, .rank = (int)rows, .width = {in}, .low = {true}, .scale = 1};
    p.a = tensor2(NULL, F32, rows, in), p.b = tensor1(NULL, F32, elements);
    return p;
}

static Tensor add_head(Adapter *a, int64_t D, int layer) {
    Param *p = &a->params[a->n_params++];
    *p = (Param){ADAPTER_HEAD, tensor2(NULL, F32, 1, D), a->slab.dim[0], NULL, layer};
    a->slab.dim[0] += D;
    return p->t;
}

Adapter *adapter_carve(Arena *arena, ModelDims n, const AdapterSpec *spec) {
    Adapter *a = xcalloc(1, sizeof *a);
    a->spec = *spec;
    a->slab = tensor1(NULL, F32, 0);
    a->params = xcalloc((size_t)(n.L * N_TARGETS * 2 + 1), sizeof *a->params);
    a->layer = xcalloc((size_t)n.L, sizeof *a->layer);
    for (int l = 0; l < n.L; l++)
        for (int k = 0; k < N_PRODUCTS; k++) a->layer[l][k] = add_product(a, n, l, (LayerProduct)k);
    a->head = spec->scores ? add_head(a, n.D, n.L) : NONE;
    a->slab = arena_new(arena, F32, a->slab.dim[0]);
    if (!present(a->slab)) return a;
    for (int i = 0; i < a->n_params; i++) a->params[i].t.data = f32(a->slab) + a->params[i].offset;
    float *at = a->slab.data;
    for (int l = 0; l < n.L; l++)
        for (int k = 0; k < N_PRODUCTS; k++) {
            ProductAdapter *p = &a->layer[l][k];
            if (!p->in.rank) continue;
            p->a.data = at;
            p->b.data = at + tensor_numel(p->a);
            at += tensor_numel(p->a) + tensor_numel(p->b);
        }
    if (spec->scores) a->head.data = at;
    return a;
}

void adapter_free(Adapter *a) {
    if (!a) return;
    free(a->params);
    free(a->layer);
    free(a);
}
