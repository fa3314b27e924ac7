// Qwen2.5: the parameter table, and the transformer as plain calls on a Device.
#include "error.h"
#include "model.h"
#include <stdio.h>
#include <stdlib.h>

// clang-format off
const ParamSpec qwen2_params[] = {
    // name                                              rows    cols      layer  decay  joined untied init
    {"model.embed_tokens.weight",                        SYM_V,  SYM_D,    false, true,  false, false, 0.02f},
    {"lm_head.weight",                                   SYM_V,  SYM_D,    false, true,  false, true,  0.02f},
    {"model.layers.%d.self_attn.q_proj.weight",          SYM_HD, SYM_D,    true,  true,  false, false, 0.02f},
    {"model.layers.%d.self_attn.k_proj.weight",          SYM_KD, SYM_D,    true,  true,  true,  false, 0.02f},
    {"model.layers.%d.self_attn.v_proj.weight",          SYM_KD, SYM_D,    true,  true,  true,  false, 0.02f},
    {"model.layers.%d.self_attn.o_proj.weight",          SYM_D,  SYM_HD,   true,  true,  false, false, 0.02f},
    {"model.layers.%d.mlp.gate_proj.weight",             SYM_F,  SYM_D,    true,  true,  false, false, 0.02f},
    {"model.layers.%d.mlp.up_proj.weight",               SYM_F,  SYM_D,    true,  true,  true,  false, 0.02f},
    {"model.layers.%d.mlp.down_proj.weight",             SYM_D,  SYM_F,    true,  true,  false, false, 0.02f},
    {"model.layers.%d.input_layernorm.weight",           SYM_D,  SYM_NONE, true,  false, false, false, -1},
    {"model.layers.%d.self_attn.q_proj.bias",            SYM_HD, SYM_NONE, true,  false, false, false, 0},
    {"model.layers.%d.self_attn.k_proj.bias",            SYM_KD, SYM_NONE, true,  false, true,  false, 0},
    {"model.layers.%d.self_attn.v_proj.bias",            SYM_KD, SYM_NONE, true,  false, true,  false, 0},
    {"model.layers.%d.post_attention_layernorm.weight",  SYM_D,  SYM_NONE, true,  false, false, false, -1},
    {"model.norm.weight",                                SYM_D,  SYM_NONE, false, false, false, false, -1},
};
// clang-format on
const int qwen2_param_rows = sizeof qwen2_params / sizeof *qwen2_params;

static int64_t symbol(ModelDims n, Sym s) {
    switch (s) {
    case SYM_NONE: return 1;
    case SYM_V: return n.V;
    case SYM_D: return n.D;
    case SYM_F: return n.F;
    case SYM_HD: return (int64_t)n.H * n.d;
    case SYM_KD: return (int64_t)n.K * n.d;
    }
    die("unknown symbol %d", s);
}

// Calls visit(spec, layer) for every parameter in slab order: neighbouring per-layer rows repeat together.
static void walk(ModelDims n, void (*visit)(const ParamSpec *, int, void *), void *arg) {
    for (int i = 0; i < qwen2_param_rows;) {
        int end = i + 1;
        while (end < qwen2_param_rows && qwen2_params[i].per_layer && qwen2_params[end].per_layer &&
               qwen2_params[end].decay == qwen2_params[i].decay)
            end++;
        for (int l = 0; l < (qwen2_params[i].per_layer ? n.L : 1); l++)
            for (int r = i; r < end; r++)
                if (!qwen2_params[r].untied_only || !n.tied) visit(&qwen2_params[r], l, arg);
        i = end;
    }
}

typedef struct {
    ModelDims dims;
    int64_t count;
} Counting;

static void count_param(const ParamSpec *s, int layer, void *arg) {
    Counting *c = arg;
    c->count += symbol(c->dims, s->rows) * symbol(c->dims, s->cols);
}

int64_t model_param_count(ModelDims dims) {
    Counting c = {dims, 0};
    walk(dims, count_param, &c);
    return c.count;
}

static int64_t align_elements(int64_t n) { return (n + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN; }

static void place_param(const ParamSpec *s, int layer, void *arg) {
    Model *m = arg;
    Param *p = &m->params[m->n_params++];
    int64_t end = m->slab.dim[0];
    p->spec = s;
    p->offset = s->joined ? end : align_elements(end);
    snprintf(p->name, sizeof p->name, s->name, layer);
    int64_t rows = symbol(m->dims, s->rows), cols = symbol(m->dims, s->cols);
    p->t = s->cols == SYM_NONE ? tensor1(NULL, m->dtype, rows) : tensor2(NULL, m->dtype, rows, cols);
    m->slab.dim[0] = p->offset + rows * cols;
    if (s->decay) m->n_decay = align_elements(m->slab.dim[0]);
}

// A parameter by its name in the table; `rows` of it and of those joined to it.
static Tensor view(const Model *m, const char *pattern, int layer, int64_t rows) {
    char name[64];
    snprintf(name, sizeof name, pattern, layer);
    const Param *p = model_param(m, name);
    if (!p) die("no parameter %s", name);
    Tensor t = p->t;
    t.dim[0] = rows;
    return t;
}

static void name_views(Model *m) {
    ModelDims n = m->dims;
    int64_t wide = (int64_t)(n.H + 2 * n.K) * n.d;
    m->layer = xcalloc((size_t)n.L, sizeof *m->layer);
    for (int l = 0; l < n.L; l++)
        m->layer[l] = (Layer){
            .norm1_w = view(m, "model.layers.%d.input_layernorm.weight", l, n.D),
            .qkv_w = view(m, "model.layers.%d.self_attn.q_proj.weight", l, wide),
            .qkv_b = view(m, "model.layers.%d.self_attn.q_proj.bias", l, wide),
            .o_w = view(m, "model.layers.%d.self_attn.o_proj.weight", l, n.D),
            .norm2_w = view(m, "model.layers.%d.post_attention_layernorm.weight", l, n.D),
            .gate_up_w = view(m, "model.layers.%d.mlp.gate_proj.weight", l, 2 * n.F),
            .down_w = view(m, "model.layers.%d.mlp.down_proj.weight", l, n.D),
        };
    m->embedding = view(m, "model.embed_tokens.weight", 0, n.V);
    m->head = n.tied ? m->embedding : view(m, "lm_head.weight", 0, n.V);
    m->final_norm = view(m, "model.norm.weight", 0, n.D);
}

Model model_carve(Arena *a, ModelDims dims, DType dtype) {
    Model m = {.dims = dims, .dtype = dtype, .slab = tensor1(NULL, dtype, 0)};
    m.params = xcalloc((size_t)(qwen2_param_rows * (dims.L + 1)), sizeof *m.params);
    walk(dims, place_param, &m);
    m.slab.dim[0] = align_elements(m.slab.dim[0]);
    m.slab = arena_new(a, dtype, m.slab.dim[0]);
    for (int i = 0; i < m.n_params && present(m.slab); i++)
        m.params[i].t.data = (char *)m.slab.data + (size_t)m.params[i].offset * dtype_size(dtype);
    name_views(&m);
    return m;
}

void model_free(Model *m) {
    free(m->params);
    free(m->layer);
    *m = (Model){0};
}

const Param *model_param(const Model *m, const char *name) {
    for (int i = 0; i < m->n_params; i++)
        if (!strcmp(m->params[i].name, name)) return &m->params[i];
    return NULL;
}

// Intermediates of one layer but its norms' and swiglu's outputs.
static LayerActs carve_layer(Arena *a, ModelDims n, DType t, int64_t T) {
    return (LayerActs){
        .res1 = arena_new(a, t, T, n.D),
        .rstd1 = arena_new(a, F32, T),
        .qkv = arena_new(a, t, T, n.H + 2 * n.K, n.d),
        .att = arena_new(a, t, T, n.H, n.d),
        .lse = arena_new(a, F32, T, n.H),
        .res2 = arena_new(a, t, T, n.D),
        .rstd2 = arena_new(a, F32, T),
        .gate_up = arena_new(a, t, T, 2 * n.F),
    };
}

Activations activations_carve(Arena *a, ModelDims n, DType t, int64_t T, Keep keep) {
    Activations x = {.capacity = T, .keep = keep};
    x.layer = xcalloc((size_t)n.L, sizeof *x.layer);
    Tensor norm1 = NONE, norm2 = NONE, mlp = NONE;
    for (int l = 0; l < n.L; l++) {
        x.layer[l] = keep >= KEEP_PRODUCTS || l == 0 ? carve_layer(a, n, t, T) : x.layer[0];
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

// The first T rows of every intermediate of a layer.
static LayerActs first_rows(LayerActs x, int64_t T) {
    Tensor *t[] = {&x.res1, &x.norm1, &x.rstd1, &x.qkv,     &x.att, &x.lse,
                   &x.res2, &x.norm2, &x.rstd2, &x.gate_up, &x.mlp};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) *t[i] = tensor_rows(*t[i], 0, T);
    return x;
}

// What differs between packed sequences and one-token decode: where attention finds its keys.
typedef struct {
    Tensor ids, pos;   // [T]
    Tensor seq;        // [B+1], packed; NONE: decode
    Tensor prefix;     // [B]?, packed
    Tensor span;       // [T,4], decode
    const KvCache *kv; // may be NULL when packed
    Tensor kv_row;     // [T] where each token's keys and values are stored
} Input;

static Input packed_input(Packed in) {
    return (Input){.ids = in.ids, .pos = in.pos, .seq = in.seq, .prefix = in.prefix};
}

// The profiler's range of a layer.
static void range_layer(Device *d, const char *pass, int l) {
    char name[32];
    if (!d->range) return;
    snprintf(name, sizeof name, "%s %d", pass, l);
    d->range(d, name);
}

// Layer l as far as its backward pass needs it, the last product left out. It begins with the residual stream res[T,D] and
// what the block before adds to it (NONE: it is whole).
static void layer_forward(Device *d, const Model *m, const Activations *acts, int l, Tensor res, Tensor add, Input in) {
    ModelDims n = m->dims;
    const Layer w = m->layer[l];
    int64_t T = in.ids.dim[0];
    LayerActs a = first_rows(acts->layer[l], T);
    Tensor block = tensor_rows(acts->block, 0, T);
    Tensor cache = in.kv ? kv_layer(in.kv, l) : NONE; // [R,2K,d]

    d->rmsnorm(d, a.norm1, present(add) ? a.res1 : NONE, a.rstd1, res, add, w.norm1_w, n.rms_eps);
    d->matmul(d, tensor2(a.qkv.data, a.qkv.dtype, T, tensor_width(a.qkv)), a.norm1, w.qkv_w);
    d->rope(d, a.qkv, w.qkv_b, in.pos, n.rope_theta, n.K, cache, in.kv_row);
    if (present(in.seq)) d->attention(d, a.att, a.lse, a.qkv, in.seq, in.prefix, n.K);
    else d->decode(d, a.att, a.qkv, cache, in.span, n.K);
    d->matmul(d, block, tensor2(a.att.data, a.att.dtype, T, tensor_width(a.att)), w.o_w);

    d->rmsnorm(d, a.norm2, a.res2, a.rstd2, a.res1, block, w.norm2_w, n.rms_eps);
    d->matmul(d, a.gate_up, a.norm2, w.gate_up_w);
    d->swiglu(d, a.mlp, a.gate_up);
}

// The transformer, once: training, prefill and decode all run these lines. Leaves acts->out[T,D].
static void transformer(Device *d, const Model *m, Activations *acts, Input in) {
    ModelDims n = m->dims;
    int64_t T = in.ids.dim[0];
    if (T > acts->capacity) die("%lld tokens in activations for %lld", (long long)T, (long long)acts->capacity);
    Tensor block = tensor_rows(acts->block, 0, T); // [T,D] what the next residual add takes
    Tensor res = first_rows(acts->layer[0], T).res1;
    d->embed(d, res, m->embedding, in.ids);
    for (int l = 0; l < n.L; l++) {
        range_layer(d, "layer", l);
        layer_forward(d, m, acts, l, res, l ? block : NONE, in);
        d->matmul(d, block, tensor_rows(acts->layer[l].mlp, 0, T), m->layer[l].down_w);
        res = tensor_rows(acts->layer[l].res2, 0, T);
        device_range(d, NULL);
    }
    d->rmsnorm(d, tensor_rows(acts->out, 0, T), tensor_rows(acts->final_res, 0, T), tensor_rows(acts->final_rstd, 0, T),
               res, block, m->final_norm, n.rms_eps);
}

void model_forward(Device *d, const Model *m, Activations *acts, Packed in, const KvCache *cache, Tensor kv_row) {
    Input input = packed_input(in);
    input.kv = cache;
    input.kv_row = kv_row;
    transformer(d, m, acts, input);
}

void model_decode(Device *d, const Model *m, Activations *acts, Tensor ids, Tensor pos, const KvCache *cache,
                  Tensor kv_row, Tensor span) {
    transformer(d, m, acts, (Input){.ids = ids, .pos = pos, .span = span, .kv = cache, .kv_row = kv_row});
}

void model_backward(Device *d, const Model *m, Model *grad, Activations *acts, Packed in) {
    ModelDims n = m->dims;
    int64_t T = in.ids.dim[0];
    Input input = packed_input(in);
    if (!acts->keep) die("a backward pass needs kept activations");
    Tensor dx = tensor_rows(acts->dx, 0, T);             // [T,D] gradient of a norm's output
    Tensor dres = tensor_rows(acts->dres, 0, T);         // [T,D] gradient of the residual stream
    Tensor dgate_up = tensor_rows(acts->dgate_up, 0, T); // [T,2F]
    Tensor dmlp = tensor_rows(acts->dmlp, 0, T);         // [T,F]
    Tensor dqkv = tensor_rows(acts->dqkv, 0, T);         // [T,H+2K,d]
    Tensor datt = tensor_rows(acts->datt, 0, T);         // [T,H,d]
    Tensor dqkv_flat = tensor2(dqkv.data, dqkv.dtype, T, tensor_width(dqkv));
    Tensor datt_flat = tensor2(datt.data, datt.dtype, T, tensor_width(datt));

    d->rmsnorm_bwd(d, dres, grad->final_norm, NONE, dx, tensor_rows(acts->final_res, 0, T),
                   tensor_rows(acts->final_rstd, 0, T), m->final_norm);
    for (int l = n.L - 1; l >= 0; l--) {
        const Layer w = m->layer[l], dw = grad->layer[l];
        LayerActs a = first_rows(acts->layer[l], T);
        Tensor att_flat = tensor2(a.att.data, a.att.dtype, T, tensor_width(a.att));

        range_layer(d, "backward of layer", l);
        // The last layer's are still there.
        if (acts->keep == KEEP_RESIDUALS && l < n.L - 1) layer_forward(d, m, acts, l, a.res1, NONE, input);
        if (acts->keep == KEEP_PRODUCTS) d->swiglu(d, a.mlp, a.gate_up);
        d->matmul_bwd(d, dmlp, dw.down_w, dres, a.mlp, w.down_w);
        d->swiglu_bwd(d, dgate_up, dmlp, a.gate_up);
        if (acts->keep == KEEP_PRODUCTS) d->rmsnorm(d, a.norm2, NONE, a.rstd2, a.res2, NONE, w.norm2_w, n.rms_eps);
        d->matmul_bwd(d, dx, dw.gate_up_w, dgate_up, a.norm2, w.gate_up_w);
        d->rmsnorm_bwd(d, dres, dw.norm2_w, dres, dx, a.res2, a.rstd2, w.norm2_w);

        d->matmul_bwd(d, datt_flat, dw.o_w, dres, att_flat, w.o_w);
        d->attention_bwd(d, dqkv, datt, a.att, a.lse, a.qkv, in.seq, in.prefix, n.K);
        d->rope_bwd(d, dqkv, dw.qkv_b, in.pos, n.rope_theta, n.K);
        if (acts->keep == KEEP_PRODUCTS) d->rmsnorm(d, a.norm1, NONE, a.rstd1, a.res1, NONE, w.norm1_w, n.rms_eps);
        d->matmul_bwd(d, dx, dw.qkv_w, dqkv_flat, a.norm1, w.qkv_w);
        d->rmsnorm_bwd(d, dres, dw.norm1_w, dres, dx, a.res1, a.rstd1, w.norm1_w);
        device_range(d, NULL);
    }
    d->embed_bwd(d, grad->embedding, dres, in.ids, n.padded ? n.pad : -1);
}
