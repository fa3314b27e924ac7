// Cases of the ops of low-rank adapters: F is the width, H the rank; opt: three parts, the second without an adapter.
#pragma once
#include "case.h"

static inline LowRank low_rank_of(const Case *c) {
    int64_t F = c->s.F;
    LowRank one = {1, (int)c->s.H, {F}, {true}, 0.7f};
    LowRank three = {3, (int)c->s.H, {F, 5, F + 2}, {true, false, true}, 0.7f};
    return c->s.opt ? three : one;
}
static inline int64_t low_rank_columns(LowRank p, bool all) {
    int64_t n = 0;
    for (int k = 0; k < p.n; k++) n += all || p.low[k] ? p.width[k] : 0;
    return n;
}
// Where column i has what is its own: whether its part has an adapter, its part's first column of z, its first element
// of w, and its part's columns, which lie between it and the next.
typedef struct {
    bool low;
    int64_t z, w, width;
} LowColumn;
static inline LowColumn low_column(LowRank p, int64_t i) {
    LowColumn at = {0};
    int k = 0;
    for (; i >= p.width[k]; i -= p.width[k++])
        if (p.low[k]) at.z += p.rank, at.w += p.rank * p.width[k];
    at.low = p.low[k], at.width = p.width[k], at.w += i;
    return at;
}

static inline Arg *lora_z(Case *c, Role role) {
    LowRank p = low_rank_of(c);
    return case_rows(case_floats(c, "z", role, F32, c->s.T, p.rank * (c->s.opt ? 2 : 1), 0, 0, 1));
}
static inline Arg *lora_w(Case *c, const char *name, Role role) {
    LowRank p = low_rank_of(c);
    return case_floats(c, name, role, F32, p.rank * low_rank_columns(p, false), 0, 0, 0, 1);
}
static inline Arg *lora_wide(Case *c, const char *name, Role role, DType t) {
    return case_rows(case_floats(c, name, role, t, c->s.T, low_rank_columns(low_rank_of(c), true), 0, 0, 1));
}
static inline double lora_flops(const Case *c) {
    LowRank p = low_rank_of(c);
    return 2.0 * (double)(c->s.T * p.rank * low_rank_columns(p, false));
}

static inline void lora_down_make(Case *c) {
    lora_z(c, ARG_OUT);
    lora_wide(c, "x", ARG_IN, c->dtype);
    lora_w(c, "w", ARG_IN);
}
static inline void lora_down_run(Case *c) {
    c->d->lora_down(c->d, arg(c, "z"), arg(c, "x"), arg(c, "w"), low_rank_of(c));
}
static inline void lora_down_oracle(Case *c) {
    LowRank p = low_rank_of(c);
    int64_t W = low_rank_columns(p, true), R = tensor_width(arg(c, "z"));
    double *z = want(c, "z"), *x = before(c, "x"), *w = before(c, "w");
    memset(z, 0, (size_t)(c->s.T * R) * sizeof *z);
    for (int64_t t = 0; t < c->s.T; t++)
        for (int64_t i = 0; i < W; i++) {
            LowColumn at = low_column(p, i);
            for (int j = 0; at.low && j < p.rank; j++)
                z[t * R + at.z + j] += (double)p.scale * x[t * W + i] * w[at.w + j * at.width];
        }
}
CASE_OP(lora_down, .oracle = lora_down_oracle, .flops = lora_flops);

// K: in place
static inline void lora_up_make(Case *c) {
    lora_wide(c, "y", c->s.K ? ARG_INOUT : ARG_OUT, c->dtype);
    if (!c->s.K) lora_wide(c, "base", ARG_IN, F32);
    lora_z(c, ARG_IN);
    lora_w(c, "w", ARG_IN);
}
static inline void lora_up_run(Case *c) {
    c->d->lora_up(c->d, arg(c, "y"), arg(c, c->s.K ? "y" : "base"), arg(c, "z"), arg(c, "w"), low_rank_of(c));
}
static inline void lora_up_oracle(Case *c) {
    LowRank p = low_rank_of(c);
    int64_t W = low_rank_columns(p, true), R = tensor_width(arg(c, "z"));
    double *y = want(c, "y"), *base = before(c, c->s.K ? "y" : "base"), *z = before(c, "z"), *w = before(c, "w");
    for (int64_t t = 0; t < c->s.T; t++)
        for (int64_t i = 0; i < W; i++) {
            LowColumn at = low_column(p, i);
            double sum = 0;
            for (int j = 0; at.low && j < p.rank; j++) sum += z[t * R + at.z + j] * w[at.w + j * at.width];
            y[t * W + i] = base[t * W + i] + (double)p.scale * sum;
        }
}
CASE_OP(lora_up, .oracle = lora_up_oracle, .flops = lora_flops);

static inline void lora_grad_make(Case *c) {
    lora_w(c, "dw", ARG_ADD);
    lora_z(c, ARG_IN);
    lora_wide(c, "x", ARG_IN, c->dtype);
}
static inline void lora_grad_run(Case *c) {
    c->d->lora_grad(c->d, arg(c, "dw"), arg(c, "z"), arg(c, "x"), low_rank_of(c));
}
static inline void lora_grad_oracle(Case *c) {
    LowRank p = low_rank_of(c);
    int64_t W = low_rank_columns(p, true), R = tensor_width(arg(c, "z"));
    double *dw = want(c, "dw"), *z = before(c, "z"), *x = before(c, "x");
    for (int64_t t = 0; t < c->s.T; t++)
        for (int64_t i = 0; i < W; i++) {
            LowColumn at = low_column(p, i);
            for (int j = 0; at.low && j < p.rank; j++)
                dw[at.w + j * at.width] += (double)p.scale * z[t * R + at.z + j] * x[t * W + i];
        }
}
CASE_OP(lora_grad, .oracle = lora_grad_oracle, .flops = lora_flops);
