// The gradients of attention beside the cases of test_ops: sequences of more keys than a pass takes at once, in f64,
// and the kernel for Hopper cards.
#include "attention_case.h"
#include "on_device.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

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
static void gradients_by_hopper(void **state) {
    static const Heads shapes[] = {{7, 1, 64}, {2, 2, 16}, {10, 2, 96}, {9, 1, 128}, {2, 1, 18}};
    if (!test_emulated(__func__)) skip();
    Device *portable = test_card("80", NULL, NULL), *d = test_hopper_device(true);
    assert_true(emu_launches("attention_bwd_hopper_kernel") > 0); // it was asked when the device was opened
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        Gradient g = gradient_new(portable, shapes[i]);
        check_gradient(d, portable, &g, shapes[i].d % 8 == 0); // rows of 18 are no multiple of 16 bytes
        if (shapes[i].d == 96) check_little_room(d, &g, 2, 2);
        gradient_free(&g);
    }
    device_close(d), device_close(portable);
}

static int open_device(void **state) { return (*state = test_device(0)) ? 0 : -1; }
static int close_device(void **state) {
    device_close(*state);
    return 0;
}

int main(void) {
    test_hopper_without("off:matmul,product,head,attention");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_sequences_have_gradients),
        cmocka_unit_test(gradients_by_hopper),
    };
    return cmocka_run_group_tests_name("attention_bwd", tests, open_device, close_device);
}
