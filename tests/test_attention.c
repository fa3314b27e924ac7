// The numerics contract of attention, with memcmp: a token's output is the same bits in a packed pass and in decode, at
// any packing, thread count and split of the cache; keys it may not see have no influence at all.
#include "attention_case.h"
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

static const Heads heads[] = {{7, 1, 64}, {6, 2, 128}, {2, 2, 6}, {4, 2, 16}, {18, 1, 34}, {3, 1, 256}};
static const DType dtypes[] = {F32, BF16};

static void decode(Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, int n_kv) {
    Tensor dy = to_device(d, y), dqkv = to_device(d, qkv), dkv = to_device(d, kv), dspan = to_device(d, span);
    d->decode(d, dy, dqkv, dkv, dspan, n_kv);
    device_fetch(d, y.data, dy);
    device_drop(d, dy), device_drop(d, dqkv), device_drop(d, dkv), device_drop(d, dspan);
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
        Tensor qkv = zeros(dtypes[t], T, 3, D), dqkv = room(dtypes[t], T, 3, D), y = room(dtypes[t], T, 1, D);
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
    Tensor y = zeros(p->t, TOKENS, p->h.H, p->h.d), lse = room(F32, TOKENS, p->h.H, 1);
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
        Tensor kv = zeros(p.t, TOKENS, 2 * K, hd);
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

// rope_decode against qk_norm, rope and decode, outputs and cache: groups that share a prefix, cut anywhere, with rows
// of no sequence, for few rows and for many, with a bias and norms of either dtype and without.
static void check_rotated(Device *d, Heads h, DType t, int rows, DType of_weights, bool biased, bool normed) {
    enum { PREFIX = 150, OWN = 140, MOST = 64, GIVEN = 5 };
    const int64_t R = rows * (PREFIX + OWN);
    Case random = {.random = (uint64_t)(rows + h.d)};
    Tensor host[] = {room(t, rows, h.H + 2 * h.K, h.d), room(t, R, 2 * h.K, h.d),
                     room(of_weights, h.H + 2 * h.K, h.d, 1), room(of_weights, h.d, 1, 1), room(of_weights, h.d, 1, 1)};
    int32_t span[4 * MOST] = {0}, row[MOST], pos[MOST], prefix = 0, start = 0;
    for (int i = 0; i < GIVEN; i++)
        for (int64_t k = 0; k < tensor_numel(host[i]); k++)
            tensor_set(host[i], k, (float)((uint32_t)(k + i) * 2654435761u >> 20) / 1024 - 2);
    tensor_set(host[0], h.H * h.d, -0.0f); // a key that is not changed where there is neither bias nor angle
    for (int b = 0; b < rows; b++) {
        if (b % 7 == 0) prefix = (int32_t)case_below(&random, PREFIX), start = b * (PREFIX + OWN) + OWN;
        int32_t own = b % 9 == 5 ? 0 : 1 + (int32_t)case_below(&random, OWN - 1);
        if (own) memcpy(span + 4 * b, (int32_t[]){start, prefix, b * (PREFIX + OWN), own}, 4 * sizeof *span);
        row[b] = own ? b * (PREFIX + OWN) + own - 1 : -1;
        pos[b] = b ? prefix + own - 1 : 0;
    }
    RopeTable table = rope_table((RopeSpec){.theta = 1e4f}, h.d);
    Tensor y[2], kv[2], nothing = room(t, rows, h.H, h.d);
    for (int together = 0; together < 2; together++) {
        Tensor out = to_device(d, nothing), qkv = to_device(d, host[0]), cache = to_device(d, host[1]);
        Tensor weights[3] = {0}; // bias, q_norm, k_norm
        for (int i = biased ? 0 : 1; i < (normed ? 3 : 1); i++)
            weights[i] = to_device(d, tensor1(host[2 + i].data, of_weights, tensor_numel(host[2 + i])));
        Tensor at = to_device(d, tensor1(row, I32, rows)), where = to_device(d, tensor1(pos, I32, rows)),
               spans = to_device(d, tensor2(span, I32, rows, 4));
        if (together)
            d->rope_decode(d, out, qkv, weights[1], weights[2], 1e-6f, weights[0], where, &table, h.K, cache, at,
                           spans);
        else {
            if (normed) d->qk_norm(d, qkv, NONE, weights[1], weights[2], h.K, 1e-6f);
            d->rope(d, qkv, weights[0], where, &table, h.K, cache, at);
            d->decode(d, out, qkv, cache, spans, h.K);
        }
        y[together] = to_host(d, out), kv[together] = to_host(d, cache);
        for (int i = 0; i < 3; i++) device_drop(d, weights[i]);
        device_drop(d, out), device_drop(d, qkv), device_drop(d, cache);
        device_drop(d, at), device_drop(d, where), device_drop(d, spans);
    }
    assert_memory_equal(y[0].data, y[1].data, tensor_bytes(y[0]));
    assert_memory_equal(kv[0].data, kv[1].data, tensor_bytes(kv[0]));
    assert_memory_not_equal(kv[0].data, host[1].data, tensor_bytes(kv[0]));
    for (int i = 0; i < 2; i++) free(y[i].data), free(kv[i].data);
    for (int i = 0; i < GIVEN; i++) free(host[i].data);
    free(nothing.data);
}
static void rope_decode_is_rope_then_decode(void **state) {
    static const int rows[] = {1, 7, 64};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++) {
            for (int n = 0; n < 3; n++) {
                check_rotated(*state, heads[i], dtypes[t], rows[n], dtypes[t], n > 0, false);
                check_rotated(*state, heads[i], dtypes[t], rows[n], dtypes[t], n == 1, true);
            }
            if (dtypes[t] == BF16) check_rotated(*state, heads[i], BF16, 7, F32, true, true);
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
static int64_t on_hopper(void) { return emu_launches("attention_hopper_kernel"); }

static const Heads on_boxes[] = {{7, 1, 64}, {4, 2, 128}, {2, 2, 16}, {8, 1, 40}, {1, 1, 104}};

// What the portable kernel made of a pass is what this one makes of it, in other packings, behind prefixes, before NaN.
static void hopper_gives_the_same_bits(void **state) {
    if (!test_emulated(__func__)) skip();
    Device *hopper = test_hopper_device(true), *portable = test_card("80", NULL, NULL);
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
    if (!test_emulated(__func__)) skip();
    enum { MOST = 600, PARTS = 6 };
    Device *hopper = test_hopper_device(true), *portable = test_card("80", NULL, NULL);
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
        memset(got.data, 0x3f, tensor_bytes(got)), memset(lse_got.data, 0x3f, tensor_bytes(lse_got)); // not y's NaN
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
    if (!test_emulated(__func__)) skip();
    static const char *const why[][3] = {{"EMU_UNITS", "unlike", "portable kernel's here"},
                                         {"EMU_SHARED_KIB", "100", "too little shared memory"}};
    for (int i = 0; i < 2; i++) {
        char line[VARIANT_LINE] = "";
        Device *d = test_card("90", why[i][0], why[i][1]);
        for (int k = 0; d->variant(d, k, line) && !strstr(line, "attention"); k++) continue;
        assert_non_null(strstr(line, why[i][2]));
        assert_non_null(strstr(d->about, "; 1 of 5 Hopper kernels not used: grpo doctor")); // a run's first line
        int64_t before = on_hopper();
        Pass p = pass_new(d, heads[0], BF16);
        assert_int_equal(on_hopper(), before);
        pass_free(&p);
        device_close(d);
    }
    Device *d = test_hopper_device(true);
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
    test_hopper_without("off:matmul,product,head,attention_bwd");
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
        cmocka_unit_test(rope_decode_is_rope_then_decode),
        cmocka_unit_test(an_empty_span_gives_zero),
        cmocka_unit_test(long_contexts_need_no_scratch),
    };
    return cmocka_run_group_tests_name("attention", tests, open_device, close_device);
}
