// Cases of the matrix products and of the head: matmul, logprob, sample. T rows, D wide; F or V out.
#pragma once
#include "../kernels/cpu/philox.h"
#include "cases_block.h"

// matmul
static inline void matmul_make(Case *c) {
    case_rows(case_floats(c, "y", ARG_OUT, c->dtype, c->s.T, c->s.F, 0, 0, 1));
    case_rows(case_floats(c, "x", ARG_IN, c->dtype, c->s.T, c->s.D, 0, 0.1, 1));
    case_floats(c, "w", ARG_IN, c->dtype, c->s.F, c->s.D, 0, 0.1, 1);
}
static inline void matmul_run(Case *c) { c->d->matmul(c->d, arg(c, "y"), arg(c, "x"), arg(c, "w")); }
static inline void matmul_oracle(Case *c) {
    int64_t D = c->s.D, F = c->s.F;
    for (int64_t t = 0; t < c->s.T; t++)
        for (int64_t f = 0; f < F; f++)
            want(c, "y")[t * F + f] = oracle_dot(before(c, "x") + t * D, before(c, "w") + f * D, D);
}
static inline double matmul_flops(const Case *c) { return 2 * (double)(c->s.T * c->s.D * c->s.F); }
CASE_OP(matmul, .oracle = matmul_oracle, .flops = matmul_flops);

// matmul_swiglu: opt keeps gate and up
static inline void matmul_swiglu_make(Case *c) {
    case_rows(case_floats(c, "h", ARG_OUT, c->dtype, c->s.T, c->s.F, 0, 0, 1));
    if (c->s.opt) case_rows(case_floats(c, "gu", ARG_OUT, c->dtype, c->s.T, 2 * c->s.F, 0, 0, 1));
    case_rows(case_floats(c, "x", ARG_IN, c->dtype, c->s.T, c->s.D, 0, 0.1, 1));
    case_floats(c, "w", ARG_IN, c->dtype, 2 * c->s.F, c->s.D, 0, 0.02, 1 / sqrt((double)c->s.D));
}
static inline void matmul_swiglu_run(Case *c) {
    c->d->matmul_swiglu(c->d, arg(c, "h"), arg(c, "gu"), arg(c, "x"), arg(c, "w"));
}
static inline void matmul_swiglu_oracle(Case *c) {
    int64_t D = c->s.D, F = c->s.F;
    double *row = doubles(2 * F), *gu = want(c, "gu");
    for (int64_t t = 0; t < c->s.T; t++) {
        for (int64_t f = 0; f < 2 * F; f++) {
            double dot = oracle_dot(before(c, "x") + t * D, before(c, "w") + f * D, D);
            row[f] = stored(c->dtype, dot);
            if (gu) gu[t * 2 * F + f] = dot;
        }
        oracle_swiglu(want(c, "h") + t * F, row, 1, F);
    }
    free(row);
}
static inline double matmul_swiglu_flops(const Case *c) { return 4 * (double)(c->s.T * c->s.D * c->s.F); }
CASE_OP(matmul_swiglu, .oracle = matmul_swiglu_oracle, .flops = matmul_swiglu_flops);

// norm_matmul: opt adds the residual branch; K: with swiglu behind the product
static inline void norm_matmul_make(Case *c) {
    int64_t T = c->s.T, D = c->s.D, F = c->s.F;
    case_rows(case_floats(c, c->s.K ? "h" : "y", ARG_OUT, c->dtype, T, F, 0, 0, 1));
    case_rows(case_floats(c, "n", ARG_SPENT, c->dtype, T, D, 0, 0, 1))->traffic = 0;
    case_rows(case_floats(c, "rstd", ARG_SPENT, F32, T, 0, 0, 0, 1))->traffic = 0;
    case_rows(case_floats(c, "x", ARG_IN, c->dtype, T, D, 0, 0.3, 2));
    case_floats(c, "norm_w", ARG_IN, c->dtype, D, 0, 0, 1, 0.2);
    case_floats(c, "w", ARG_IN, c->dtype, c->s.K ? 2 * F : F, D, 0, 0.02, 1 / sqrt((double)D));
    if (!c->s.opt) return;
    case_rows(case_floats(c, "sum", ARG_OUT, c->dtype, T, D, 0, 0, 1));
    case_rows(case_floats(c, "delta", ARG_IN, c->dtype, T, D, 0, 0, 1));
}
static inline void norm_matmul_run(Case *c) {
    c->d->norm_matmul(
        c->d, arg(c, "y"), arg(c, "h"),
        (Norm){arg(c, "n"), arg(c, "sum"), arg(c, "rstd"), arg(c, "x"), arg(c, "delta"), arg(c, "norm_w"), CASE_EPS},
        arg(c, "w"));
}
static inline void norm_matmul_oracle(Case *c) {
    int64_t T = c->s.T, D = c->s.D, F = c->s.F, N = c->s.K ? 2 * F : F;
    double *x = before(c, "x"), *delta = before(c, "delta"), *sum = want(c, "sum"), *n = doubles(T * D);
    double *y = doubles(T * N);
    for (int64_t i = 0; sum && i < T * D; i++) sum[i] = stored(c->dtype, x[i] + delta[i]);
    oracle_rmsnorm(n, NULL, sum ? sum : x, before(c, "norm_w"), T, D, (double)CASE_EPS);
    for (int64_t i = 0; i < T * D; i++) n[i] = stored(c->dtype, n[i]);
    for (int64_t t = 0; t < T; t++)
        for (int64_t i = 0; i < N; i++) y[t * N + i] = oracle_dot(n + t * D, before(c, "w") + i * D, D);
    if (c->s.K) {
        for (int64_t i = 0; i < T * N; i++) y[i] = stored(c->dtype, y[i]);
        oracle_swiglu(want(c, "h"), y, T, F);
    } else memcpy(want(c, "y"), y, (size_t)(T * N) * sizeof *y);
    free(n), free(y);
}
static inline double norm_matmul_flops(const Case *c) {
    return 2 * (double)(c->s.T * c->s.D * (c->s.K ? 2 * c->s.F : c->s.F));
}
CASE_OP(norm_matmul, .oracle = norm_matmul_oracle, .flops = norm_matmul_flops);

// matmul_bwd: its gradients are checked as those of sum(dy * y)
static inline void matmul_bwd_make(Case *c) {
    case_rows(case_floats(c, "dx", ARG_OUT, c->dtype, c->s.T, c->s.D, 0, 0, 1));
    case_floats(c, "dw", ARG_ADD, c->grad, c->s.F, c->s.D, 0, 0, 1);
    case_rows(case_floats(c, "dy", ARG_IN, c->dtype, c->s.T, c->s.F, 0, 0, 1));
    case_gradient(case_rows(case_floats(c, "x", ARG_IN, c->dtype, c->s.T, c->s.D, 0, 0.1, 1)), "dx");
    case_gradient(case_floats(c, "w", ARG_IN, c->dtype, c->s.F, c->s.D, 0, 0.1, 1), "dw");
}
static inline void matmul_bwd_run(Case *c) {
    c->d->matmul_bwd(c->d, arg(c, "dx"), arg(c, "dw"), arg(c, "dy"), arg(c, "x"), arg(c, "w"));
}
static inline double matmul_objective(const Case *c) {
    int64_t T = c->s.T, D = c->s.D, F = c->s.F;
    double sum = 0;
    for (int64_t t = 0; t < T; t++)
        for (int64_t f = 0; f < F; f++)
            sum += before(c, "dy")[t * F + f] * oracle_dot(before(c, "x") + t * D, before(c, "w") + f * D, D);
    return sum;
}
static inline double matmul_bwd_flops(const Case *c) { return 2 * matmul_flops(c); }
CASE_OP(matmul_bwd, .objective = matmul_objective, .flops = matmul_bwd_flops, .grads = true, .by_library = true);

// logprob of every second row, the last first; opt asks for the entropy
#define CASE_TEMPERATURE 0.8f
static inline void case_targets(Case *c, int64_t N) {
    int32_t *row = xcalloc((size_t)N + 1, sizeof *row), *target = xcalloc((size_t)N + 1, sizeof *target);
    for (int64_t i = 0; i < N; i++) {
        row[i] = (int32_t)(c->s.T - 1 - 2 * i);
        target[i] = (int32_t)case_below(c, c->s.V);
    }
    case_rows(case_ints(c, "rows", tensor1(row, I32, N)));
    case_rows(case_ints(c, "target", tensor1(target, I32, N)));
    free(row);
    free(target);
}
static inline int64_t case_selected(const Case *c) { return (c->s.T + 1) / 2; }
static inline void logprob_make(Case *c) {
    int64_t N = case_selected(c);
    case_rows(case_floats(c, "logp", ARG_OUT, F32, N, 0, 0, 0, 1));
    case_rows(case_floats(c, "lse", ARG_OUT, F32, N, 0, 0, 0, 1));
    if (c->s.opt) case_rows(case_floats(c, "entropy", ARG_OUT, F32, N, 0, 0, 0, 1));
    case_floats(c, "x", ARG_IN, c->dtype, c->s.T, c->s.D, 0, 0, 1);
    case_floats(c, "w", ARG_IN, c->dtype, c->s.V, c->s.D, 0, 0, 1.5 / sqrt((double)c->s.D));
    case_targets(c, N);
}
static inline void logprob_run(Case *c) {
    c->d->logprob(c->d, arg(c, "logp"), arg(c, "lse"), arg(c, "entropy"), arg(c, "x"), arg(c, "rows"), arg(c, "w"),
                  arg(c, "target"), CASE_TEMPERATURE);
}
// z[V] of row x[D], its logsumexp; and its entropy, or NULL
static inline double oracle_logits(double *z, double *entropy, const double *x, const double *w, int64_t V, int64_t D) {
    double max = -INFINITY, sum = 0, mean = 0;
    for (int64_t v = 0; v < V; v++) {
        z[v] = oracle_dot(x, w + v * D, D) / (double)CASE_TEMPERATURE;
        max = fmax(max, z[v]);
    }
    for (int64_t v = 0; v < V; v++) sum += exp(z[v] - max);
    double lse = max + log(sum);
    for (int64_t v = 0; v < V; v++) mean += exp(z[v] - lse) * z[v];
    if (entropy) *entropy = lse - mean;
    return lse;
}
static inline void logprob_oracle(Case *c) {
    double *z = doubles(c->s.V), *entropy = want(c, "entropy");
    for (int64_t i = 0; i < case_selected(c); i++) {
        const double *x = before(c, "x") + (int64_t)before(c, "rows")[i] * c->s.D;
        double lse = oracle_logits(z, entropy ? entropy + i : NULL, x, before(c, "w"), c->s.V, c->s.D);
        want(c, "lse")[i] = lse;
        want(c, "logp")[i] = z[(int64_t)before(c, "target")[i]] - lse;
    }
    free(z);
}
static inline double logprob_flops(const Case *c) { return 2 * (double)(case_selected(c) * c->s.D * c->s.V); }
CASE_OP(logprob, .oracle = logprob_oracle, .flops = logprob_flops);

// logprob_bwd: opt has a gradient of the entropy too
static inline void logprob_bwd_make(Case *c) {
    int64_t N = case_selected(c);
    case_floats(c, "dx", ARG_OUT, c->dtype, c->s.T, c->s.D, 0, 0, 1);
    case_floats(c, "dw", ARG_ADD, c->grad, c->s.V, c->s.D, 0, 0, 0.01);
    case_floats(c, "dlogp", ARG_IN, F32, N, 0, 0, 0, 1);
    if (c->s.opt) case_floats(c, "dentropy", ARG_IN, F32, N, 0, 0, 0, 1);
    case_floats(c, "logp", ARG_AUX, F32, N, 0, 0, 0, 1);
    case_floats(c, "lse", ARG_IN, F32, N, 0, 0, 0, 1);
    if (c->s.opt) case_floats(c, "entropy", ARG_IN, F32, N, 0, 0, 0, 1);
    case_gradient(case_floats(c, "x", ARG_IN, c->dtype, c->s.T, c->s.D, 0, 0, 1), "dx");
    case_gradient(case_floats(c, "w", ARG_IN, c->dtype, c->s.V, c->s.D, 0, 0, 1.5 / sqrt((double)c->s.D)), "dw");
    case_targets(c, N);
    if (c->d) logprob_run(c);
}
static inline void logprob_bwd_run(Case *c) {
    c->d->logprob_bwd(c->d, arg(c, "dx"), arg(c, "dw"), arg(c, "dlogp"), arg(c, "dentropy"), arg(c, "x"),
                      arg(c, "rows"), arg(c, "w"), arg(c, "target"), arg(c, "lse"), arg(c, "entropy"),
                      CASE_TEMPERATURE);
}
static inline double logprob_objective(const Case *c) {
    double *z = doubles(c->s.V), *dentropy = before(c, "dentropy"), entropy, sum = 0;
    for (int64_t i = 0; i < case_selected(c); i++) {
        const double *x = before(c, "x") + (int64_t)before(c, "rows")[i] * c->s.D;
        double lse = oracle_logits(z, &entropy, x, before(c, "w"), c->s.V, c->s.D);
        sum += before(c, "dlogp")[i] * (z[(int64_t)before(c, "target")[i]] - lse);
        if (dentropy) sum += dentropy[i] * entropy;
    }
    free(z);
    return sum;
}
static inline double logprob_bwd_flops(const Case *c) { return 3 * logprob_flops(c); }
CASE_OP(logprob_bwd, .objective = logprob_objective, .flops = logprob_bwd_flops, .grads = true, .by_library = true);

// sample: opt draws from the top 40 only
static inline SampleParams case_sampling(const Case *c) {
    return (SampleParams){.temperature = CASE_TEMPERATURE,
                          .top_k = c->s.opt ? 40 : 0,
                          .top_p = 1,
                          .repetition_penalty = 1,
                          .seed = 0x5eed0000000005eeull};
}
static inline void sample_make(Case *c) {
    int64_t T = c->s.T, *key = xcalloc((size_t)T + 1, sizeof *key);
    int32_t *zero = xcalloc((size_t)T + 1, sizeof *zero), *pos = xcalloc((size_t)T + 1, sizeof *pos);
    for (int64_t t = 0; t < T; t++) {
        key[t] = (int64_t)(case_random(c) >> 1);
        pos[t] = (int32_t)case_below(c, 4096);
    }
    case_rows(case_arg(c, "token", ARG_OUT, tensor1(zero, I32, T)));
    case_rows(case_floats(c, "logp", ARG_OUT, F32, T, 0, 0, 0, 1));
    case_rows(case_floats(c, "lse", ARG_OUT, F32, T, 0, 0, 0, 1));
    case_rows(case_floats(c, "entropy", ARG_OUT, F32, T, 0, 0, 0, 1));
    case_rows(case_floats(c, "x", ARG_IN, c->dtype, T, c->s.D, 0, 0, 1));
    case_floats(c, "w", ARG_IN, c->dtype, c->s.V, c->s.D, 0, 0, 1.5 / sqrt((double)c->s.D));
    case_rows(case_arg(c, "key", ARG_IN, tensor1(key, I64, T)))->raw = true;
    case_rows(case_ints(c, "pos", tensor1(pos, I32, T)));
    free(key);
    free(zero);
    free(pos);
}
static inline void sample_run(Case *c) {
    SampleOut to = {arg(c, "token"), arg(c, "logp"), arg(c, "lse"), arg(c, "entropy")};
    c->d->sample(c->d, to, arg(c, "x"), arg(c, "w"), arg(c, "key"), arg(c, "pos"), NONE, NONE, case_sampling(c));
}
static inline void sample_oracle(Case *c) {
    SampleParams p = case_sampling(c);
    double *z = doubles(c->s.V);
    for (int64_t t = 0; t < c->s.T; t++) {
        double lse = oracle_logits(z, want(c, "entropy") + t, before(c, "x") + t * c->s.D, before(c, "w"), c->s.V,
                                   c->s.D),
               best = -INFINITY;
        want(c, "lse")[t] = lse;
        for (int64_t v = 0; v < c->s.V; v++) {
            int64_t above = 0, key;
            for (int64_t u = 0; p.top_k && u < c->s.V; u++) above += z[u] > z[v];
            if (p.top_k && above >= p.top_k) continue;
            memcpy(&key, before(c, "key") + t, sizeof key); // its bits, see Arg.raw
            uint32_t bits = philox_token(p.seed, key, (int32_t)before(c, "pos")[t], (uint32_t)v);
            double score = z[v] - log(-log1p(-(bits + 0.5) * 0x1p-32));
            if (score <= best) continue;
            best = score;
            want(c, "token")[t] = (double)v;
            want(c, "logp")[t] = z[v] - lse;
        }
    }
    free(z);
}
static inline double sample_flops(const Case *c) { return 2 * (double)(c->s.T * c->s.D * c->s.V); }
CASE_OP(sample, .oracle = sample_oracle, .flops = sample_flops);
