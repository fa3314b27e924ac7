// Cases of the ops inside a transformer block: rmsnorm, rope, attention, decode, swiglu.
#pragma once
#include "oracle.h"

#define CASE_EPS   1e-2f // so large that it shows
#define CASE_THETA 10000.0f

// Plain frequencies for heads of size d.
static inline RopeTable case_table_of(int64_t d) { return rope_table((RopeSpec){.theta = CASE_THETA}, (int)d); }

static inline double *doubles(int64_t n) { return xcalloc((size_t)n + 1, sizeof(double)); }

// rmsnorm: opt adds the residual branch
static inline void rmsnorm_make(Case *c) {
    int64_t T = c->s.T, D = c->s.D;
    case_rows(case_floats(c, "y", ARG_OUT, c->dtype, T, D, 0, 0, 1));
    case_rows(case_floats(c, "rstd", ARG_OUT, F32, T, 0, 0, 0, 1));
    case_rows(case_floats(c, "x", ARG_IN, c->dtype, T, D, 0, 0.3, 2));
    case_floats(c, "w", ARG_IN, c->dtype, D, 0, 0, 1, 0.2);
    if (!c->s.opt) return;
    case_rows(case_floats(c, "sum", ARG_OUT, c->dtype, T, D, 0, 0, 1));
    case_rows(case_floats(c, "delta", ARG_IN, c->dtype, T, D, 0, 0, 1));
}
static inline void rmsnorm_run(Case *c) {
    c->d->rmsnorm(c->d, arg(c, "y"), arg(c, "sum"), arg(c, "rstd"), arg(c, "x"), arg(c, "delta"), arg(c, "w"),
                  CASE_EPS);
}
static inline void rmsnorm_oracle(Case *c) {
    int64_t n = c->s.T * c->s.D;
    double *x = before(c, "x"), *delta = before(c, "delta"), *sum = want(c, "sum");
    for (int64_t i = 0; sum && i < n; i++) sum[i] = stored(c->dtype, x[i] + delta[i]);
    oracle_rmsnorm(want(c, "y"), want(c, "rstd"), sum ? sum : x, before(c, "w"), c->s.T, c->s.D, (double)CASE_EPS);
}
CASE_OP(rmsnorm, .oracle = rmsnorm_oracle);

// rmsnorm_bwd: opt adds dres
static inline void rmsnorm_bwd_make(Case *c) {
    int64_t T = c->s.T, D = c->s.D;
    case_rows(case_floats(c, "dx", ARG_OUT, c->dtype, T, D, 0, 0, 1));
    case_floats(c, "dw", ARG_ADD, c->grad, D, 0, 0, 0, 1);
    if (c->s.opt) case_rows(case_floats(c, "dres", ARG_IN, c->dtype, T, D, 0, 0, 1));
    case_rows(case_floats(c, "dy", ARG_IN, c->dtype, T, D, 0, 0, 1));
    case_gradient(case_rows(case_floats(c, "sum", ARG_IN, c->dtype, T, D, 0, 0.3, 2)), "dx");
    case_rows(case_floats(c, "rstd", ARG_IN, F32, T, 0, 0, 0, 1));
    case_gradient(case_floats(c, "w", ARG_IN, c->dtype, D, 0, 0, 1, 0.2), "dw");
    case_floats(c, "y", ARG_AUX, c->dtype, T, D, 0, 0, 1);
    if (c->d) c->d->rmsnorm(c->d, arg(c, "y"), NONE, arg(c, "rstd"), arg(c, "sum"), NONE, arg(c, "w"), CASE_EPS);
}
static inline void rmsnorm_bwd_run(Case *c) {
    c->d->rmsnorm_bwd(c->d, arg(c, "dx"), arg(c, "dw"), arg(c, "dres"), arg(c, "dy"), arg(c, "sum"), arg(c, "rstd"),
                      arg(c, "w"));
}
static inline double rmsnorm_objective(const Case *c) {
    int64_t n = c->s.T * c->s.D;
    double *y = doubles(n), *x = before(c, "sum"), *dres = before(c, "dres");
    oracle_rmsnorm(y, NULL, x, before(c, "w"), c->s.T, c->s.D, (double)CASE_EPS);
    double sum = oracle_dot(y, before(c, "dy"), n) + (dres ? oracle_dot(x, dres, n) : 0);
    free(y);
    return sum;
}
CASE_OP(rmsnorm_bwd, .objective = rmsnorm_objective, .grads = true);

// qk_norm: opt keeps the heads as they were
static inline void qk_norm_make(Case *c) {
    int64_t T = c->s.T, H = c->s.H, K = c->s.K, d = c->s.d;
    case_rows(case_floats(c, "qkv", ARG_INOUT, c->dtype, T, H + 2 * K, d, 0.3, 2));
    if (c->s.opt) case_rows(case_floats(c, "raw", ARG_OUT, c->dtype, T, H + K, d, 0, 1));
    case_floats(c, "q_w", ARG_IN, c->dtype, d, 0, 0, 1, 0.2);
    case_floats(c, "k_w", ARG_IN, c->dtype, d, 0, 0, 1, 0.2);
}
static inline void qk_norm_run(Case *c) {
    c->d->qk_norm(c->d, arg(c, "qkv"), arg(c, "raw"), arg(c, "q_w"), arg(c, "k_w"), (int)c->s.K, CASE_EPS);
}
// y and x[T,heads,d], of which the first H are queries and the next K keys.
static inline void oracle_qk_norm(double *y, const double *x, const double *q_w, const double *k_w, const Case *c,
                                  int64_t T, int64_t heads) {
    int64_t H = c->s.H, K = c->s.K, d = c->s.d;
    for (int64_t t = 0; t < T; t++)
        for (int64_t h = 0; h < H + K; h++) {
            int64_t at = (t * heads + h) * d;
            oracle_rmsnorm(y + at, NULL, x + at, h < H ? q_w : k_w, 1, d, (double)CASE_EPS);
        }
}
static inline void qk_norm_oracle(Case *c) {
    int64_t normed = (c->s.H + c->s.K) * c->s.d, width = normed + c->s.K * c->s.d;
    double *x = before(c, "qkv"), *raw = want(c, "raw");
    oracle_qk_norm(want(c, "qkv"), x, before(c, "q_w"), before(c, "k_w"), c, c->s.T, c->s.H + 2 * c->s.K);
    for (int64_t i = 0; raw && i < c->s.T * normed; i++) raw[i] = x[i / normed * width + i % normed];
}
CASE_OP(qk_norm, .oracle = qk_norm_oracle);

// qk_norm_bwd
static inline void qk_norm_bwd_make(Case *c) {
    int64_t T = c->s.T, H = c->s.H, K = c->s.K, d = c->s.d;
    case_rows(case_floats(c, "dqkv", ARG_INOUT, c->dtype, T, H + 2 * K, d, 0, 1));
    case_floats(c, "dq_w", ARG_ADD, c->grad, d, 0, 0, 0, 1);
    case_floats(c, "dk_w", ARG_ADD, c->grad, d, 0, 0, 0, 1);
    case_rows(case_floats(c, "raw", ARG_IN, c->dtype, T, H + K, d, 0.3, 2));
    case_gradient(case_floats(c, "q_w", ARG_IN, c->dtype, d, 0, 0, 1, 0.2), "dq_w");
    case_gradient(case_floats(c, "k_w", ARG_IN, c->dtype, d, 0, 0, 1, 0.2), "dk_w");
    // The same heads among the values, which pass: what dqkv is the gradient by.
    Arg *x = case_floats(c, "x", ARG_AUX, F32, T, H + 2 * K, d, 0, 1);
    case_gradient(x, "dqkv");
    if (!c->d) return;
    Tensor all = x->t, raw = arg(c, "raw");
    size_t bytes = (size_t)((H + K) * d) * sizeof(float);
    float *row = xmalloc(bytes + 1), *from = xmalloc(bytes + 1);
    for (int64_t t = 0; t < T; t++) {
        Tensor one = tensor_rows(raw, t, 1);
        c->d->copy(c->d, from, one.data, tensor_bytes(one));
        one.data = from;
        for (int64_t i = 0; i < (H + K) * d; i++) row[i] = tensor_get(one, i);
        c->d->copy(c->d, tensor_rows(all, t, 1).data, row, bytes);
    }
    free(row), free(from);
}
static inline void qk_norm_bwd_run(Case *c) {
    c->d->qk_norm_bwd(c->d, arg(c, "dqkv"), arg(c, "dq_w"), arg(c, "dk_w"), arg(c, "raw"), arg(c, "q_w"), arg(c, "k_w"),
                      (int)c->s.K, CASE_EPS);
}
static inline double qk_norm_objective(const Case *c) {
    int64_t heads = c->s.H + 2 * c->s.K, n = c->s.T * heads * c->s.d;
    double *x = before(c, "x"), *y = memcpy(doubles(n), x, (size_t)n * sizeof *x);
    oracle_qk_norm(y, x, before(c, "q_w"), before(c, "k_w"), c, c->s.T, heads);
    double sum = oracle_dot(y, before(c, "dqkv"), n);
    free(y);
    return sum;
}
CASE_OP(qk_norm_bwd, .objective = qk_norm_objective, .grads = true);

// rope: opt gives a bias and a cache
static inline void case_positions(Case *c) {
    int32_t *pos = xcalloc((size_t)c->s.T + 1, sizeof *pos);
    for (int64_t t = 0; t < c->s.T; t++) pos[t] = (int32_t)case_below(c, t % 3 ? 500 : 32768);
    case_rows(case_ints(c, "pos", tensor1(pos, I32, c->s.T)));
    free(pos);
}
static inline void rope_make(Case *c) {
    int64_t T = c->s.T, heads = c->s.H + 2 * c->s.K, R = T + 5;
    case_rows(case_floats(c, "qkv", ARG_INOUT, c->dtype, T, heads, c->s.d, 0, 1));
    case_positions(c);
    if (!c->s.opt) return;
    case_floats(c, "bias", ARG_IN, c->dtype, heads * c->s.d, 0, 0, 0, 1);
    case_floats(c, "kv", ARG_INOUT, c->dtype, R, 2 * c->s.K, c->s.d, 0, 1)->traffic *= 0.5;
    int32_t *row = xcalloc((size_t)T + 1, sizeof *row); // a permutation of some rows; every fifth token is not stored
    for (int64_t t = 0; t < T; t++) row[t] = t % 5 == 4 ? -1 : (int32_t)((t * 3 + 2) % R);
    if (R % 3 == 0)
        for (int64_t t = 0; t < T; t++) row[t] = t % 5 == 4 ? -1 : (int32_t)(R - 1 - t);
    case_rows(case_ints(c, "kv_row", tensor1(row, I32, T)));
    free(row);
}
static inline void rope_run(Case *c) {
    RopeTable table = case_table_of(c->s.d);
    c->d->rope(c->d, arg(c, "qkv"), arg(c, "bias"), arg(c, "pos"), &table, (int)c->s.K, arg(c, "kv"), arg(c, "kv_row"));
}
static inline void rope_oracle(Case *c) {
    int64_t H = c->s.H, K = c->s.K, d = c->s.d, heads = H + 2 * K;
    double *y = want(c, "qkv"), *kv = want(c, "kv");
    oracle_rope(y, before(c, "qkv"), before(c, "bias"), before(c, "pos"), (double)CASE_THETA, c->s.T, heads, H + K, d);
    for (int64_t t = 0; kv && t < c->s.T; t++) {
        int64_t row = (int64_t)before(c, "kv_row")[t];
        for (int64_t i = 0; row >= 0 && i < 2 * K * d; i++) kv[row * 2 * K * d + i] = y[(t * heads + H) * d + i];
    }
}
CASE_OP(rope, .oracle = rope_oracle);

// rope_bwd: opt asks for dbias
static inline void rope_bwd_make(Case *c) {
    int64_t T = c->s.T, heads = c->s.H + 2 * c->s.K;
    case_rows(case_floats(c, "dqkv", ARG_INOUT, c->dtype, T, heads, c->s.d, 0, 1));
    case_positions(c);
    case_gradient(case_floats(c, "x", ARG_AUX, F32, T, heads, c->s.d, 0, 1), "dqkv");
    if (!c->s.opt) return;
    case_floats(c, "dbias", ARG_ADD, c->grad, heads * c->s.d, 0, 0, 0, 1);
    case_gradient(case_floats(c, "bias", ARG_AUX, F32, heads * c->s.d, 0, 0, 0, 1), "dbias");
}
static inline void rope_bwd_run(Case *c) {
    RopeTable table = case_table_of(c->s.d);
    c->d->rope_bwd(c->d, arg(c, "dqkv"), arg(c, "dbias"), arg(c, "pos"), &table, (int)c->s.K);
}
static inline double rope_objective(const Case *c) {
    int64_t heads = c->s.H + 2 * c->s.K, n = c->s.T * heads * c->s.d;
    double *y = doubles(n);
    oracle_rope(y, before(c, "x"), before(c, "bias"), before(c, "pos"), (double)CASE_THETA, c->s.T, heads,
                c->s.H + c->s.K, c->s.d);
    double sum = oracle_dot(y, before(c, "dqkv"), n);
    free(y);
    return sum;
}
CASE_OP(rope_bwd, .objective = rope_objective, .grads = true);

// attention
static inline int64_t case_sequences(const Case *c) {
    int64_t B = 0;
    while (c->s.len[B] >= 0) B++;
    return B;
}
// opt: sequences 1 and 2 go on from 0, the last two from the one before; -1: from none.
static inline int case_goes_on_from(const Case *c, int64_t b) {
    int64_t B = case_sequences(c);
    return !c->s.opt ? -1 : b == 1 || b == 2 ? 0 : b > 3 && b >= B - 2 ? (int)B - 3 : -1;
}
// T may be more: rows that belong to no sequence.
static inline void case_offsets(Case *c) {
    int64_t B = case_sequences(c);
    int32_t *seq = xcalloc((size_t)B + 1, sizeof *seq);
    for (int64_t b = 0; b < B; b++) seq[b + 1] = seq[b] + c->s.len[b];
    if (seq[B] > c->s.T) die("tests: %s: lengths sum to %d, more than T", c->op->name, seq[B]);
    case_ints(c, "seq", tensor1(seq, I32, B + 1));
    free(seq);
    if (!c->s.opt) return;
    int32_t *prefix = xcalloc((size_t)B + 1, sizeof *prefix);
    for (int64_t b = 0; b < B; b++) prefix[b] = case_goes_on_from(c, b);
    case_ints(c, "prefix", tensor1(prefix, I32, B));
    free(prefix);
}
// Positions before those of sequence b: its prefix's.
static inline int64_t case_prefix(const Case *c, int64_t b) {
    int p = case_goes_on_from(c, b);
    return p < 0 ? 0 : c->s.len[p];
}
// Multiply-adds of one matrix product over all (query, key) pairs that see each other, times two.
static inline double attention_pairs(const Case *c) {
    double pairs = 0;
    for (int b = 0; c->s.len[b] >= 0; b++)
        pairs += c->s.len[b] * ((double)case_prefix(c, b) + 0.5 * (c->s.len[b] + 1.0));
    return 2 * pairs * (double)(c->s.H * c->s.d);
}
static inline void attention_make(Case *c) {
    int64_t T = c->s.T, H = c->s.H, d = c->s.d;
    case_floats(c, "y", ARG_OUT, c->dtype, T, H, d, 0, 1);
    case_floats(c, "lse", ARG_OUT, F32, T, H, 0, 0, 1);
    case_floats(c, "qkv", ARG_IN, c->dtype, T, H + 2 * c->s.K, d, 0.1, 1.5);
    case_offsets(c);
}
static inline void attention_run(Case *c) {
    c->d->attention(c->d, arg(c, "y"), arg(c, "lse"), arg(c, "qkv"), arg(c, "seq"), arg(c, "prefix"), (int)c->s.K);
}
static inline void attention_oracle(Case *c) {
    memset(want(c, "y"), 0, (size_t)(c->s.T * c->s.H * c->s.d) * sizeof(double)); // what rows of no sequence give
    memset(want(c, "lse"), 0, (size_t)(c->s.T * c->s.H) * sizeof(double));
    oracle_attention(want(c, "y"), want(c, "lse"), before(c, "qkv"), before(c, "seq"), before(c, "prefix"),
                     case_sequences(c), c->s.H, c->s.K, c->s.d);
}
static inline double attention_flops(const Case *c) { return 2 * attention_pairs(c); }
CASE_OP(attention, .oracle = attention_oracle, .flops = attention_flops);

static inline void attention_bwd_make(Case *c) {
    int64_t T = c->s.T, H = c->s.H, heads = H + 2 * c->s.K, d = c->s.d;
    case_floats(c, "dqkv", ARG_OUT, c->dtype, T, heads, d, 0, 1);
    case_floats(c, "dy", ARG_IN, c->dtype, T, H, d, 0, 1);
    case_floats(c, "y", ARG_IN, c->dtype, T, H, d, 0, 1);
    case_floats(c, "lse", ARG_IN, F32, T, H, 0, 0, 1);
    case_gradient(case_floats(c, "qkv", ARG_IN, c->dtype, T, heads, d, 0.1, 1.5), "dqkv");
    case_offsets(c);
    if (c->d) attention_run(c);
}
static inline void attention_bwd_run(Case *c) {
    c->d->attention_bwd(c->d, arg(c, "dqkv"), arg(c, "dy"), arg(c, "y"), arg(c, "lse"), arg(c, "qkv"), arg(c, "seq"),
                        arg(c, "prefix"), (int)c->s.K);
}
static inline double attention_objective(const Case *c) {
    int64_t n = c->s.T * c->s.H * c->s.d;
    double *y = doubles(n);
    oracle_attention(y, NULL, before(c, "qkv"), before(c, "seq"), before(c, "prefix"), case_sequences(c), c->s.H,
                     c->s.K, c->s.d);
    double sum = oracle_dot(y, before(c, "dy"), n);
    free(y);
    return sum;
}
static inline double attention_bwd_flops(const Case *c) { return 5 * attention_pairs(c); }
CASE_OP(attention_bwd, .objective = attention_objective, .flops = attention_bwd_flops);

// decode: sequence b has len[b] keys, split at a random place into a prefix and a suffix that lies before it
static inline void decode_make(Case *c) {
    int64_t B = case_sequences(c), K = c->s.K, d = c->s.d, R = 3;
    int32_t *span = xcalloc((size_t)B * 4, sizeof *span);
    for (int64_t b = 0; b < B; b++) {
        int32_t prefix = (int32_t)case_below(c, c->s.len[b] + 1), suffix = c->s.len[b] - prefix;
        memcpy(span + 4 * b, (int32_t[]){(int32_t)R + suffix + 1, prefix, (int32_t)R, suffix}, 4 * sizeof *span);
        R += c->s.len[b] + 2;
    }
    case_rows(case_floats(c, "y", ARG_OUT, c->dtype, B, c->s.H, d, 0, 1));
    case_rows(case_floats(c, "qkv", ARG_IN, c->dtype, B, c->s.H + 2 * K, d, 0.1, 1.5));
    case_floats(c, "kv", ARG_IN, c->dtype, R, 2 * K, d, 0.1, 1.5);
    case_rows(case_ints(c, "span", tensor2(span, I32, B, 4)));
    free(span);
}
static inline void decode_run(Case *c) {
    c->d->decode(c->d, arg(c, "y"), arg(c, "qkv"), arg(c, "kv"), arg(c, "span"), (int)c->s.K);
}
static inline void decode_oracle(Case *c) {
    int64_t H = c->s.H, K = c->s.K, d = c->s.d, step = 2 * K * d;
    for (int64_t b = 0; b < case_sequences(c); b++) {
        const double *s = before(c, "span") + 4 * b;
        int64_t prefix = (int64_t)s[1], n = prefix + (int64_t)s[3];
        double *kv = doubles(n * step); // the keys in order
        for (int64_t j = 0; j < n; j++) {
            int64_t row = j < prefix ? (int64_t)s[0] + j : (int64_t)s[2] + j - prefix;
            memcpy(kv + j * step, before(c, "kv") + row * step, (size_t)step * sizeof *kv);
        }
        for (int64_t h = 0; h < H; h++) {
            const double *k = kv + h / (H / K) * d;
            oracle_attend(want(c, "y") + (b * H + h) * d, before(c, "qkv") + (b * (H + 2 * K) + h) * d, k, k + K * d, n,
                          step, d);
        }
        free(kv);
    }
}
static inline double decode_flops(const Case *c) {
    double keys = 0;
    for (int b = 0; c->s.len[b] >= 0; b++) keys += c->s.len[b];
    return 4 * keys * (double)(c->s.H * c->s.d);
}
CASE_OP(decode, .oracle = decode_oracle, .flops = decode_flops);

// rope_decode: the same spans, whose last key is the sequence's own; opt adds the bias, and for heads of
// 128 columns or more, as Qwen3 has them, the norms of queries and keys
static inline void rope_decode_make(Case *c) {
    int64_t B = case_sequences(c), heads = c->s.H + 2 * c->s.K, R = 3, T = c->s.T;
    int32_t *span = xcalloc((size_t)B * 4, sizeof *span), *row = xcalloc((size_t)B + 1, sizeof *row);
    for (int64_t b = 0; b < B; b++) {
        int32_t keys = c->s.len[b], prefix = keys ? (int32_t)case_below(c, keys) : 0, suffix = keys - prefix;
        memcpy(span + 4 * b, (int32_t[]){(int32_t)R + suffix + 1, prefix, (int32_t)R, suffix}, 4 * sizeof *span);
        row[b] = keys ? (int32_t)R + suffix - 1 : -1;
        R += keys + 2;
    }
    case_rows(case_floats(c, "y", ARG_OUT, c->dtype, B, c->s.H, c->s.d, 0, 1));
    case_rows(case_floats(c, "qkv", ARG_SPENT, c->dtype, B, heads, c->s.d, 0.1, 1.5));
    case_floats(c, "kv", ARG_INOUT, c->dtype, R, 2 * c->s.K, c->s.d, 0.1, 1.5)->traffic *= 0.5;
    case_rows(case_ints(c, "span", tensor2(span, I32, B, 4)));
    case_rows(case_ints(c, "kv_row", tensor1(row, I32, B)));
    c->s.T = B; // positions are as many
    case_positions(c);
    c->s.T = T;
    if (c->s.opt) case_floats(c, "bias", ARG_IN, c->dtype, heads * c->s.d, 0, 0, 0, 1);
    if (c->s.opt && c->s.d >= 128) {
        case_floats(c, "q_w", ARG_IN, c->dtype, c->s.d, 0, 0, 1, 0.2);
        case_floats(c, "k_w", ARG_IN, c->dtype, c->s.d, 0, 0, 1, 0.2);
    }
    free(span);
    free(row);
}
static inline void rope_decode_run(Case *c) {
    RopeTable table = case_table_of(c->s.d);
    c->d->rope_decode(c->d, arg(c, "y"), arg(c, "qkv"), arg(c, "q_w"), arg(c, "k_w"), CASE_EPS, arg(c, "bias"),
                      arg(c, "pos"), &table, (int)c->s.K, arg(c, "kv"), arg(c, "kv_row"), arg(c, "span"));
}
static inline void rope_decode_oracle(Case *c) {
    int64_t B = case_sequences(c), H = c->s.H, K = c->s.K, d = c->s.d, heads = H + 2 * K;
    double *rotated = doubles(B * heads * d), *normed = doubles(B * heads * d), *kv = want(c, "kv"), *given[2];
    memcpy(normed, before(c, "qkv"), (size_t)(B * heads * d) * sizeof *normed);
    if (before(c, "q_w")) oracle_qk_norm(normed, normed, before(c, "q_w"), before(c, "k_w"), c, B, heads);
    for (int64_t i = 0; i < B * heads * d; i++) normed[i] = stored(c->dtype, normed[i]);
    oracle_rope(rotated, normed, before(c, "bias"), before(c, "pos"), (double)CASE_THETA, B, heads, H + K, d);
    for (int64_t i = 0; i < B * heads * d; i++) rotated[i] = stored(c->dtype, rotated[i]);
    for (int64_t b = 0; b < B; b++) {
        int64_t row = (int64_t)before(c, "kv_row")[b];
        for (int64_t i = 0; row >= 0 && i < 2 * K * d; i++) kv[row * 2 * K * d + i] = rotated[(b * heads + H) * d + i];
    }
    Arg *arg[] = {case_find(c, "qkv"), case_find(c, "kv")}; // what decode reads
    for (int i = 0; i < 2; i++) given[i] = arg[i]->before, arg[i]->before = i ? kv : rotated;
    decode_oracle(c);
    for (int i = 0; i < 2; i++) arg[i]->before = given[i];
    free(rotated), free(normed);
}
CASE_OP(rope_decode, .oracle = rope_decode_oracle, .flops = decode_flops);

// swiglu
static inline void swiglu_make(Case *c) {
    case_rows(case_floats(c, "h", ARG_OUT, c->dtype, c->s.T, c->s.F, 0, 0, 1));
    case_rows(case_floats(c, "gu", ARG_IN, c->dtype, c->s.T, 2 * c->s.F, 0, 0, 3));
}
static inline void swiglu_run(Case *c) { c->d->swiglu(c->d, arg(c, "h"), arg(c, "gu")); }
static inline void swiglu_oracle(Case *c) { oracle_swiglu(want(c, "h"), before(c, "gu"), c->s.T, c->s.F); }
CASE_OP(swiglu, .oracle = swiglu_oracle);

static inline void swiglu_bwd_make(Case *c) {
    case_rows(case_floats(c, "dgu", ARG_OUT, c->dtype, c->s.T, 2 * c->s.F, 0, 0, 1));
    case_rows(case_floats(c, "dh", ARG_IN, c->dtype, c->s.T, c->s.F, 0, 0, 1));
    case_gradient(case_rows(case_floats(c, "gu", ARG_IN, c->dtype, c->s.T, 2 * c->s.F, 0, 0, 3)), "dgu");
}
static inline void swiglu_bwd_run(Case *c) { c->d->swiglu_bwd(c->d, arg(c, "dgu"), arg(c, "dh"), arg(c, "gu")); }
static inline double swiglu_objective(const Case *c) {
    int64_t n = c->s.T * c->s.F;
    double *h = doubles(n);
    oracle_swiglu(h, before(c, "gu"), c->s.T, c->s.F);
    double sum = oracle_dot(h, before(c, "dh"), n);
    free(h);
    return sum;
}
CASE_OP(swiglu_bwd, .objective = swiglu_objective);
