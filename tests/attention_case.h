// Attention of packed sequences as tests ask for it: host tensors in and out, whatever the device.
#pragma once
#include "cases.h"
#include "on_device.h"

typedef struct {
    int H, K, d;
} Heads;
static const int lengths[] = {1, 0, 63, 64, 65, 2, 0, 128, 150, 5, -1};
enum { TOKENS = 478, SEQUENCES = 10 };

typedef struct {
    Heads h;
    DType t;
    Tensor qkv, y, lse; // [T, H+2K, d], [T, H, d], [T, H]
    int32_t seq[SEQUENCES + 1];
    size_t qkv_row, y_row; // bytes of a token
} Pass;

// Of NaN: what an op has to write and does not shows.
static inline Tensor room(DType t, int64_t a, int64_t b, int64_t e) {
    Tensor x = tensor3(NULL, t, a, b, e);
    x.data = memset(xmalloc(tensor_bytes(x) + 64), 0xff, tensor_bytes(x) + 64);
    return x;
}
static inline Tensor zeros(DType t, int64_t a, int64_t b, int64_t e) {
    Tensor x = room(t, a, b, e);
    memset(x.data, 0, tensor_bytes(x));
    return x;
}

// The ops on host memory: inputs go to the device, outputs come back.
static inline void attention_from(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv) {
    Tensor x[] = {to_device(d, y), to_device(d, lse), to_device(d, qkv), to_device(d, seq),
                  present(prefix) ? to_device(d, prefix) : NONE};
    d->attention(d, x[0], x[1], x[2], x[3], x[4], n_kv);
    device_fetch(d, y.data, x[0]);
    device_fetch(d, lse.data, x[1]);
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        if (present(x[i])) device_drop(d, x[i]);
}
static inline void attention(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, int n_kv) {
    attention_from(d, y, lse, qkv, seq, NONE, n_kv);
}
static inline void attention_bwd(Device *d, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv, Tensor seq,
                                 Tensor prefix, int n_kv) {
    Tensor x[] = {to_device(d, dqkv),
                  to_device(d, dy),
                  to_device(d, y),
                  to_device(d, lse),
                  to_device(d, qkv),
                  to_device(d, seq),
                  present(prefix) ? to_device(d, prefix) : NONE};
    d->attention_bwd(d, x[0], x[1], x[2], x[3], x[4], x[5], x[6], n_kv);
    device_fetch(d, dqkv.data, x[0]);
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        if (present(x[i])) device_drop(d, x[i]);
}
static inline Pass pass_new(Device *d, Heads h, DType t) {
    Pass p = {.h = h, .t = t};
    p.qkv = room(t, TOKENS, h.H + 2 * h.K, h.d);
    p.y = room(t, TOKENS, h.H, h.d);
    p.lse = room(F32, TOKENS, h.H, 1);
    p.qkv_row = tensor_bytes(p.qkv) / TOKENS;
    p.y_row = tensor_bytes(p.y) / TOKENS;
    for (int b = 0; b < SEQUENCES; b++) p.seq[b + 1] = p.seq[b] + lengths[b];
    Case random = {.random = 7};
    for (int64_t i = 0; i < tensor_numel(p.qkv); i++) tensor_set(p.qkv, i, (float)(2 * case_normal(&random)));
    attention(d, p.y, p.lse, p.qkv, tensor1(p.seq, I32, SEQUENCES + 1), h.K);
    return p;
}
static inline void pass_free(Pass *p) {
    free(p->qkv.data);
    free(p->y.data);
    free(p->lse.data);
}
