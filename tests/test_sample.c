// Sampling: Philox's published numbers; every draw and every filter against a naive f64 reading of the definitions; the
// drawn token's log-prob, logsumexp and entropy are the trainer's, bit for bit; chi-square of drawn frequencies.
#include "../kernels/cpu/philox.h"
#include "head.h"
#include "on_device.h"
#include <stdio.h>

// Random123's known answers.
static void test_philox(void **state) {
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        Philox counter;
        memcpy(counter.v, known[i].counter, sizeof counter.v);
        Philox r = philox4x32(counter, (uint64_t)known[i].key[1] << 32 | known[i].key[0]);
        assert_memory_equal(r.v, known[i].out, sizeof r.v);
    }
}

typedef struct {
    int64_t B, V, D, C;
    Tensor x, w, key, pos, seen, seen_len; // [B,D] [V,D] [B] [B] [B,C] [B]
    SampleOut out;                         // [B]
} Case;

static SampleOut new_out(int64_t B) {
    return (SampleOut){new_tensor(I32, B, 1), new_tensor(F32, B, 1), new_tensor(F32, B, 1), new_tensor(F32, B, 1)};
}
static void free_out(SampleOut x) { free(x.token.data), free(x.logp.data), free(x.lse.data), free(x.entropy.data); }
static SampleOut out_rows(SampleOut x, int64_t first, int64_t n) {
    return (SampleOut){tensor_rows(x.token, first, n), tensor_rows(x.logp, first, n), tensor_rows(x.lse, first, n),
                       tensor_rows(x.entropy, first, n)};
}
static void assert_same_out(SampleOut a, SampleOut b) {
    assert_memory_equal(a.token.data, b.token.data, tensor_bytes(a.token));
    assert_memory_equal(a.logp.data, b.logp.data, tensor_bytes(a.logp));
    assert_memory_equal(a.lse.data, b.lse.data, tensor_bytes(a.lse));
    assert_memory_equal(a.entropy.data, b.entropy.data, tensor_bytes(a.entropy));
}

static Case new_case(DType t, int64_t B, int64_t V, int64_t D, float scale) {
    Case c = {.B = B, .V = V, .D = D, .C = 12};
    c.x = new_random(t, B, D, 1), c.w = new_random(t, V, D, scale);
    c.key = new_tensor(I64, B, 1), c.pos = new_tensor(I32, B, 1);
    c.seen = new_tensor(I32, B, c.C), c.seen_len = new_tensor(I32, B, 1);
    c.out = new_out(B);
    for (int64_t b = 0; b < B; b++) {
        i64(c.key)[b] = b * 3 + ((int64_t)1 << 33), i32(c.pos)[b] = (int32_t)(b * b);
        i32(c.seen_len)[b] = (int32_t)(b % (c.C + 1));
        for (int64_t i = 0; i < c.C; i++) i32(c.seen)[b * c.C + i] = (int32_t)((b + i / 2 * 5) % V); // twice each
    }
    return c;
}
static void free_case(Case c) {
    Tensor all[] = {c.x, c.w, c.key, c.pos, c.seen, c.seen_len};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i].data);
    free_out(c.out);
}
// The case in the device's memory; and its outputs back into c's, once done.
static Case send(Case c) {
    Tensor *all[] = {&c.x,        &c.w,         &c.key,      &c.pos,     &c.seen,
                     &c.seen_len, &c.out.token, &c.out.logp, &c.out.lse, &c.out.entropy};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) *all[i] = to_device(dev, *all[i]);
    return c;
}
static void fetch(Case c, Case g) {
    dev->copy(dev, c.out.token.data, g.out.token.data, tensor_bytes(c.out.token));
    dev->copy(dev, c.out.logp.data, g.out.logp.data, tensor_bytes(c.out.logp));
    dev->copy(dev, c.out.lse.data, g.out.lse.data, tensor_bytes(c.out.lse));
    dev->copy(dev, c.out.entropy.data, g.out.entropy.data, tensor_bytes(c.out.entropy));
    assert_device_well();
    Tensor all[] = {g.x, g.w, g.key, g.pos, g.seen, g.seen_len, g.out.token, g.out.logp, g.out.lse, g.out.entropy};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) device_drop(dev, all[i]);
}
static void draw(Case c, SampleParams p) {
    Case g = send(c);
    dev->sample(dev, g.out, g.x, g.w, g.key, g.pos, g.seen, g.seen_len, p);
    fetch(c, g);
}
// What `logprob` gives for the tokens that were drawn.
static void assert_trained_the_same(Case c, float temperature) {
    Case train = c;
    train.out = new_out(c.B);
    memcpy(train.out.token.data, c.out.token.data, tensor_bytes(c.out.token));
    Tensor rows = new_tensor(I32, c.B, 1);
    for (int64_t b = 0; b < c.B; b++) i32(rows)[b] = (int32_t)b;
    Case g = send(train);
    Tensor at = to_device(dev, rows);
    dev->logprob(dev, g.out.logp, g.out.lse, g.out.entropy, g.x, at, g.w, g.out.token, temperature);
    fetch(train, g);
    assert_same_out(train.out, c.out);
    device_drop(dev, at);
    free_out(train.out), free(rows.data);
}

// --- A naive reference: every filter as its definition says, by counting, without sorting ---

typedef struct {
    double *z, *score, *p; // [V] each: scaled logits before and after filters (-inf: removed), final probabilities
    double logp, lse, entropy;
    int64_t best; // the Gumbel-max (or greedy) winner
    double lead;  // how far it is ahead of the second
} Reference;

static bool later(const double *z, int64_t a, int64_t b) { return z[a] > z[b] || (z[a] == z[b] && a > b); }
static void softmax(const double *z, double *p, int64_t V) {
    double max = -INFINITY, sum = 0;
    for (int64_t v = 0; v < V; v++) max = z[v] > max ? z[v] : max;
    for (int64_t v = 0; v < V; v++) sum += p[v] = exp(z[v] - max);
    for (int64_t v = 0; v < V; v++) p[v] /= sum;
}
static double gumbel(SampleParams p, int64_t key, int32_t pos, int64_t v) {
    return -log(-log1p(-(philox_token(p.seed, key, pos, (uint32_t)v) + 0.5) / 4294967296.0));
}

static Reference refer(Case c, int64_t b, SampleParams p) {
    int64_t V = c.V;
    Reference r = {.z = xcalloc((size_t)V, 8), .score = xcalloc((size_t)V, 8), .p = xcalloc((size_t)V, 8)};
    bool *seen = xcalloc((size_t)V, 1);
    for (int64_t i = 0; i < i32(c.seen_len)[b]; i++) seen[i32(c.seen)[b * c.C + i]] = true;
    double T = p.temperature > 0 ? p.temperature : 1, top = 0;
    for (int64_t v = 0; v < V; v++) {
        for (int64_t k = 0; k < c.D; k++) r.z[v] += (double)tensor_get(c.x, b * c.D + k) * tensor_get(c.w, v * c.D + k);
        double s = r.z[v];
        if (seen[v]) s = s < 0 ? s * p.repetition_penalty : s / p.repetition_penalty;
        r.z[v] /= T, r.score[v] = s / T;
    }
    double *cut = xcalloc((size_t)V, 8);
    bool warp = p.temperature > 0;
    for (int64_t v = 0; v < V; v++) { // top-k: fewer than k are strictly better
        int64_t above = 0;
        for (int64_t u = 0; u < V; u++) above += r.score[u] > r.score[v];
        cut[v] = warp && p.top_k > 0 && above >= p.top_k ? -INFINITY : r.score[v];
    }
    memcpy(r.score, cut, (size_t)V * 8);
    softmax(r.score, r.p, V);
    for (int64_t v = 0; v < V; v++) { // top-p: the mass up to and with v, from the least likely, is above 1 - top_p
        double below = 0;
        int64_t above = 0;
        for (int64_t u = 0; u < V; u++) below += later(r.score, u, v) ? 0 : r.p[u], above += later(r.score, u, v);
        cut[v] = warp && p.top_p < 1 && below <= 1 - p.top_p && above ? -INFINITY : r.score[v];
    }
    memcpy(r.score, cut, (size_t)V * 8);
    softmax(r.score, r.p, V);
    for (int64_t v = 0; v < V; v++) top = r.p[v] > top ? r.p[v] : top;
    for (int64_t v = 0; v < V; v++)
        if (warp && r.p[v] < p.min_p * top) r.score[v] = -INFINITY;
    softmax(r.score, r.p, V);
    double first = -INFINITY, second = -INFINITY;
    for (int64_t v = 0; v < V; v++) {
        double s = r.score[v] + (warp ? gumbel(p, i64(c.key)[b], i32(c.pos)[b], v) : 0);
        if (s > first) second = first, first = s, r.best = v;
        else if (s > second) second = s;
    }
    r.lead = first - second;
    softmax(r.z, cut, V);
    r.logp = log(cut[r.best]), r.lse = r.z[r.best] - r.logp;
    for (int64_t v = 0; v < V; v++) r.entropy -= cut[v] > 0 ? cut[v] * log(cut[v]) : 0;
    free(seen), free(cut);
    return r;
}
static void free_reference(Reference r) { free(r.z), free(r.score), free(r.p); }

static const SampleParams settings[] = {
    {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 1},
    {.temperature = 0, .top_p = 1, .repetition_penalty = 1, .seed = 2},
    {.temperature = 0.7f, .top_p = 1, .repetition_penalty = 1, .seed = 1ull << 40},
    {.temperature = 1, .top_k = 1, .top_p = 1, .repetition_penalty = 1, .seed = 4},
    {.temperature = 1.2f, .top_k = 20, .top_p = 1, .repetition_penalty = 1, .seed = 5},
    {.temperature = 1, .top_k = 5000, .top_p = 1, .repetition_penalty = 1, .seed = 6},
    {.temperature = 1, .top_p = 0.9f, .repetition_penalty = 1, .seed = 7},
    {.temperature = 1, .top_p = 0.05f, .repetition_penalty = 1, .seed = 8},
    {.temperature = 0.8f, .top_p = 1, .min_p = 0.1f, .repetition_penalty = 1, .seed = 9},
    {.temperature = 1, .top_p = 1, .repetition_penalty = 1.3f, .seed = 10},
    {.temperature = 0, .top_p = 1, .repetition_penalty = 1.5f, .seed = 11},
    {.temperature = 0.9f, .top_k = 50, .top_p = 0.8f, .min_p = 0.05f, .repetition_penalty = 1.2f, .seed = 12},
};
#define SETTINGS (sizeof settings / sizeof *settings)

// Draws, and holds each against the reference; returns how many were too clear to depend on rounding.
static int check_draws(Case c, SampleParams p) {
    int clear = 0;
    draw(c, p);
    for (int64_t b = 0; b < c.B; b++) {
        Reference r = refer(c, b, p);
        assert_true(fabs(f32(c.out.lse)[b] - r.lse) < 2e-6 * (1 + fabs(r.lse)));
        assert_true(fabs(f32(c.out.entropy)[b] - r.entropy) < 2e-6 * (1 + r.entropy));
        if (r.lead > 1e-4) {
            clear++;
            assert_int_equal(i32(c.out.token)[b], r.best);
            assert_true(fabs(f32(c.out.logp)[b] - r.logp) < 2e-6 * (1 + fabs(r.logp)));
        }
        free_reference(r);
    }
    return clear;
}

static void test_draws(void **state) {
    for (DType t = F32; t <= BF16; t++) {
        Case c = new_case(t, 40, 1101, 16, 1);
        int clear = 0;
        for (size_t s = 0; s < SETTINGS; s++) clear += check_draws(c, settings[s]);
        assert_true(clear > (int)SETTINGS * 40 - 5);
        free_case(c);
    }
}

// Nearly flat distributions, of which filters keep thousands of tokens.
static void test_flat(void **state) {
    Case c = new_case(F32, 2, 5001, 8, 0.1f);
    static const SampleParams flat[] = {
        {.temperature = 1, .top_p = 0.95f, .repetition_penalty = 1, .seed = 21},
        {.temperature = 1, .top_k = 4990, .top_p = 0.3f, .repetition_penalty = 1.1f, .seed = 22},
        {.temperature = 1, .top_p = 1, .min_p = 0.4f, .repetition_penalty = 1, .seed = 23},
    };
    int clear = 0;
    for (size_t s = 0; s < sizeof flat / sizeof *flat; s++) clear += check_draws(c, flat[s]);
    assert_true(clear > 4);
    free_case(c);
}

// Equal logits: greedy takes the lowest id; top-k keeps every tie of the k-th; top-p keeps what crosses the mass.
static void test_ties(void **state) {
    Case c = new_case(F32, 300, 10, 1, 1);
    for (int64_t b = 0; b < c.B; b++) f32(c.x)[b] = 1;
    for (int64_t v = 0; v < c.V; v++) f32(c.w)[v] = v == 3 || v == 7 || v == 8 ? 1 : v == 5 ? 2 : -1;
    draw(c, (SampleParams){.temperature = 0, .top_p = 1, .repetition_penalty = 1});
    assert_int_equal(i32(c.out.token)[0], 5);
    f32(c.w)[5] = 1;
    draw(c, (SampleParams){.temperature = 0, .top_p = 1, .repetition_penalty = 1});
    assert_int_equal(i32(c.out.token)[0], 3);
    f32(c.w)[5] = 2;
    int count[10] = {0};
    draw(c, (SampleParams){.temperature = 1, .top_k = 2, .top_p = 1, .repetition_penalty = 1});
    for (int64_t b = 0; b < c.B; b++) count[i32(c.out.token)[b]]++;
    for (int v = 0; v < 10; v++) assert_true((count[v] > 0) == (v == 3 || v == 5 || v == 7 || v == 8));
    // Ten equal tokens, top_p 0.8: two tenths go, the lowest ids first in a stable ascending order.
    for (int64_t v = 0; v < c.V; v++) f32(c.w)[v] = 1, count[v] = 0;
    draw(c, (SampleParams){.temperature = 1, .top_p = 0.8f, .repetition_penalty = 1});
    for (int64_t b = 0; b < c.B; b++) count[i32(c.out.token)[b]]++;
    for (int v = 0; v < 10; v++) assert_true((count[v] > 0) == (v >= 2));
    free_case(c);
}

// Drawn frequencies against the exact distribution: chi-square with cells of at least 8 expected draws.
static void test_frequencies(void **state) {
    static const int which[] = {0, 2, 4, 6, 8, 9, 11};
    for (size_t s = 0; s < sizeof which / sizeof *which; s++) {
        int64_t draws = most_threads() > 1 ? 20000 : 400, V = 60; // a device under emulation takes its time
        Case c = new_case(F32, draws, V, 4, 1.5f);
        for (int64_t b = 0; b < draws; b++) {
            memcpy(f32(c.x) + b * c.D, f32(c.x), (size_t)c.D * sizeof(float));
            i64(c.key)[b] = b % 100, i32(c.pos)[b] = (int32_t)(b / 100), i32(c.seen_len)[b] = 8;
            memcpy(i32(c.seen) + b * c.C, i32(c.seen), (size_t)c.C * sizeof(int32_t));
        }
        draw(c, settings[which[s]]);
        Reference r = refer(c, 0, settings[which[s]]);
        double count[60] = {0}, chi = 0, rest = 0, rest_count = 0;
        int cells = 0;
        for (int64_t b = 0; b < draws; b++) count[i32(c.out.token)[b]]++;
        for (int64_t v = 0; v < V; v++) {
            double want = r.p[v] * (double)draws;
            if (want == 0) assert_true(count[v] == 0);
            if (want < 8) rest += want, rest_count += count[v];
            else chi += (count[v] - want) * (count[v] - want) / want, cells++;
        }
        if (rest >= 8) chi += (rest_count - rest) * (rest_count - rest) / rest, cells++;
        // 1 - 1e-4 quantile of chi-square by Wilson and Hilferty's approximation
        double df = cells - 1, q = 1 - 2 / (9 * df) + 3.719 * sqrt(2 / (9 * df));
        assert_true(cells > 4 && chi < df * q * q * q);
        free_reference(r);
        free_case(c);
    }
}

// What comes with a token is what `logprob` gives for it, and none of it depends on batch, place or threads. Rows of an
// odd width take another path to the product; what follows the product is the same, so few settings do.
static void test_purity(void **state) {
    for (int kind = 0; kind < 4; kind++)
        for (size_t s = 0; s < SETTINGS; s += kind & 2 ? 4 : 1) {
            Case c = new_case(kind & 1 ? BF16 : F32, 70, 2300, kind & 2 ? 65 : 48, 0.3f), again = c;
            draw(c, settings[s]);
            assert_trained_the_same(c, settings[s].temperature);
            for (int k = 0; k < batchings(); k++)
                for (int threads = 1; threads <= most_threads(); threads++) {
                    set_threads(threads);
                    again.out = new_out(c.B);
                    Case g = send(again);
                    for (int64_t b = 0, n; b < c.B; b += n) {
                        n = batch_at(k, b, c.B);
                        dev->sample(dev, out_rows(g.out, b, n), tensor_rows(g.x, b, n), g.w, tensor_rows(g.key, b, n),
                                    tensor_rows(g.pos, b, n), tensor_rows(g.seen, b, n), tensor_rows(g.seen_len, b, n),
                                    settings[s]);
                    }
                    fetch(again, g);
                    assert_same_out(again.out, c.out);
                    free_out(again.out);
                }
            set_threads(2);
            free_case(c);
        }
}

// Rows enough for Hopper's kernel: what the portable one draws and gives, idle rows left alone, and what `logprob`
// gives there. Where the two kinds of tensor cores differ, it is not used.
static void test_hopper(void **state) {
    static const int64_t sizes[][3] = {{130, 1032, 72}, {200, 390, 1096}, {65, 136, 8}}; // B V D
    if (!test_emulated(__func__)) skip();
    Device *portable = dev;
    for (int alike = 1; alike >= 0; alike--) {
        Device *hopper = test_hopper_device(alike);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (size_t s = 0; s < 3; s++) {
                Case want = new_case(BF16, sizes[i][0], sizes[i][1], sizes[i][2], 0.3f), got = want;
                for (int64_t b = 5; b < want.B; b += 9) i64(want.key)[b] = -1;
                got.out = new_out(want.B);
                dev = portable, draw(want, settings[s]);
                dev = hopper;
                int64_t before = emu_launches("head_hopper_kernel");
                draw(got, settings[s]);
                assert_int_equal(emu_launches("head_hopper_kernel") - before, alike);
                assert_same_out(got.out, want.out);
                free_out(got.out);
                for (int64_t b = 5; b < want.B; b += 9) i64(want.key)[b] = b;
                dev = hopper, draw(want, settings[s]), assert_trained_the_same(want, settings[s].temperature);
                free_case(want);
            }
        device_close(hopper);
    }
    dev = portable;
}

static void test_idle_rows(void **state) {
    for (size_t s = 0; s < SETTINGS; s++) {
        Case c = new_case(F32, 30, 1500, 8, 1), idle;
        draw(c, settings[s]);
        idle = c;
        idle.out = new_out(c.B), idle.key = new_tensor(I64, c.B, 1);
        for (int64_t b = 0; b < c.B; b++) {
            i64(idle.key)[b] = b % 3 ? i64(c.key)[b] : -1;
            i32(idle.out.token)[b] = -5, f32(idle.out.logp)[b] = 5;
            f32(idle.out.lse)[b] = 6, f32(idle.out.entropy)[b] = 7;
        }
        draw(idle, settings[s]);
        for (int64_t b = 0; b < c.B; b++) {
            assert_int_equal(i32(idle.out.token)[b], b % 3 ? i32(c.out.token)[b] : -5);
            assert_true(f32(idle.out.logp)[b] == (b % 3 ? f32(c.out.logp)[b] : 5));
            assert_true(f32(idle.out.lse)[b] == (b % 3 ? f32(c.out.lse)[b] : 6));
            assert_true(f32(idle.out.entropy)[b] == (b % 3 ? f32(c.out.entropy)[b] : 7));
            i64(idle.key)[b] = -1;
        }
        draw(idle, settings[s]); // nobody at all
        free_out(idle.out), free(idle.key.data);
        free_case(c);
    }
}

// At the real vocabulary sampling a large batch stays within the scratch, filtered or not, and gives the trainer's
// numbers.
static void test_real_vocabulary(void **state) {
    Case c = new_case(BF16, 110, 151936, 8, 1); // filtered, more rows than one pass takes
    static const int which[] = {0, 11};
    for (int k = 0; k < 2; k++) {
        SampleParams p = settings[which[k]];
        p.temperature = 0.9f;
        dev->scratch.peak = 0;
        draw(c, p);
        assert_true(dev->scratch.peak <= dev->scratch.cap);
        assert_trained_the_same(c, p.temperature);
    }
    free_case(c);
}

int main(void) {
    test_hopper_without("off:matmul,product,attention,attention_bwd");
    dev = test_device(2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox),    cmocka_unit_test(test_draws),           cmocka_unit_test(test_flat),
        cmocka_unit_test(test_ties),      cmocka_unit_test(test_frequencies),     cmocka_unit_test(test_purity),
        cmocka_unit_test(test_idle_rows), cmocka_unit_test(test_real_vocabulary), cmocka_unit_test(test_hopper),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(dev);
    return failed;
}
