// The transformer, as plain calls on a Device: forward, backward, one-token decode, for every family.
#include "error.h"
#include "model.h"
#include <stdio.h>

// The first T rows of every intermediate of a layer.
static LayerActs first_rows(LayerActs x, int64_t T) {
    Tensor *t[] = {&x.res1, &x.norm1, &x.rstd1, &x.qkv,   &x.heads,   &x.att,
                   &x.lse,  &x.res2,  &x.norm2, &x.rstd2, &x.gate_up, &x.mlp};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) *t[i] = tensor_rows(*t[i], 0, T);
    return x;
}

// Where attention finds its keys: what differs between packed sequences and one-token decode.
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

// The product's adapters; NULL where no projection has one.
static const ProductAdapter *adapter_of(const Model *m, int l, LayerProduct p) {
    return m->adapter && m->adapter->layer[l][p].in.rank ? &m->adapter->layer[l][p] : NULL;
}

// Memory of another tensor as [rows, cols] F32.
static Tensor as_f32(Tensor x, int64_t rows, int64_t cols) { return tensor2(x.data, F32, rows, cols); }

// y[T,N] = x[T,K] w[N,K]^T, and what its adapters add: in f32, before y is rounded, a block of rows after another. A
// row gets the same bits in any block.
static void product(Device *d, const Model *m, const Activations *acts, int l, LayerProduct which, Tensor y, Tensor x,
                    Tensor w) {
    const ProductAdapter *p = adapter_of(m, l, which);
    int64_t T = y.dim[0], N = tensor_width(y), most = y.dtype == F32 ? T : acts->full.dim[0];
    if (!p) {
        d->matmul(d, y, x, w);
        return;
    }
    for (int64_t at = 0, n; at < T; at += n) {
        n = T - at < most ? T - at : most;
        Tensor to = tensor_rows(y, at, n), in = tensor_rows(x, at, n), low = as_f32(acts->low, n, p->in.rank);
        Tensor full = y.dtype == F32 ? to : as_f32(acts->full, n, N);
        d->matmul(d, full, in, w);
        d->lora_down(d, low, in, p->a, p->in);
        d->lora_up(d, to, full, low, p->b, p->out);
    }
}

// A norm and the product of it: y, and h? = swiglu of y. Where nothing is kept for a backward pass n.y is only room,
// and with h and without an adapter y is not asked for.
static void norm_product(Device *d, const Model *m, const Activations *acts, int l, LayerProduct which, Tensor y,
                         Tensor h, Norm n, Tensor w) {
    const bool adapted = adapter_of(m, l, which) != NULL;
    if (!adapted && !acts->keep) {
        d->norm_matmul(d, present(h) ? NONE : y, h, n, w);
        return;
    }
    d->rmsnorm(d, n.y, n.sum, n.rstd, n.x, n.delta, n.w, n.eps);
    if (present(h) && !adapted) {
        d->matmul_swiglu(d, h, y, n.y, w);
        return;
    }
    product(d, m, acts, l, which, y, n.y, w);
    if (present(h)) d->swiglu(d, h, y);
}

// dx = dy w and dw? += dy^T x, and through the adapters, whose gradients are added to grad's.
static void product_bwd(Device *d, const Model *m, const Model *grad, const Activations *acts, int l,
                        LayerProduct which, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w) {
    const ProductAdapter *p = adapter_of(m, l, which);
    d->matmul_bwd(d, dx, dw, dy, x, w);
    if (!p) return;
    const ProductAdapter *g = &grad->adapter->layer[l][which];
    Tensor low = as_f32(acts->low, x.dim[0], p->in.rank), dlow = as_f32(acts->dlow, x.dim[0], p->in.rank);
    d->lora_down(d, low, x, p->a, p->in);
    d->lora_down(d, dlow, dy, p->b, p->out);
    d->lora_grad(d, g->b, low, dy, p->out);
    d->lora_grad(d, g->a, dlow, x, p->in);
    d->lora_up(d, dx, dx, dlow, p->a, p->in);
}

// Layer l as far as its backward pass needs it, the last product left out. It begins with the residual stream res[T,D]
// and what the block before adds to it (NONE: it is whole).
static void layer_forward(Device *d, const Model *m, const Activations *acts, int l, Tensor res, Tensor add, Input in) {
    ModelDims n = m->dims;
    const Layer w = m->layer[l];
    int64_t T = in.ids.dim[0];
    LayerActs a = first_rows(acts->layer[l], T);
    Tensor block = tensor_rows(acts->block, 0, T);
    Tensor cache = in.kv ? kv_layer(in.kv, l) : NONE; // [R,2K,d]

    norm_product(d, m, acts, l, PRODUCT_QKV, tensor2(a.qkv.data, a.qkv.dtype, T, tensor_width(a.qkv)), NONE,
                 (Norm){a.norm1, present(add) ? a.res1 : NONE, a.rstd1, res, add, w.norm1_w, n.rms_eps}, w.qkv_w);
    if (present(in.seq)) {
        if (present(w.q_norm)) d->qk_norm(d, a.qkv, a.heads, w.q_norm, w.k_norm, n.K, n.rms_eps);
        d->rope(d, a.qkv, w.qkv_b, in.pos, &m->rope, n.K, cache, in.kv_row);
        d->attention(d, a.att, a.lse, a.qkv, in.seq, in.prefix, n.K);
    } else
        d->rope_decode(d, a.att, a.qkv, w.q_norm, w.k_norm, n.rms_eps, w.qkv_b, in.pos, &m->rope, n.K, cache, in.kv_row,
                       in.span);
    product(d, m, acts, l, PRODUCT_O, block, tensor2(a.att.data, a.att.dtype, T, tensor_width(a.att)), w.o_w);

    norm_product(d, m, acts, l, PRODUCT_GATE_UP, a.gate_up, a.mlp,
                 (Norm){a.norm2, a.res2, a.rstd2, a.res1, block, w.norm2_w, n.rms_eps}, w.gate_up_w);
}

// Runs the transformer; training, prefill and decode all use this one function. The result is acts->out[T,D].
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
        product(d, m, acts, l, PRODUCT_DOWN, block, tensor_rows(acts->layer[l].mlp, 0, T), m->layer[l].down_w);
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

// An adapter's head as lora_down sees it: one row that reads all columns. NULL where the model's own is used.
static const Adapter *head_of(const Model *m, LowRank *row) {
    *row = (LowRank){.n = 1, .rank = 1, .width = {m->dims.D}, .low = {true}, .scale = 1};
    return m->adapter && m->adapter->spec.scores ? m->adapter : NULL;
}

void model_score(Device *d, const Model *m, Tensor score, Tensor out) {
    LowRank row;
    const Adapter *a = head_of(m, &row);
    if (a) d->lora_down(d, score, out, a->head, row);
    else d->matmul(d, score, out, m->head);
}

void model_score_backward(Device *d, const Model *m, Model *grad, Tensor dx, Tensor dscore, Tensor out) {
    LowRank row;
    const Adapter *a = head_of(m, &row);
    if (!a) {
        d->matmul_bwd(d, dx, grad->head, dscore, out, m->head);
        return;
    }
    d->lora_grad(d, grad->adapter->head, dscore, out, row);
    d->fill(d, dx, 0);
    d->lora_up(d, dx, dx, dscore, a->head, row);
}

void model_decode(Device *d, const Model *m, Activations *acts, Tensor ids, Tensor pos, const KvCache *cache,
                  Tensor kv_row, Tensor span) {
    transformer(d, m, acts, (Input){.ids = ids, .pos = pos, .span = span, .kv = cache, .kv_row = kv_row});
}

static void tell(const LayerDone *told, int layer) {
    if (told) told->done(told->arg, layer);
}

void model_backward(Device *d, const Model *m, Model *grad, Activations *acts, Packed in, const LayerDone *told) {
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
    tell(told, n.L);
    for (int l = n.L - 1; l >= 0; l--) {
        const Layer w = m->layer[l], dw = grad->layer[l];
        LayerActs a = first_rows(acts->layer[l], T);
        Tensor att_flat = tensor2(a.att.data, a.att.dtype, T, tensor_width(a.att));

        range_layer(d, "backward of layer", l);
        // With recompute only one layer's intermediates exist: those of the last layer are still there.
        if (acts->keep == KEEP_RESIDUALS && l < n.L - 1) layer_forward(d, m, acts, l, a.res1, NONE, input);
        if (acts->keep == KEEP_PRODUCTS) d->swiglu(d, a.mlp, a.gate_up);
        product_bwd(d, m, grad, acts, l, PRODUCT_DOWN, dmlp, dw.down_w, dres, a.mlp, w.down_w);
        d->swiglu_bwd(d, dgate_up, dmlp, a.gate_up);
        if (acts->keep == KEEP_PRODUCTS) d->rmsnorm(d, a.norm2, NONE, a.rstd2, a.res2, NONE, w.norm2_w, n.rms_eps);
        product_bwd(d, m, grad, acts, l, PRODUCT_GATE_UP, dx, dw.gate_up_w, dgate_up, a.norm2, w.gate_up_w);
        d->rmsnorm_bwd(d, dres, dw.norm2_w, dres, dx, a.res2, a.rstd2, w.norm2_w);

        product_bwd(d, m, grad, acts, l, PRODUCT_O, datt_flat, dw.o_w, dres, att_flat, w.o_w);
        d->attention_bwd(d, dqkv, datt, a.att, a.lse, a.qkv, in.seq, in.prefix, n.K);
        d->rope_bwd(d, dqkv, dw.qkv_b, in.pos, &m->rope, n.K);
        if (present(w.q_norm))
            d->qk_norm_bwd(d, dqkv, dw.q_norm, dw.k_norm, a.heads, w.q_norm, w.k_norm, n.K, n.rms_eps);
        if (acts->keep == KEEP_PRODUCTS) d->rmsnorm(d, a.norm1, NONE, a.rstd1, a.res1, NONE, w.norm1_w, n.rms_eps);
        product_bwd(d, m, grad, acts, l, PRODUCT_QKV, dx, dw.qkv_w, dqkv_flat, a.norm1, w.qkv_w);
        d->rmsnorm_bwd(d, dres, dw.norm1_w, dres, dx, a.res1, a.rstd1, w.norm1_w);
        device_range(d, NULL);
        tell(told, l);
    }
    if (present(grad->embedding)) d->embed_bwd(d, grad->embedding, dres, in.ids, n.padded ? n.pad : -1);
    tell(told, -1);
}
