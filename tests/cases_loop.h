// Cases of the two ops that take structs: advance, between two decode steps, and grpo_loss.
#pragma once
#include "oracle.h"

// advance: T rows, the last F of them have drawn a token (0: nobody asked); opt: with ids seen, D columns. T + 3 slots.
enum { CASE_RING = 3, CASE_DRAWN_BEFORE = 7, CASE_TOKENS = 20 };
static const EndRule case_ends = {.eos = {3, 5}, .n_eos = 2, .max_completion = 6};

static inline Tensor case_random_ints(Case *c, int32_t *to, int64_t n, int64_t below) {
    for (int64_t i = 0; i < n; i++) to[i] = (int32_t)case_below(c, below);
    return tensor1(to, I32, n);
}
// A column of the rows: random from 0 to below - 1, and `idle` in every fourth row, which is nobody's.
static inline void case_column(Case *c, const char *name, int64_t below, int32_t idle) {
    int32_t *x = xcalloc((size_t)c->s.T, sizeof *x);
    Tensor all = case_random_ints(c, x, c->s.T, below);
    for (int64_t j = 3; j < c->s.T; j += 4) x[j] = idle;
    case_arg(c, name, ARG_INOUT, all);
    free(x);
}
static inline void advance_make(Case *c) {
    int64_t T = c->s.T, F = c->s.F, D = c->s.D, slots = T + 3, ring = CASE_RING * DRAWN_COUNT * slots;
    int32_t *x = xcalloc((size_t)(ring + 4 * T + T * D), sizeof *x);
    int64_t *key = xcalloc((size_t)T, sizeof *key);
    case_column(c, "ids", CASE_TOKENS, 0);
    case_column(c, "pos", 100, 0);
    case_column(c, "kv_row", 1000, -1);
    case_column(c, "place", case_ends.max_completion, 0);
    for (int64_t j = 0; j < T; j++) key[j] = j % 4 == 3 ? -1 : 100 + j;
    case_arg(c, "key", ARG_INOUT, tensor1(key, I64, T));
    for (int64_t j = 0; j < T; j++) x[j] = j % 4 == 3 ? -1 : (int32_t)(slots - 1 - j);
    case_arg(c, "slot", ARG_INOUT, tensor1(x, I32, T));
    case_random_ints(c, x, 4 * T, 1000);
    for (int64_t j = 3; j < T; j += 4) memset(x + 4 * j, 0, 4 * sizeof *x);
    case_arg(c, "span", ARG_INOUT, tensor2(x, I32, T, 4))->align = 16;
    if (c->s.opt) {
        case_column(c, "seen_len", D, 0);
        case_random_ints(c, x, T * D, CASE_TOKENS);
        case_arg(c, "seen", ARG_INOUT, tensor2(x, I32, T, D));
    }
    for (int64_t i = 0; i < slots; i++) x[i] = i % 7 == 2;
    case_ints(c, "stop", tensor1(x, I32, slots));
    x[0] = (int32_t)T, x[1] = CASE_DRAWN_BEFORE;
    case_arg(c, "count", ARG_INOUT, tensor1(x, I32, 2));
    case_random_ints(c, x, ring, 1 << 20);
    case_arg(c, "drawn", ARG_INOUT, tensor3(x, I32, CASE_RING, DRAWN_COUNT, slots));
    if (F) {
        case_ints(c, "token", case_random_ints(c, x, F, CASE_TOKENS));
        case_floats(c, "logp", ARG_IN, F32, F, 0, 0, -1, 1);
        case_floats(c, "lse", ARG_IN, F32, F, 0, 0, 5, 1);
        case_floats(c, "entropy", ARG_IN, F32, F, 0, 0, 1, 0.3);
    }
    free(x), free(key);
}
static inline void advance_run(Case *c) {
    DecodeRows r = {.ids = arg(c, "ids"), .pos = arg(c, "pos"), .kv_row = arg(c, "kv_row"), .span = arg(c, "span")};
    r.key = arg(c, "key"), r.place = arg(c, "place"), r.slot = arg(c, "slot"), r.seen = arg(c, "seen");
    r.seen_len = arg(c, "seen_len"), r.stop = arg(c, "stop"), r.count = arg(c, "count"), r.drawn = arg(c, "drawn");
    SampleOut drawn = {arg(c, "token"), arg(c, "logp"), arg(c, "lse"), arg(c, "entropy")};
    c->d->advance(c->d, r, drawn, c->s.T - c->s.F, case_ends);
}
// The bits of an f32 as a whole number.
static inline double case_word(double x) {
    float f = (float)x;
    int32_t word;
    memcpy(&word, &f, sizeof word);
    return word;
}
static inline void advance_oracle(Case *c) {
    static const char *const column[] = {"ids", "pos", "kv_row", "place", "key", "slot", "span", "seen_len", "seen"};
    static const double nobody[] = {0, 0, -1, 0, -1, -1, 0, 0};
    const double *drawn[] = {before(c, "token"), before(c, "logp"), before(c, "lse"), before(c, "entropy")};
    int64_t T = c->s.T, F = c->s.F, slots = T + 3, width[] = {1, 1, 1, 1, 1, 1, 4, 1, c->s.D}, live = 0;
    double *ring = want(c, "drawn") + CASE_DRAWN_BEFORE % CASE_RING * DRAWN_COUNT * slots, *x[9];
    for (int k = 0; k < 9; k++) x[k] = want(c, column[k]);
    for (int64_t i = 0; F && i < slots; i++) {
        int64_t j = T - F + i;
        ring[i] = -1;
        if (i >= F || x[4][j] < 0) continue;
        ring[i] = x[5][j];
        for (int k = 0; k < 4; k++) ring[(k + 1) * slots + i] = k ? case_word(drawn[k][i]) : drawn[k][i];
        x[0][j] = drawn[0][i];
        x[1][j]++, x[2][j]++, x[3][j]++, x[6][4 * j + 3]++;
        if (c->s.opt) x[8][j * c->s.D + (int64_t)x[7][j]++] = drawn[0][i];
    }
    for (int64_t j = 0; j < T; j++) {
        bool ended = x[4][j] < 0 || before(c, "stop")[(int64_t)x[5][j]] != 0 || x[3][j] >= case_ends.max_completion;
        for (int k = 0; k < case_ends.n_eos && !ended; k++) ended = x[3][j] > 0 && x[0][j] == case_ends.eos[k];
        for (int k = 0; k < 9 && !ended; k++)
            if (x[k]) memmove(x[k] + live * width[k], x[k] + j * width[k], (size_t)width[k] * sizeof(double));
        live += !ended;
    }
    for (int64_t j = live; j < T; j++)
        for (int k = 0; k < 8; k++) // the ids a row saw are nobody's then
            for (int64_t i = 0; x[k] && i < width[k]; i++) x[k][j * width[k] + i] = nobody[k];
    want(c, "count")[0] = (double)live;
    want(c, "count")[1] += F > 0;
}
CASE_OP(advance, .oracle = advance_oracle, .exact = true, .one_type = true);

// grpo_loss: one group of completions, of the lengths `len`, else eight of T / 8 tokens; five rewards of equal weight,
// every token and every completion counts; opt: with a reference and a bonus for entropy
enum { CASE_REWARDS = 5, CASE_GROUP_MOST = 8 };
static inline int64_t case_group(const Case *c, int64_t *offset) { // offset[CASE_GROUP_MOST + 1]
    int64_t n = 0;
    for (offset[0] = 0; n < CASE_GROUP_MOST && (!c->s.len || c->s.len[n] >= 0); n++)
        offset[n + 1] = offset[n] + (c->s.len ? c->s.len[n] : c->s.T / CASE_GROUP_MOST);
    return n;
}
static inline GrpoParams case_loss(const Case *c) {
    GrpoParams p = {.loss_type = LOSS_GRPO, .level = LEVEL_TOKEN, .scale_rewards = SCALE_GROUP};
    p.epsilon = p.epsilon_high = 0.2f;
    p.delta = p.off_policy_threshold = -1;
    p.beta = c->s.opt ? 0.04f : 0;
    p.entropy_coef = c->s.opt ? 0.01f : 0;
    p.entropy_threshold = -INFINITY, p.loss_scale = 0.5f, p.entropy_scale = 0.25f;
    return p;
}
static inline void grpo_loss_make(Case *c) {
    int64_t offset[CASE_GROUP_MOST + 1], n = case_group(c, offset);
    int32_t index[CASE_GROUP_MOST], offsets[CASE_GROUP_MOST + 1] = {0};
    uint8_t mask[CASE_GROUP_MOST];
    for (int i = 0; i < n; i++) index[i] = i, mask[i] = 1, offsets[i + 1] = (int32_t)offset[i + 1];
    case_floats(c, "logp", ARG_IN, F32, c->s.T, 0, 0, -1, 0.3);
    case_floats(c, "old_logp", ARG_IN, F32, c->s.T, 0, 0, -1, 0.3);
    if (c->s.opt) case_floats(c, "ref_logp", ARG_IN, F32, c->s.T, 0, 0, -1, 0.3);
    if (c->s.opt) case_floats(c, "entropy", ARG_IN, F32, c->s.T, 0, 0, 1, 0.3);
    case_floats(c, "rewards", ARG_IN, F32, n, CASE_REWARDS, 0, 0, 1);
    case_floats(c, "weights", ARG_IN, F32, CASE_REWARDS, 0, 0, 1, 0);
    case_ints(c, "index", tensor1(index, I32, n));
    case_ints(c, "offsets", tensor1(offsets, I32, n + 1));
    case_ints(c, "mask", tensor1(mask, U8, n));
    case_floats(c, "advantage", ARG_OUT, F32, n, 0, 0, 0, 0);
    case_floats(c, "dlogp", ARG_OUT, F32, c->s.T, 0, 0, 0, 0);
    if (c->s.opt) case_floats(c, "dentropy", ARG_OUT, F32, c->s.T, 0, 0, 0, 0);
    case_floats(c, "metrics", ARG_OUT, F32, n, GM_COUNT, 0, 0, 0);
}
static inline void grpo_loss_run(Case *c) {
    int64_t offset[CASE_GROUP_MOST + 1], n = case_group(c, offset);
    GrpoIn in = {1, n, CASE_REWARDS, .rewards = arg(c, "rewards"), .weights = arg(c, "weights")};
    in.index = arg(c, "index"), in.offsets = arg(c, "offsets"), in.logp = arg(c, "logp");
    in.old_logp = arg(c, "old_logp"), in.ref_logp = arg(c, "ref_logp"), in.entropy = arg(c, "entropy");
    in.mask = arg(c, "mask");
    GrpoOut out = {arg(c, "advantage"), arg(c, "dlogp"), arg(c, "dentropy"), arg(c, "metrics")};
    c->d->grpo_loss(c->d, out, in, case_loss(c));
}
// advantage[n]: the rewards' sums less their mean, over their standard deviation
static inline void oracle_advantage(double *advantage, const double *rewards, int64_t n) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; i++) {
        advantage[i] = 0;
        for (int k = 0; k < CASE_REWARDS; k++) advantage[i] += rewards[i * CASE_REWARDS + k];
        mean += advantage[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++) variance += (advantage[i] - mean) * (advantage[i] - mean) / (double)(n - 1);
    for (int64_t i = 0; i < n; i++) advantage[i] = (advantage[i] - mean) / (sqrt(variance) + (double)ADVANTAGE_EPS);
}
static inline void grpo_loss_oracle(Case *c) {
    int64_t offset[CASE_GROUP_MOST + 1], n = case_group(c, offset);
    GrpoParams p = case_loss(c);
    double low = 1 - (double)p.epsilon, high = 1 + (double)p.epsilon_high, *advantage = want(c, "advantage");
    double *dlogp = want(c, "dlogp"), *dentropy = want(c, "dentropy"), *metrics = want(c, "metrics");
    const double *logp = before(c, "logp"), *old = before(c, "old_logp"), *ref = before(c, "ref_logp");
    oracle_advantage(advantage, before(c, "rewards"), n);
    for (int64_t i = 0; i < n; i++) {
        double *m = metrics + i * GM_COUNT, a = advantage[i], tokens = (double)(offset[i + 1] - offset[i]);
        double scale = (double)p.loss_scale / tokens, bonus = (double)p.entropy_coef * (double)p.entropy_scale;
        for (int k = 0; k < GM_COUNT; k++) m[k] = 0;
        m[GM_TOKENS] = m[GM_POLICY_TOKENS] = tokens, m[GM_ADVANTAGE] = a;
        m[GM_RATIO_MAX] = -INFINITY, m[GM_RATIO_MIN] = INFINITY;
        for (int64_t t = offset[i]; t < offset[i + 1]; t++) {
            double w = exp(logp[t] - old[t]), clipped = fmin(fmax(w, low), high), apart = ref ? ref[t] - logp[t] : 0;
            bool held = w * a > clipped * a; // the clipped loss is the larger one: no slope
            m[GM_POLICY] += scale * (double)p.beta * (exp(apart) - apart - 1) - scale * fmin(w * a, clipped * a);
            dlogp[t] = scale * (double)p.beta * (1 - exp(apart)) - (held ? 0 : scale * w * a);
            if (dentropy) dentropy[t] = -bonus;
            m[GM_KL] += exp(apart) - apart - 1;
            m[GM_ENTROPY] += c->s.opt ? before(c, "entropy")[t] : 0;
            m[GM_CLIP_LOW] += w < low && a < 0;
            m[GM_CLIP_HIGH] += w > high && a > 0;
            m[GM_RATIO_SUM] += w;
            m[GM_RATIO_MAX] = fmax(m[GM_RATIO_MAX], w), m[GM_RATIO_MIN] = fmin(m[GM_RATIO_MIN], w);
        }
        m[GM_POLICY_ENTROPY] = m[GM_ENTROPY], m[GM_CLIP_REGION] = m[GM_CLIP_LOW] + m[GM_CLIP_HIGH];
        m[GM_LOSS] = m[GM_POLICY] - bonus * m[GM_POLICY_ENTROPY];
    }
}
CASE_OP(grpo_loss, .oracle = grpo_loss_oracle, .one_type = true);
