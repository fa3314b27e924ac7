// Builds a model from its family's table of parameters: counts them, carves them out of memory, and finds them by name
// or by layer.
#include "model.h"
#include "error.h"
#include <stdio.h>
#include <stdlib.h>

#define FAMILY_ENTRY(name) &name##_family,
static const Family *const families[] = {FAMILIES(FAMILY_ENTRY)};
enum { N_FAMILIES = sizeof families / sizeof *families };

const Family *family_find(const char *model_type) {
    for (int i = 0; i < N_FAMILIES; i++)
        if (!strcmp(families[i]->model_type, model_type)) return families[i];
    return NULL;
}

const char *family_names(void) {
    static char text[256];
    int n = 0;
    for (int i = 0; i < N_FAMILIES; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s%s (%s)", i ? ", " : "", families[i]->model_type,
                      families[i]->published);
    return text;
}

bool model_dims_equal(ModelDims a, ModelDims b) {
    return a.family == b.family && a.V == b.V && a.D == b.D && a.F == b.F && a.L == b.L && a.H == b.H && a.K == b.K &&
           a.d == b.d && a.tied == b.tied && a.scores == b.scores;
}

const char *model_dims_text(ModelDims n) {
    static char text[512];
    snprintf(text, sizeof text,
             "%s V=%d D=%d F=%d L=%d H=%d K=%d d=%d max_positions=%d eps=%.9g theta=%.9g tied=%d rope=%s factor=%.9g "
             "trained=%.9g low=%.9g high=%.9g fast=%.9g slow=%.9g scale=%.9g truncate=%d scores=%d",
             n.family->model_type, n.V, n.D, n.F, n.L, n.H, n.K, n.d, n.max_positions, (double)n.rms_eps,
             (double)n.rope.theta, n.tied, rope_type_names[n.rope.type], n.rope.factor, n.rope.trained, n.rope.low,
             n.rope.high, n.rope.fast, n.rope.slow, n.rope.scale, n.rope.truncate, n.scores);
    return text;
}

static int64_t symbol(ModelDims n, Sym s) {
    switch (s) {
    case SYM_NONE:
    case SYM_ONE: return 1;
    case SYM_V: return n.V;
    case SYM_D: return n.D;
    case SYM_F: return n.F;
    case SYM_HD: return (int64_t)n.H * n.d;
    case SYM_KD: return (int64_t)n.K * n.d;
    case SYM_HEAD: return n.d;
    }
    die("unknown symbol %d", s);
}

static bool has_param(ModelDims n, const ParamSpec *s) {
    return s->of == IN_SCORING ? n.scores : s->of != IN_UNTIED || (!n.tied && !n.scores);
}

// Calls visit(spec, layer) for every parameter in slab order: neighbouring per-layer rows repeat together.
static void walk(ModelDims n, void (*visit)(const ParamSpec *, int, void *), void *arg) {
    const ParamSpec *table = n.family->params;
    for (int i = 0; i < n.family->n_params;) {
        int end = i + 1;
        while (end < n.family->n_params && table[i].per_layer && table[end].per_layer &&
               table[end].decay == table[i].decay)
            end++;
        for (int l = 0; l < (table[i].per_layer ? n.L : 1); l++)
            for (int r = i; r < end; r++)
                if (has_param(n, &table[r])) visit(&table[r], l, arg);
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

double model_forward_flop(ModelDims n, double rows, double context, double head_rows) {
    double heads = (double)(n.H + 2 * n.K) * n.d, out = (double)n.H * n.d;
    double products = (double)n.L * n.D * (heads + out + 3.0 * n.F);
    double attention = 4.0 * n.L * out * (context + 1) / 2; // scores and values of half the square
    return rows * (2 * products + attention) + head_rows * 2 * n.D * n.V;
}

static int64_t align_elements(int64_t n) { return (n + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN; }

static void place_param(const ParamSpec *s, int layer, void *arg) {
    Model *m = arg;
    Param *p = &m->params[m->n_params++];
    int64_t end = m->slab.dim[0];
    p->spec = s;
    p->layer = s->per_layer ? layer : strcmp(s->name, "model.embed_tokens.weight") ? m->dims.L : -1;
    p->offset = s->joined ? end : align_elements(end);
    snprintf(p->name, sizeof p->name, s->name, layer);
    int64_t rows = symbol(m->dims, s->rows), cols = symbol(m->dims, s->cols);
    p->t = s->cols == SYM_NONE ? tensor1(NULL, m->dtype, rows) : tensor2(NULL, m->dtype, rows, cols);
    m->slab.dim[0] = p->offset + rows * cols;
    if (s->decay) m->n_decay = align_elements(m->slab.dim[0]);
}

// The parameter with this name in the table, as a tensor of `rows` rows: its own and those of the parameters joined to
// it. NONE where the family has no such parameter.
static Tensor view(const Model *m, const char *pattern, int layer, int64_t rows) {
    char name[64];
    snprintf(name, sizeof name, pattern, layer);
    const Param *p = model_param(m, name);
    if (!p) return NONE;
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
            .q_norm = view(m, "model.layers.%d.self_attn.q_norm.weight", l, n.d),
            .k_norm = view(m, "model.layers.%d.self_attn.k_norm.weight", l, n.d),
            .o_w = view(m, "model.layers.%d.self_attn.o_proj.weight", l, n.D),
            .norm2_w = view(m, "model.layers.%d.post_attention_layernorm.weight", l, n.D),
            .gate_up_w = view(m, "model.layers.%d.mlp.gate_proj.weight", l, 2 * n.F),
            .down_w = view(m, "model.layers.%d.mlp.down_proj.weight", l, n.D),
        };
    m->embedding = view(m, "model.embed_tokens.weight", 0, n.V);
    m->head = n.scores ? view(m, "score.weight", 0, 1) : n.tied ? m->embedding : view(m, "lm_head.weight", 0, n.V);
    m->final_norm = view(m, "model.norm.weight", 0, n.D);
}

Model model_carve(Arena *a, ModelDims dims, DType dtype) {
    Model m = {.dims = dims, .dtype = dtype, .slab = tensor1(NULL, dtype, 0)};
    m.params = xcalloc((size_t)(dims.family->n_params * (dims.L + 1)), sizeof *m.params);
    walk(dims, place_param, &m);
    m.slab.dim[0] = align_elements(m.slab.dim[0]);
    m.slab = arena_new(a, dtype, m.slab.dim[0]);
    for (int i = 0; i < m.n_params && present(m.slab); i++)
        m.params[i].t.data = (char *)m.slab.data + (size_t)m.params[i].offset * dtype_size(dtype);
    name_views(&m);
    m.rope = rope_table(dims.rope, dims.d);
    return m;
}

void model_free(Model *m) {
    free(m->params);
    free(m->layer);
    adapter_free(m->adapter);
    *m = (Model){0};
}

const Param *model_param(const Model *m, const char *name) {
    for (int i = 0; i < m->n_params; i++)
        if (!strcmp(m->params[i].name, name)) return &m->params[i];
    return NULL;
}

Trained model_trained(const Model *m) {
    const Adapter *a = m->adapter;
    if (a) return (Trained){a->slab, a->slab.dim[0], a->n_params, a->params};
    return (Trained){m->slab, m->n_decay, m->n_params, m->params};
}

Span model_part(const Model *m, int layer) {
    Trained t = model_trained(m);
    int i = 0;
    while (i < t.n_params && t.params[i].layer != layer) i++;
    if (i == t.n_params || t.params[i].offset >= t.n_decay) return (Span){0, 0};
    Span s = {t.params[i].offset, t.n_decay};
    while (i < t.n_params && t.params[i].layer == layer) i++;
    if (i < t.n_params && t.params[i].offset < t.n_decay) s.end = t.params[i].offset;
    return s;
}
