// The numerics contract of attention, with memcmp: a token's output is the same bits in a packed pass and in decode, at
// any packing, thread count and split of the cache; keys it may not see have no influence at all.
#include "cases.h"
#include "child.h"
#include "on_device.h"
#include "staging.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#ifdef _OPENMP
#include <omp.h>
#else
static void omp_set_num_threads(int n) {}
static int omp_get_max_threads(void) { return 1; }
#endif

int64_t emu_launches(const char *kernel) __attribute__((weak));

typedef struct {
    int H, K, d;
} Heads;
static const Heads heads[] = {{7, 1, 64}, {6, 2, 128}, {2, 2, 6}, {4, 2, 16}, {18, 1, 34}, {3, 1, 256}};
static const DType dtypes[] = {F32, BF16};
static const int lengths[] = {1, 0, 63, 64, 65, 2, 0, 128, 150, 5, -1};
enum { TOKENS = 478, SEQUENCES = 10 };

typedef struct {
    Heads h;
    DType t;
    Tensor qkv, y, lse; // [T, H+2K, d], [T, H, d], [T, H]
    int32_t seq[SEQUENCES + 1];
    size_t qkv_row, y_row; // bytes of a token
} Pass;

static Tensor room(DType t, int64_t a, int64_t b, int64_t e) {
    Tensor x = tensor3(NULL, t, a, b, e);
    x.data = xcalloc(1, tensor_bytes(x) + 64);
    return x;
}

// The ops on host memory: inputs go to the device, outputs come back.
static void attention_from(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv) {
    Tensor x[] = {to_device(d, y), to_device(d, lse), to_device(d, qkv), to_device(d, seq),
                  present(prefix) ? to_device(d, prefix) : NONE};
    d->attention(d, x[0], x[1], x[2], x[3], x[4], n_kv);
    device_fetch(d, y.data, x[0]);
    device_fetch(d, lse.data, x[1]);
    for (size_t i = 0; i < sizeof x / sizeof *x; i++)
        if (present(x[i])) device_drop(d, x[i]);
}
static void attention(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, int n_kv) {
    attention_from(d, y, lse, qkv, seq, NONE, n_kv);
}
static void attention_bwd(Device *d, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv, Tensor seq,
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
static void decode(Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, int n_kv) {
    Tensor dy = to_device(d, y), dqkv = to_device(d, qkv), dkv = to_device(d, kv), dspan = to_device(d, span);
    d->decode(d, dy, dqkv, dkv, dspan, n_kv);
    device_fetch(d, y.data, dy);
    device_drop(d, dy), device_drop(d, dqkv), device_drop(d, dkv), device_drop(d, dspan);
}

static Pass pass_new(Device *d, Heads h, DType t) {
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
static void pass_free(Pass *p) {
    free(p->qkv.data);
    free(p->y.data);
    free(p->lse.data);
}
static void for_passes(Device *d, void (*f)(Device *d, Pass *p)) {
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++) {
            Pass p = pass_new(d, heads[i], dtypes[t]);
            f(d, &p);
            pass_free(&p);
        }
}

// Every token of every sequence as one decode step, over a cache filled with NaN where the span does not point.
static void check_decode(Device *d, Pass *p) {
    int64_t H = p->h.H, K = p->h.K, hd = p->h.d, R = 2 * TOKENS + 40;
    Tensor kv = room(p->t, R, 2 * K, hd), y = room(p->t, TOKENS, H, hd);
    int32_t *span = xcalloc(TOKENS, 4 * sizeof *span);
    size_t half = tensor_bytes(kv) / (size_t)R, q = (size_t)(H * hd) * dtype_size(p->t);
    Case random = {.random = 11};
    for (int64_t i = 0; i < tensor_numel(kv); i++) tensor_set(kv, i, NAN);
    for (int b = 0; b < SEQUENCES; b++) {
        // The sequence's first `cut` tokens lie in the upper half of the cache, the rest in the lower.
        int32_t start = p->seq[b], n = lengths[b], cut = (int32_t)case_below(&random, n + 1),
                upper = TOKENS + 20 + start;
        for (int32_t j = 0; j < n; j++)
            memcpy((char *)kv.data + half * (size_t)(j < cut ? upper + j : start + j - cut),
                   (char *)p->qkv.data + p->qkv_row * (size_t)(start + j) + q, half);
        for (int32_t j = 0; j < n; j++) {
            int32_t prefix = j + 1 < cut ? j + 1 : cut;
            memcpy(span + 4 * (start + j), (int32_t[]){upper, prefix, start, j + 1 - prefix}, 4 * sizeof *span);
        }
    }
    decode(d, y, p->qkv, kv, tensor2(span, I32, TOKENS, 4), (int)K);
    assert_memory_equal(y.data, p->y.data, tensor_bytes(y));
    for (int64_t t = 0; t < TOKENS; t += 37) { // alone in a batch
        memset(y.data, 0, p->y_row);
        decode(d, tensor_rows(y, 0, 1), tensor_rows(p->qkv, t, 1), kv, tensor2(span + 4 * t, I32, 1, 4), (int)K);
        assert_memory_equal(y.data, (char *)p->y.data + p->y_row * (size_t)t, p->y_row);
    }
    free(kv.data);
    free(y.data);
    free(span);
}
static void decode_equals_prefill(void **state) { for_passes(*state, check_decode); }

// Sequences in reverse order, between rows of NaN that belong to others; then each sequence alone.
static void check_packing(Device *d, Pass *p) {
    int32_t seq[2 * SEQUENCES + 2] = {0}, from[SEQUENCES];
    for (int i = 0; i < SEQUENCES; i++) { // sequence 2i is a foreign one of 3 tokens, 2i+1 ours
        from[i] = p->seq[SEQUENCES - 1 - i];
        seq[2 * i + 1] = seq[2 * i] + 3;
        seq[2 * i + 2] = seq[2 * i + 1] + lengths[SEQUENCES - 1 - i];
    }
    int64_t T = seq[2 * SEQUENCES], rows = T + 4; // four rows at the end belong to nobody
    Tensor qkv = room(p->t, rows, p->qkv.dim[1], p->h.d), y = room(p->t, rows, p->h.H, p->h.d);
    Tensor lse = room(F32, rows, p->h.H, 1);
    for (int64_t i = 0; i < tensor_numel(qkv); i++) tensor_set(qkv, i, NAN);
    memset(y.data, 0x5a, tensor_bytes(y));
    for (int i = 0; i < SEQUENCES; i++)
        memcpy((char *)qkv.data + p->qkv_row * (size_t)seq[2 * i + 1],
               (char *)p->qkv.data + p->qkv_row * (size_t)from[i],
               p->qkv_row * (size_t)(seq[2 * i + 2] - seq[2 * i + 1]));
    attention(d, y, lse, qkv, tensor1(seq, I32, 2 * SEQUENCES + 1), p->h.K);
    for (int i = 0; i < SEQUENCES; i++) {
        size_t n = (size_t)(seq[2 * i + 2] - seq[2 * i + 1]), at = (size_t)seq[2 * i + 1], home = (size_t)from[i];
        assert_memory_equal((char *)y.data + p->y_row * at, (char *)p->y.data + p->y_row * home, p->y_row * n);
        assert_memory_equal(f32(lse) + at * (size_t)p->h.H, f32(p->lse) + home * (size_t)p->h.H,
                            4 * n * (size_t)p->h.H);
    }
    for (int64_t i = T * p->h.H * p->h.d; i < tensor_numel(y); i++) assert_true(tensor_get(y, i) == 0);
    for (int b = 0; b < SEQUENCES; b++) {
        int32_t one[] = {0, lengths[b]};
        attention(d, y, lse, tensor_rows(p->qkv, p->seq[b], lengths[b]), tensor1(one, I32, 2), p->h.K);
        assert_memory_equal(y.data, (char *)p->y.data + p->y_row * (size_t)p->seq[b], p->y_row * (size_t)lengths[b]);
    }
    free(qkv.data);
    free(y.data);
    free(lse.data);
}
static void any_packing_gives_the_same_bits(void **state) { for_passes(*state, check_packing); }

// Sequences that share their first tokens, which stand once: every row has the bits it has in a sequence of its own.
static void check_prefix(Device *d, Pass *p) {
    static const int cuts[] = {1, 40, 64, 99, 149};
    enum { MOST = 150 }; // tokens of sequence 8
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        // The prefix, its own rest, a foreign sequence's first tokens instead of it, and its own rest once more.
        int32_t cut = cuts[i], rest = MOST - cut, seq[] = {0, cut, cut + rest, 2 * MOST - cut, 2 * MOST - cut + rest};
        int32_t prefix[] = {-1, 0, 0, 0}, start = p->seq[8];
        Tensor qkv = room(p->t, seq[4], p->qkv.dim[1], p->h.d), y = room(p->t, seq[4], p->h.H, p->h.d);
        Tensor lse = room(F32, seq[4], p->h.H, 1);
        for (int b = 0; b < 4; b++)
            memcpy((char *)qkv.data + p->qkv_row * (size_t)seq[b],
                   (char *)p->qkv.data + p->qkv_row * (size_t)(b == 0   ? start
                                                               : b == 2 ? 7
                                                                        : start + cut),
                   p->qkv_row * (size_t)(seq[b + 1] - seq[b]));
        attention_from(d, y, lse, qkv, tensor1(seq, I32, 5), tensor1(prefix, I32, 4), p->h.K);
        for (int b = 0; b < 4; b++) {
            if (b == 2) continue;
            size_t home = (size_t)(b ? start + cut : start), n = (size_t)(seq[b + 1] - seq[b]), at = (size_t)seq[b];
            assert_memory_equal((char *)y.data + p->y_row * at, (char *)p->y.data + p->y_row * home, p->y_row * n);
            assert_memory_equal(f32(lse) + at * (size_t)p->h.H, f32(p->lse) + home * (size_t)p->h.H,
                                4 * n * (size_t)p->h.H);
        }
        free(qkv.data);
        free(y.data);
        free(lse.data);
    }
}
static void a_shared_prefix_gives_the_same_bits(void **state) { for_passes(*state, check_prefix); }

// What each sequence adds to the gradients of its prefix's keys is added in their order: 2^30 and -2^30 first, then 1,
// which they would have swallowed. All scores are 0, so that every weight is half.
static void a_prefix_sums_in_order(void **state) {
    Device *d = *state;
    enum { T = 4, D = 8, PARTS = 4 };
    static const float gradient[T] = {0, 0x1p30f, -0x1p30f, 1};
    int32_t seq[] = {0, 1, 2, 3, 4}, prefix[] = {-1, 0, 0, 0};
    for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++) {
        Tensor qkv = room(dtypes[t], T, 3, D), dqkv = room(dtypes[t], T, 3, D), y = room(dtypes[t], T, 1, D);
        Tensor dy = room(dtypes[t], T, 1, D), lse = room(F32, T, 1, 1), from = tensor1(prefix, I32, PARTS);
        for (int64_t i = 0; i < T * D; i++) tensor_set(dy, i, gradient[i / D]);
        attention_from(d, y, lse, qkv, tensor1(seq, I32, PARTS + 1), from, 1);
        attention_bwd(d, dqkv, dy, y, lse, qkv, tensor1(seq, I32, PARTS + 1), from, 1);
        for (int64_t i = 0; i < D; i++) assert_true(fabsf(tensor_get(dqkv, 2 * D + i) - 0.5f) < 1e-3f);
        free(qkv.data), free(dqkv.data), free(y.data), free(dy.data), free(lse.data);
    }
}

// A token's output does not change when later tokens of its sequence become NaN.
static void check_future(Device *d, Pass *p) {
    Tensor y = room(p->t, TOKENS, p->h.H, p->h.d), lse = room(F32, TOKENS, p->h.H, 1);
    for (int b = 0; b < SEQUENCES; b++)
        for (int32_t t = p->seq[b] + lengths[b] / 2 + 1; t < p->seq[b + 1]; t++)
            for (int64_t i = 0; i < tensor_width(p->qkv); i++) tensor_set(p->qkv, t * tensor_width(p->qkv) + i, NAN);
    attention(d, y, lse, p->qkv, tensor1(p->seq, I32, SEQUENCES + 1), p->h.K);
    for (int b = 0; b < SEQUENCES; b++) {
        int32_t n = lengths[b] ? lengths[b] / 2 + 1 : 0;
        size_t at = p->y_row * (size_t)p->seq[b];
        assert_memory_equal((char *)y.data + at, (char *)p->y.data + at, p->y_row * (size_t)n);
        for (int32_t t = p->seq[b] + n; t < p->seq[b + 1]; t++) assert_true(isnan(tensor_get(y, t * p->h.H * p->h.d)));
    }
    free(y.data);
    free(lse.data);
}
static void the_future_has_no_influence(void **state) { for_passes(*state, check_future); }

static void check_threads(Device *d, Pass *p) {
    int usual = omp_get_max_threads();
    Tensor qkv = p->qkv, y = room(p->t, TOKENS, p->h.H, p->h.d), lse = room(F32, TOKENS, p->h.H, 1);
    Tensor dqkv = room(p->t, TOKENS, qkv.dim[1], p->h.d), first = room(p->t, TOKENS, qkv.dim[1], p->h.d);
    Tensor seq = tensor1(p->seq, I32, SEQUENCES + 1);
    int most = d->on_host ? 3 : 2; // elsewhere threads have no say: the same again
    for (int threads = 1; threads <= most; threads++) {
        omp_set_num_threads(threads);
        attention(d, y, lse, qkv, seq, p->h.K);
        assert_memory_equal(y.data, p->y.data, tensor_bytes(y));
        assert_memory_equal(lse.data, p->lse.data, tensor_bytes(lse));
        attention_bwd(d, threads == 1 ? first : dqkv, y, y, lse, qkv, seq, NONE, p->h.K);
        if (threads > 1) assert_memory_equal(dqkv.data, first.data, tensor_bytes(dqkv));
    }
    omp_set_num_threads(usual);
    free(y.data);
    free(lse.data);
    free(dqkv.data);
    free(first.data);
}
static void any_thread_count_gives_the_same_bits(void **state) { for_passes(*state, check_threads); }

// rope stores in the cache what it leaves in qkv, so that decode meets the keys that attention met.
static void rope_fills_the_cache(void **state) {
    Device *d = *state;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        Pass p = pass_new(d, heads[0], dtypes[i]);
        int64_t K = p.h.K, H = p.h.H, hd = p.h.d;
        Tensor kv = room(p.t, TOKENS, 2 * K, hd);
        int32_t pos[TOKENS], row[TOKENS];
        for (int t = 0; t < TOKENS; t++) pos[t] = t % 70, row[t] = t == 3 ? -1 : (t * 5 + 1) % TOKENS;
        Tensor x[] = {to_device(d, p.qkv), to_device(d, tensor1(pos, I32, TOKENS)), to_device(d, kv),
                      to_device(d, tensor1(row, I32, TOKENS))};
        RopeTable table = rope_table((RopeSpec){.theta = 1e6f}, (int)hd);
        d->rope(d, x[0], NONE, x[1], &table, (int)K, x[2], x[3]);
        device_fetch(d, p.qkv.data, x[0]);
        device_fetch(d, kv.data, x[2]);
        for (size_t j = 0; j < sizeof x / sizeof *x; j++) device_drop(d, x[j]);
        size_t half = tensor_bytes(kv) / TOKENS, q = (size_t)(H * hd) * dtype_size(p.t);
        char *zero = xcalloc(1, half);
        for (int t = 0; t < TOKENS; t++)
            assert_memory_equal((char *)kv.data + half * (size_t)((t * 5 + 1) % TOKENS),
                                t == 3 ? zero : (char *)p.qkv.data + p.qkv_row * (size_t)t + q, half);
        free(zero);
        free(kv.data);
        pass_free(&p);
    }
}

// Groups of rows that share a prefix, cut anywhere, with rows of no sequence between them: the same bits as each row
// alone, which are those of a packed pass.
static void check_groups(Device *d, Pass *p) {
    static const int groups[] = {1, 2, 7, 64};
    enum { LEN = 150, SEQ = 8, ROWS = 64 };
    int64_t H = p->h.H, K = p->h.K, hd = p->h.d, R = LEN + ROWS * (LEN + 1);
    Tensor kv = room(p->t, R, 2 * K, hd), qkv = room(p->t, ROWS, H + 2 * K, hd), y = room(p->t, ROWS, H, hd);
    size_t half = tensor_bytes(kv) / (size_t)R, q = (size_t)(H * hd) * dtype_size(p->t);
    const char *token = (char *)p->qkv.data + p->qkv_row * (size_t)p->seq[SEQ];
    assert_int_equal(lengths[SEQ], LEN);
    Case random = {.random = 13};
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        int32_t span[ROWS * 4], prefix = 0, at[ROWS];
        for (int64_t i = 0; i < tensor_numel(kv); i++) tensor_set(kv, i, NAN);
        for (int32_t j = 0; j < LEN; j++)
            memcpy((char *)kv.data + half * (size_t)j, token + p->qkv_row * (size_t)j + q, half);
        for (int32_t b = 0; b < ROWS; b++) {
            if (b % groups[g] == 0) prefix = (int32_t)case_below(&random, LEN + 1);
            at[b] = b % 9 == 5 ? -1 : prefix + (int32_t)case_below(&random, LEN - prefix + 1) - 1; // its last key
            int32_t suffix_row = LEN + b * (LEN + 1), keys = at[b] + 1;
            for (int32_t j = prefix; j < keys; j++)
                memcpy((char *)kv.data + half * (size_t)(suffix_row + j - prefix), token + p->qkv_row * (size_t)j + q,
                       half);
            memcpy(span + 4 * b,
                   (int32_t[]){0, keys > prefix ? prefix : keys, suffix_row, keys > prefix ? keys - prefix : 0},
                   4 * sizeof *span);
            memcpy((char *)qkv.data + p->qkv_row * (size_t)b, token + p->qkv_row * (size_t)(at[b] < 0 ? 0 : at[b]),
                   p->qkv_row);
        }
        decode(d, y, qkv, kv, tensor2(span, I32, ROWS, 4), (int)K);
        for (int b = 0; b < ROWS; b++) {
            const char *got = (char *)y.data + p->y_row * (size_t)b;
            if (at[b] >= 0)
                assert_memory_equal(got, (char *)p->y.data + p->y_row * (size_t)(p->seq[SEQ] + at[b]), p->y_row);
            else
                for (size_t i = 0; i < p->y_row; i++) assert_true(got[i] == 0);
        }
        for (int n = 2; n <= 7; n += 5) // fewer rows at a time, begun within a group
            for (int b = 3; b + n <= ROWS; b += 17) {
                Tensor part = tensor_rows(y, 0, n);
                decode(d, part, tensor_rows(qkv, b, n), kv, tensor2(span + 4 * b, I32, n, 4), (int)K);
                for (int i = 0; i < n; i++)
                    if (at[b + i] >= 0)
                        assert_memory_equal((char *)part.data + p->y_row * (size_t)i,
                                            (char *)p->y.data + p->y_row * (size_t)(p->seq[SEQ] + at[b + i]), p->y_row);
            }
    }
    free(kv.data);
    free(qkv.data);
    free(y.data);
}
static void groups_share_a_prefix(void **state) { for_passes(*state, check_groups); }

// Contexts of many chunks, with as much scratch as there is and with little: the bits of a packed pass.
static void long_contexts_need_no_scratch(void **state) {
    Device *d = *state;
    enum { T = 1300, H = 8, K = 2, D = 16, ROWS = 4, SCRATCH = 12 << 10 };
    static const int32_t keys[ROWS] = {T, 1100, 700, 1216};
    for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++) {
        Tensor qkv = room(dtypes[t], T, H + 2 * K, D), y = room(dtypes[t], T, H, D), lse = room(F32, T, H, 1);
        Tensor q = room(dtypes[t], ROWS, H + 2 * K, D), kv = room(dtypes[t], T, 2 * K, D);
        Tensor got = room(dtypes[t], ROWS, H, D);
        size_t token = tensor_bytes(qkv) / T, half = tensor_bytes(kv) / T, row = tensor_bytes(y) / T;
        int32_t seq[] = {0, T}, span[4 * ROWS];
        Case random = {.random = 17};
        for (int64_t i = 0; i < tensor_numel(qkv); i++) tensor_set(qkv, i, (float)(2 * case_normal(&random)));
        attention(d, y, lse, qkv, tensor1(seq, I32, 2), K);
        for (int j = 0; j < T; j++)
            memcpy((char *)kv.data + half * (size_t)j, (char *)qkv.data + token * (size_t)(j + 1) - half, half);
        for (int b = 0; b < ROWS; b++) { // the second and the third share a prefix
            int32_t prefix = b == 0 ? 0 : b == 3 ? keys[b] : 670;
            memcpy(span + 4 * b, (int32_t[]){0, prefix, prefix, keys[b] - prefix}, 4 * sizeof *span);
            memcpy((char *)q.data + token * (size_t)b, (char *)qkv.data + token * (size_t)(keys[b] - 1), token);
        }
        for (int little = 0; little < 2; little++) {
            size_t mark = arena_mark(&d->scratch);
            if (little) arena_take(&d->scratch, d->scratch.cap - d->scratch.used - SCRATCH);
            decode(d, got, q, kv, tensor2(span, I32, ROWS, 4), K);
            arena_rewind(&d->scratch, mark);
            for (size_t b = 0; b < ROWS; b++)
                assert_memory_equal((char *)got.data + row * b, (char *)y.data + row * (size_t)(keys[b] - 1), row);
            decode(d, tensor_rows(got, 0, 1), q, kv, tensor2(span, I32, 1, 4), K);
            assert_memory_equal(got.data, (char *)y.data + row * (T - 1), row);
        }
        free(qkv.data), free(y.data), free(lse.data), free(q.data), free(kv.data), free(got.data);
    }
}

static void an_empty_span_gives_zero(void **state) {
    Device *d = *state;
    Tensor qkv = room(F32, 1, 4, 8), y = room(F32, 1, 2, 8), kv = room(F32, 1, 2, 8);
    int32_t span[4] = {0};
    for (int64_t i = 0; i < 16; i++) tensor_set(y, i, NAN);
    decode(d, y, qkv, kv, tensor2(span, I32, 1, 4), 1);
    for (int64_t i = 0; i < 16; i++) assert_true(tensor_get(y, i) == 0);
    free(qkv.data);
    free(y.data);
    free(kv.data);
}

// A sequence of more keys than the backward pass takes at once: rows of dq, dk and dv here and there, in f64.
static double weight(const Tensor qkv, const Tensor lse, int64_t i, int64_t j, int64_t d, double *ds, Tensor dy,
                     Tensor y) {
    double s = 0, dp = 0, delta = 0;
    for (int64_t c = 0; c < d; c++) {
        s += (double)f32(qkv)[i * 3 * d + c] * (double)f32(qkv)[(j * 3 + 1) * d + c];
        dp += (double)f32(dy)[i * d + c] * (double)f32(qkv)[(j * 3 + 2) * d + c];
        delta += (double)f32(dy)[i * d + c] * (double)f32(y)[i * d + c];
    }
    double p = exp(s / sqrt((double)d) - (double)f32(lse)[i]);
    *ds = p * (dp - delta) / sqrt((double)d);
    return p;
}
static void long_sequences_have_gradients(void **state) {
    Device *d = *state;
    enum { T = 9000, D = 4 };
    int32_t seq[] = {0, T};
    Tensor qkv = room(F32, T, 3, D), y = room(F32, T, 1, D), lse = room(F32, T, 1, 1), dy = room(F32, T, 1, D);
    Tensor dqkv = room(F32, T, 3, D), offsets = tensor1(seq, I32, 2);
    Case random = {.random = 3};
    for (int64_t i = 0; i < tensor_numel(qkv); i++) f32(qkv)[i] = (float)case_normal(&random);
    for (int64_t i = 0; i < tensor_numel(dy); i++) f32(dy)[i] = (float)case_normal(&random);
    attention(d, y, lse, qkv, offsets, 1);
    attention_bwd(d, dqkv, dy, y, lse, qkv, offsets, NONE, 1);
    const int64_t at[] = {0, 63, 4095, 4096, 4097, 8191, 8192, 8500, T - 1};
    for (size_t a = 0; a < sizeof at / sizeof *at; a++) {
        double got[3 * D], want[3 * D] = {0}, ds;
        for (int64_t j = 0; j <= at[a]; j++) { // as a query
            weight(qkv, lse, at[a], j, D, &ds, dy, y);
            for (int c = 0; c < D; c++) want[c] += ds * (double)f32(qkv)[(j * 3 + 1) * D + c];
        }
        for (int64_t i = at[a]; i < T; i++) { // as a key and a value
            double p = weight(qkv, lse, i, at[a], D, &ds, dy, y);
            for (int c = 0; c < D; c++) {
                want[D + c] += ds * (double)f32(qkv)[i * 3 * D + c];
                want[2 * D + c] += p * (double)f32(dy)[i * D + c];
            }
        }
        for (int c = 0; c < 3 * D; c++) got[c] = (double)f32(dqkv)[at[a] * 3 * D + c];
        for (int part = 0; part < 3; part++) {
            if (at[a] == 0 && part == 0) continue; // one key: its weight is 1 whatever q is
            double e = relative_error(got + part * D, want + part * D, D);
            if (!(e <= 2e-5)) fail_msg("token %d, part %d: error %g", (int)at[a], part, e);
        }
    }
    free(qkv.data), free(y.data), free(lse.data), free(dy.data), free(dqkv.data);
}

// The gradients that Hopper's kernel makes of bf16 (tests/emu: EMU_ARCH=90), beside the portable one's; and that their
// bits are those of the sequence alone, however much room there is for the sums.
enum { GRADIENT_PARTS = 7 };
static const int32_t gradient_lengths[GRADIENT_PARTS] = {130, 70, 0, 1, 193, 64, 140};
static const int32_t gradient_prefix[GRADIENT_PARTS] = {-1, 0, 0, 0, -1, 4, -1};

typedef struct {
    Heads h;
    int64_t T; // 3 tokens of no sequence among them
    Tensor qkv, y, lse, dy, seq, prefix;
} Gradient;
static Gradient gradient_new(Device *d, Heads h) {
    Gradient g = {.h = h};
    int32_t *seq = xcalloc(GRADIENT_PARTS + 1, sizeof *seq), *prefix = xcalloc(GRADIENT_PARTS, sizeof *prefix);
    memcpy(prefix, gradient_prefix, sizeof gradient_prefix);
    for (int b = 0; b < GRADIENT_PARTS; b++) seq[b + 1] = seq[b] + gradient_lengths[b];
    g.T = seq[GRADIENT_PARTS] + 3;
    g.seq = tensor1(seq, I32, GRADIENT_PARTS + 1), g.prefix = tensor1(prefix, I32, GRADIENT_PARTS);
    g.qkv = room(BF16, g.T, h.H + 2 * h.K, h.d), g.y = room(BF16, g.T, h.H, h.d), g.dy = room(BF16, g.T, h.H, h.d);
    g.lse = room(F32, g.T, h.H, 1);
    Case random = {.random = 19};
    int64_t each = (h.H + 2 * h.K) * h.d, live = seq[GRADIENT_PARTS];
    for (int64_t i = 0; i < g.T * each; i++)
        tensor_set(g.qkv, i, i < live * each ? (float)(1.5 * case_normal(&random)) : NAN);
    for (int64_t i = 0; i < g.T * h.H * h.d; i++)
        tensor_set(g.dy, i, i < live * h.H * h.d ? (float)case_normal(&random) : NAN);
    attention_from(d, g.y, g.lse, g.qkv, g.seq, g.prefix, h.K);
    return g;
}
static void gradient_free(Gradient *g) {
    Tensor all[] = {g->qkv, g->y, g->lse, g->dy, g->seq, g->prefix};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i].data);
}
// dqkv[T,H+2K,d], and how often the kernel ran.
static Tensor gradient_of(Device *d, const Gradient *g, int64_t *launches) {
    Tensor dqkv = room(BF16, g->T, g->h.H + 2 * g->h.K, g->h.d);
    int64_t before = emu_launches("attention_bwd_hopper_kernel");
    attention_bwd(d, dqkv, g->dy, g->y, g->lse, g->qkv, g->seq, g->prefix, g->h.K);
    *launches = emu_launches("attention_bwd_hopper_kernel") - before;
    return dqkv;
}
static void check_gradient(Device *d, Device *portable, const Gradient *g, int64_t launches) {
    int64_t ran, each = (g->h.H + 2 * g->h.K) * g->h.d, live = (g->T - 3) * each, n = g->T * each;
    Tensor got = gradient_of(d, g, &ran);
    assert_int_equal(ran, launches);
    Tensor again = gradient_of(d, g, &ran), wanted = gradient_of(portable, g, &ran);
    assert_int_equal(ran, 0);
    assert_memory_equal(again.data, got.data, tensor_bytes(got));
    double apart = 0, size = 0;
    for (int64_t i = 0; i < live; i++) {
        double x = tensor_get(got, i), y = tensor_get(wanted, i);
        apart += (x - y) * (x - y), size += y * y;
    }
    if (!(sqrt(apart / size) <= 0x1p-7)) fail_msg("heads of %d: error %g", g->h.d, sqrt(apart / size));
    for (int64_t i = live; i < n; i++) assert_true(tensor_get(got, i) == 0);
    // The last sequence, which shares nothing.
    Gradient one = *g;
    int32_t n_one = gradient_lengths[GRADIENT_PARTS - 1], seq[] = {0, n_one}, from = (int32_t)g->T - 3 - n_one;
    Tensor all[] = {g->qkv, g->y, g->lse, g->dy}, *part[] = {&one.qkv, &one.y, &one.lse, &one.dy};
    for (int i = 0; i < 4; i++) *part[i] = tensor_rows(all[i], from, n_one);
    one.T = n_one, one.seq = tensor1(seq, I32, 2), one.prefix = NONE;
    Tensor alone = gradient_of(d, &one, &ran);
    assert_memory_equal(alone.data, tensor_rows(got, from, n_one).data, tensor_bytes(alone));
    free(got.data), free(again.data), free(wanted.data), free(alone.data);
}
static void check_little_room(Device *d, const Gradient *g, int kv_heads, int parts) {
    int64_t ran;
    int of_kv_heads = 0, of_parts = 0;
    Tensor first = gradient_of(d, g, &ran);
    assert_int_equal(ran, 1);
    for (size_t left = 8 << 20; ran; left = left * 7 / 8) {
        size_t mark = arena_mark(&d->scratch);
        arena_take(&d->scratch, d->scratch.cap - d->scratch.used - left);
        Tensor got = gradient_of(d, g, &ran);
        arena_rewind(&d->scratch, mark);
        of_kv_heads += ran == kv_heads, of_parts += ran == kv_heads * parts;
        if (ran) assert_memory_equal(got.data, first.data, tensor_bytes(first));
        free(got.data);
    }
    assert_true(of_kv_heads && of_parts);
    free(first.data);
}
static Device *device_of_kind(const char *arch) {
    setenv("EMU_ARCH", arch, 1);
    return test_device(0);
}
static void gradients_by_hopper(void **state) {
    static const Heads shapes[] = {{7, 1, 64}, {2, 2, 16}, {10, 2, 96}, {9, 1, 128}, {2, 1, 18}};
    if (!emu_launches || !test_on_cuda()) {
        printf("SKIP %s: another card than this needs the emulation of a GPU (MODE=emu)\n", __func__);
        skip();
    }
    const char *usual = getenv("EMU_ARCH");
    char *kept = usual ? xstrdup(usual) : NULL;
    Device *portable = device_of_kind("80"), *d = device_of_kind("90");
    assert_true(emu_launches("attention_bwd_hopper_kernel") > 0); // it was asked when the device was opened
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        Gradient g = gradient_new(portable, shapes[i]);
        check_gradient(d, portable, &g, shapes[i].d % 8 == 0); // rows of 18 are no multiple of 16 bytes
        if (shapes[i].d == 96) check_little_room(d, &g, 2, 2);
        gradient_free(&g);
    }
    device_close(d), device_close(portable);
    if (kept) setenv("EMU_ARCH", kept, 1);
    else unsetenv("EMU_ARCH");
    free(kept);
}

// A sequence that goes on from one which is not its group's: a packing's mistake, which the twin on the CPU notices.
static void ask_for_a_prefix(const void *with) {
    Device *d = device_open(DEVICE_CPU, 0, 1, CPU_ISA_AUTO, NULL);
    int32_t seq[] = {0, 3, 5, 8}, prefix[] = {-1, -1, *(const int32_t *)with};
    Tensor y = room(F32, 8, 2, 8), lse = room(F32, 8, 2, 1), qkv = room(F32, 8, 4, 8);
    d->attention(d, y, tensor2(lse.data, F32, 8, 2), qkv, tensor1(seq, I32, 4), tensor1(prefix, I32, 3), 1);
}
static void a_prefix_that_is_none_dies(void **state) {
    for (int32_t p = 0; p < 4; p++) {
        char says[80];
        if (p == 1) continue; // the one before it
        snprintf(says, sizeof says, "attention: sequence 2 cannot go on from sequence %d of 3", p);
        assert_dies(ask_for_a_prefix, &p, says);
    }
}

// ---- the kernel for Hopper cards ------------------------------------------------------------------------------------
// The emulator's (tests/emu/emu.h): where it is, it is asked to be such a card.
int64_t emu_launches(const char *kernel) __attribute__((weak));
static int64_t on_hopper(void) { return emu_launches("attention_hopper_kernel"); }
static bool has_emulator(const char *test) {
    if (emu_launches && test_on_cuda()) return true;
    printf("SKIP %s: another card than this needs the emulation of a GPU (MODE=emu)\n", test);
    return false;
}
// A Hopper card, with one more thing about it where that is not NULL.
static Device *open_hopper(const char *name, const char *value) {
    const char *before = getenv("EMU_ARCH");
    char *arch = before ? xstrdup(before) : NULL;
    setenv("EMU_ARCH", "90", 1);
    if (name) setenv(name, value, 1);
    Device *d = test_device(2);
    if (name) unsetenv(name);
    if (arch) setenv("EMU_ARCH", arch, 1);
    else unsetenv("EMU_ARCH");
    free(arch);
    return d;
}
// One that takes the portable kernel, for lack of shared memory.
static Device *open_portable(void) { return open_hopper("EMU_SHARED_KIB", "100"); }

static const Heads on_boxes[] = {{7, 1, 64}, {4, 2, 128}, {2, 2, 16}, {8, 1, 40}, {1, 1, 104}};

// What the portable kernel made of a pass is what this one makes of it, in other packings, behind prefixes, before NaN.
static void hopper_gives_the_same_bits(void **state) {
    if (!has_emulator(__func__)) skip();
    Device *hopper = open_hopper(NULL, NULL), *portable = open_portable();
    for (size_t i = 0; i < sizeof on_boxes / sizeof *on_boxes; i++) {
        int64_t before = on_hopper();
        Pass p = pass_new(portable, on_boxes[i], BF16);
        assert_int_equal(on_hopper(), before);
        check_packing(hopper, &p);
        check_prefix(hopper, &p);
        check_future(hopper, &p);
        assert_int_equal(on_hopper(), before + 1 + 5 + 1 + SEQUENCES - 2); // two are empty
        pass_free(&p);
    }
    device_close(hopper), device_close(portable);
}

// Packs of any lengths with and without prefixes, infinities and NaN anywhere.
static void hopper_takes_what_is_not_finite(void **state) {
    if (!has_emulator(__func__)) skip();
    enum { MOST = 600, PARTS = 6 };
    Device *hopper = open_hopper(NULL, NULL), *portable = open_portable();
    for (uint64_t seed = 1; seed <= 12; seed++) {
        Case random = {.random = seed};
        Heads h = on_boxes[seed % (sizeof on_boxes / sizeof *on_boxes)];
        int32_t seq[PARTS + 1] = {0}, prefix[PARTS];
        for (int b = 0; b < PARTS; b++) {
            bool whole = case_below(&random, 4) == 0;
            seq[b + 1] = seq[b] + (int32_t)(whole ? 64 * case_below(&random, 3) : case_below(&random, 99));
            prefix[b] = b > 1 && case_below(&random, 2) ? (int32_t)case_below(&random, 2) : -1;
        }
        Tensor qkv = room(BF16, MOST, h.H + 2 * h.K, h.d), y = room(BF16, MOST, h.H, h.d),
               got = room(BF16, MOST, h.H, h.d);
        Tensor lse = room(F32, MOST, h.H, 1), lse_got = room(F32, MOST, h.H, 1);
        for (int64_t i = 0; i < tensor_numel(qkv); i++) tensor_set(qkv, i, (float)case_normal(&random));
        for (int n = 0; n < 12 && seed % 4; n++)
            tensor_set(qkv, case_below(&random, tensor_numel(qkv)),
                       n % 3 == 0   ? NAN
                       : n % 3 == 1 ? INFINITY
                                    : -INFINITY);
        Tensor offsets = tensor1(seq, I32, PARTS + 1), from = tensor1(prefix, I32, PARTS);
        attention_from(portable, y, lse, qkv, offsets, from, h.K);
        int64_t before = on_hopper();
        attention_from(hopper, got, lse_got, qkv, offsets, from, h.K);
        assert_int_equal(on_hopper(), before + 1);
        assert_memory_equal(got.data, y.data, tensor_bytes(y));
        for (int64_t i = 0; i < tensor_numel(lse); i++)
            assert_true(f32(lse)[i] == f32(lse_got)[i] || (isnan(f32(lse)[i]) && isnan(f32(lse_got)[i])));
        free(qkv.data), free(y.data), free(got.data), free(lse.data), free(lse_got.data);
    }
    device_close(hopper), device_close(portable);
}

// Cards whose products add in another order, or which lack the shared memory, and rows that cannot be copied as boxes.
static void hopper_is_left_out(void **state) {
    if (!has_emulator(__func__)) skip();
    static const char *const why[][3] = {{"EMU_UNITS", "unlike", "portable kernel's here"},
                                         {"EMU_SHARED_KIB", "100", "too little shared memory"}};
    for (int i = 0; i < 2; i++) {
        char line[VARIANT_LINE] = "";
        Device *d = open_hopper(why[i][0], why[i][1]);
        for (int k = 0; d->variant(d, k, line) && !strstr(line, "attention"); k++) continue;
        assert_non_null(strstr(line, why[i][2]));
        int64_t before = on_hopper();
        Pass p = pass_new(d, heads[0], BF16);
        assert_int_equal(on_hopper(), before);
        pass_free(&p);
        device_close(d);
    }
    Device *d = open_hopper(NULL, NULL);
    int64_t before = on_hopper();
    Pass odd = pass_new(d, heads[2], BF16), large = pass_new(d, heads[5], BF16), f32 = pass_new(d, heads[0], F32);
    assert_int_equal(on_hopper(), before);
    pass_free(&odd), pass_free(&large), pass_free(&f32);
    device_close(d);
}

static int open_device(void **state) { return (*state = test_device(0)) ? 0 : -1; }
static int close_device(void **state) {
    device_close(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prefix_that_is_none_dies), // the first: its children have no threads of this process
        cmocka_unit_test(hopper_gives_the_same_bits),
        cmocka_unit_test(hopper_takes_what_is_not_finite),
        cmocka_unit_test(hopper_is_left_out),
        cmocka_unit_test(decode_equals_prefill),
        cmocka_unit_test(groups_share_a_prefix),
        cmocka_unit_test(any_packing_gives_the_same_bits),
        cmocka_unit_test(a_shared_prefix_gives_the_same_bits),
        cmocka_unit_test(a_prefix_sums_in_order),
        cmocka_unit_test(the_future_has_no_influence),
        cmocka_unit_test(any_thread_count_gives_the_same_bits),
        cmocka_unit_test(rope_fills_the_cache),
        cmocka_unit_test(an_empty_span_gives_zero),
        cmocka_unit_test(long_contexts_need_no_scratch),
        cmocka_unit_test(long_sequences_have_gradients),
        cmocka_unit_test(gradients_by_hopper),
    };
    return cmocka_run_group_tests_name("attention", tests, open_device, close_device);
}
