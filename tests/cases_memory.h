// Cases of the ops that only move memory: fill, cast, lerp, sumsq, embed, adamw.
#pragma once
#include "oracle.h"

// fill
static inline void fill_make(Case *c) { case_floats(c, "x", ARG_OUT, c->dtype, c->s.T, 0, 0, 0, 1); }
static inline void fill_run(Case *c) { c->d->fill(c->d, arg(c, "x"), 0.3f); }
static inline void fill_oracle(Case *c) {
    for (int64_t i = 0; i < c->s.T; i++) want(c, "x")[i] = (double)0.3f;
}
CASE_OP(fill, .oracle = fill_oracle, .exact = true);

// cast: to the other type
static inline void cast_make(Case *c) {
    case_floats(c, "y", ARG_OUT, c->dtype == F32 ? BF16 : F32, c->s.T, 0, 0, 0, 1);
    case_floats(c, "x", ARG_IN, c->dtype, c->s.T, 0, 0, 0, 1);
}
static inline void cast_run(Case *c) { c->d->cast(c->d, arg(c, "y"), arg(c, "x")); }
static inline void cast_oracle(Case *c) {
    for (int64_t i = 0; i < c->s.T; i++) want(c, "y")[i] = before(c, "x")[i];
}
CASE_OP(cast, .oracle = cast_oracle, .exact = true);

// lerp: the moving average may be kept in another type
static inline void lerp_make(Case *c) {
    case_floats(c, "y", ARG_INOUT, c->grad, c->s.T, 0, 0, 0, 1);
    case_floats(c, "x", ARG_IN, c->dtype, c->s.T, 0, 0, 0, 1);
}
static inline void lerp_run(Case *c) { c->d->lerp(c->d, arg(c, "y"), arg(c, "x"), 0.6f); }
static inline void lerp_oracle(Case *c) {
    double *y = want(c, "y"), *x = before(c, "x");
    for (int64_t i = 0; i < c->s.T; i++) y[i] += (double)0.6f * (x[i] - y[i]);
}
CASE_OP(lerp, .oracle = lerp_oracle, .grads = true);

// sumsq
static inline void sumsq_make(Case *c) {
    int64_t zero = 0;
    case_arg(c, "out", ARG_OUT, tensor1(&zero, I64, 1))->raw = true;
    case_floats(c, "x", ARG_IN, c->dtype, c->s.T, 0, 0, 0, 1);
}
static inline void sumsq_run(Case *c) { c->d->sumsq(c->d, arg(c, "out"), arg(c, "x")); }
static inline void sumsq_oracle(Case *c) {
    double *x = before(c, "x");
    want(c, "out")[0] = oracle_dot(x, x, c->s.T);
}
CASE_OP(sumsq, .oracle = sumsq_oracle);

// embed
static inline void case_ids(Case *c, int64_t T, int64_t V) {
    int32_t *id = xcalloc((size_t)T + 1, sizeof *id);
    for (int64_t t = 0; t < T; t++) id[t] = (int32_t)case_below(c, V);
    case_rows(case_ints(c, "ids", tensor1(id, I32, T)));
    free(id);
}
static inline void embed_make(Case *c) {
    case_rows(case_floats(c, "y", ARG_OUT, c->dtype, c->s.T, c->s.D, 0, 0, 1));
    case_floats(c, "w", ARG_IN, c->dtype, c->s.V, c->s.D, 0, 0, 1)->traffic =
        (double)(c->s.T * c->s.D) * (double)dtype_size(c->dtype);
    case_ids(c, c->s.T, c->s.V);
}
static inline void embed_run(Case *c) { c->d->embed(c->d, arg(c, "y"), arg(c, "w"), arg(c, "ids")); }
static inline void embed_oracle(Case *c) {
    for (int64_t t = 0; t < c->s.T; t++)
        for (int64_t i = 0; i < c->s.D; i++)
            want(c, "y")[t * c->s.D + i] = before(c, "w")[(int64_t)before(c, "ids")[t] * c->s.D + i];
}
CASE_OP(embed, .oracle = embed_oracle, .exact = true);

// embed_bwd: the padding token's row gets nothing
enum { CASE_PAD = 1 };
static inline void embed_bwd_make(Case *c) {
    case_floats(c, "dw", ARG_ADD, c->grad, c->s.V, c->s.D, 0, 0, 1)->traffic =
        2.0 * (double)(c->s.T * c->s.D) * (double)dtype_size(c->grad);
    case_floats(c, "dy", ARG_IN, c->dtype, c->s.T, c->s.D, 0, 0, 1);
    case_ids(c, c->s.T, c->s.V);
}
static inline void embed_bwd_run(Case *c) {
    c->d->embed_bwd(c->d, arg(c, "dw"), arg(c, "dy"), arg(c, "ids"), CASE_PAD);
}
static inline void embed_bwd_oracle(Case *c) {
    for (int64_t t = 0; t < c->s.T; t++)
        for (int64_t i = 0; i < c->s.D && before(c, "ids")[t] != CASE_PAD; i++)
            want(c, "dw")[(int64_t)before(c, "ids")[t] * c->s.D + i] += before(c, "dy")[t * c->s.D + i];
}
CASE_OP(embed_bwd, .oracle = embed_bwd_oracle, .grads = true);

// adamw: opt is an f32 master and f32 moments; else all state is of the weights' type
static inline AdamParams adamw_params(void) {
    return (AdamParams){.lr = 0.05f,
                        .beta1 = 0.9,
                        .beta2 = 0.99,
                        .eps = 1e-3f,
                        .weight_decay = 0.1f,
                        .grad_scale = 0.7,
                        .step = 3,
                        .seed = 5,
                        .first_elem = 11};
}
static inline void adamw_make(Case *c) {
    DType state = c->s.opt ? F32 : c->dtype;
    case_floats(c, "w", c->s.opt ? ARG_OUT : ARG_INOUT, c->dtype, c->s.T, 0, 0, 0, 1);
    if (c->s.opt) case_floats(c, "master", ARG_INOUT, F32, c->s.T, 0, 0, 0, 1);
    case_floats(c, "m", ARG_INOUT, state, c->s.T, 0, 0, 0, 0.1);
    case_floats(c, "v", ARG_INOUT, state, c->s.T, 0, 0, 1, 0.1);
    case_floats(c, "dw", ARG_IN, c->grad, c->s.T, 0, 0, 0, 1);
}
static inline void adamw_run(Case *c) {
    c->d->adamw(c->d, arg(c, "w"), arg(c, "master"), arg(c, "m"), arg(c, "v"), arg(c, "dw"), adamw_params());
}
static inline void adamw_oracle(Case *c) {
    AdamParams p = adamw_params();
    double *w = want(c, "w"), *m = want(c, "m"), *v = want(c, "v"), b1 = p.beta1, b2 = p.beta2;
    double *home = c->s.opt ? want(c, "master") : w;
    for (int64_t i = 0; i < c->s.T; i++) {
        double g = before(c, "dw")[i] * p.grad_scale;
        m[i] = b1 * m[i] + (1 - b1) * g;
        v[i] = b2 * v[i] + (1 - b2) * g * g;
        double mhat = m[i] / (1 - pow(b1, (double)p.step)), vhat = v[i] / (1 - pow(b2, (double)p.step));
        home[i] -= p.lr * p.weight_decay * home[i];
        w[i] = home[i] -= p.lr * mhat / (sqrt(vhat) + p.eps);
    }
}
CASE_OP(adamw, .oracle = adamw_oracle, .grads = true);
