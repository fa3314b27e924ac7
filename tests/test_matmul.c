// The matrix products against naive f64 references, and the promise that a row's bits do not depend on what is computed
// beside it. A bf16 result may be off by its own rounding, 2^-8 at most.
#include "../kernels/gpu/hopper_choice.h"
#include "head.h"
#include "on_device.h"
#include <stdio.h>

void emu_fail_launch(const char *kernel) __attribute__((weak));
void emu_reset(void) __attribute__((weak));

// A tensor at `offset` elements into fresh memory of the device: rows that begin anywhere.
typedef struct {
    Tensor whole, t;
} Placed;
static Placed place(Tensor host, int64_t offset) {
    Tensor whole = tensor1(NULL, host.dtype, tensor_numel(host) + offset);
    whole.data = xcalloc(1, tensor_bytes(whole) + 1);
    memcpy((char *)whole.data + (size_t)offset * dtype_size(host.dtype), host.data, tensor_bytes(host));
    Placed p = {to_device(dev, whole), host};
    p.t.data = (char *)p.whole.data + (size_t)offset * dtype_size(host.dtype);
    free(whole.data);
    return p;
}

// ref[M,N] = a[M,K] b[N,K]^T; strides by (row, k).
static double *product(Tensor a, bool ta, Tensor b, bool tb, int64_t M, int64_t N, int64_t K) {
    double *ref = xcalloc((size_t)(M * N), sizeof *ref);
    for (int64_t i = 0; i < M; i++)
        for (int64_t j = 0; j < N; j++) {
            double s = 0;
            for (int64_t k = 0; k < K; k++)
                s += (double)tensor_get(a, ta ? k * M + i : i * K + k) * tensor_get(b, tb ? k * N + j : j * K + k);
            ref[i * N + j] = s;
        }
    return ref;
}

static void assert_near(Tensor x, const double *ref, const char *what, int64_t M, int64_t N, int64_t K) {
    Tensor host = to_host(dev, x);
    double error = relative(host, ref), limit = x.dtype == F32 ? 1e-6 : 4e-3;
    if (!(error < limit))
        fail_msg("%s of [%lld,%lld,%lld], %s: error %g above %g", what, (long long)M, (long long)N, (long long)K,
                 dtype_name(x.dtype), error, limit);
    free(host.data);
}

// Around the tiles' edges and the chunks of K; K that is no whole 16 bytes; many tokens and few. The last four:
// backward sums in several chunks and in whole ones, and more rows than a block has.
static const int64_t matmul_shapes[][3] = {
    {1, 1, 1},     {1, 17, 5},     {2, 33, 31},    {3, 16, 64},   {5, 100, 33},  {7, 19, 128},  {8, 65, 15},
    {9, 63, 16},   {64, 13, 17},   {65, 129, 63},  {1, 7, 65},    {17, 70, 300}, {33, 7, 512},  {20, 9, 520},
    {64, 97, 896}, {130, 200, 77}, {9, 40, 2500},  {33, 7, 4864}, {8, 16, 1032}, {40, 24, 513}, {3, 18, 1023},
    {70, 8, 1025}, {520, 9, 1100}, {6, 1100, 150}, {512, 5, 70},  {7, 1024, 72}};

static void test_matmul(void **state) {
    for (size_t s = 0; s < sizeof matmul_shapes / sizeof *matmul_shapes; s++)
        for (DType t = F32; t <= BF16; t++) {
            int64_t M = matmul_shapes[s][0], N = matmul_shapes[s][1], K = matmul_shapes[s][2];
            Tensor hx = new_random(t, M, K, 1), hw = new_random(t, N, K, 1), hdy = new_random(t, M, N, 1);
            Tensor x = to_device(dev, hx), w = to_device(dev, hw), dy = to_device(dev, hdy);
            double *ref = product(hx, false, hw, false, M, N, K);
            double *dxr = product(hdy, false, hw, true, M, K, N), *dwr = product(hdy, true, hx, true, N, K, M);
            for (DType u = F32; u <= BF16; u++) { // of the result, which may differ
                Tensor hy = new_tensor(u, M, N), y = to_device(dev, hy);
                dev->matmul(dev, y, x, w);
                assert_near(y, ref, "product", M, N, K);
                device_drop(dev, y), free(hy.data);
            }
            for (DType g = F32; g <= BF16; g++) {
                Tensor hdw = new_random(g, N, K, 1), dw = to_device(dev, hdw), dx = to_device(dev, hx);
                double *sum = xcalloc((size_t)(N * K), sizeof *sum);
                for (int64_t i = 0; i < N * K; i++) sum[i] = dwr[i] + (double)tensor_get(hdw, i);
                dev->matmul_bwd(dev, dx, dw, dy, x, w);
                assert_near(dx, dxr, "dx", M, N, K);
                assert_near(dw, sum, "dw", M, N, K);
                free(sum), free(hdw.data), device_drop(dev, dx), device_drop(dev, dw);
            }
            free(ref), free(dxr), free(dwr), free(hx.data), free(hw.data), free(hdy.data);
            device_drop(dev, x), device_drop(dev, w), device_drop(dev, dy);
        }
}

// Compares every 61st element of x[M,N] with a[M,K] b[N,K]^T (as product has them), on top of `before`; the largest
// error is measured by their root mean square.
static void assert_some_near(Tensor x, Tensor before, Tensor a, bool ta, Tensor b, bool tb, int64_t M, int64_t N,
                             int64_t K, const char *what) {
    Tensor host = to_host(dev, x);
    double worst = 0, square = 0;
    int64_t count = 0;
    for (int64_t at = 0; at < M * N; at += 61, count++) {
        double s = present(before) ? (double)tensor_get(before, at) : 0;
        int64_t i = at / N, j = at % N;
        for (int64_t k = 0; k < K; k++)
            s += (double)tensor_get(a, ta ? k * M + i : i * K + k) * tensor_get(b, tb ? k * N + j : j * K + k);
        worst = fmax(worst, fabs(s - (double)tensor_get(host, at)));
        square += s * s;
    }
    if (!(worst < 0.03 * sqrt(square / (double)count))) // 2^-8 of an element of seven times the mean
        fail_msg("%s, [%lld,%lld] over %lld: error %g", what, (long long)M, (long long)N, (long long)K, worst);
    free(host.data);
}

// bf16 on a CPU in every way that tile registers take it (tile.c): what goes past in the second-level cache or too long
// for it, in one window of rows and in two; what stays copied whole, in pieces, in several batches, and with edges.
static void test_matmul_tiles(void **state) {
    static const int64_t shapes[][3] = {{140, 37, 3900},  {530, 70, 700},  {140, 400, 3900}, {33, 3, 7300},
                                        {40, 7300, 35},   {140, 3900, 37}, {3900, 40, 140},  {700, 270, 530},
                                        {150, 300, 1400}, {16, 64, 9000},  {129, 1, 64},     {600, 3900, 33},
                                        {1300, 40, 512},  {640, 40, 2600}, {545, 33, 18944}, {1330, 512, 32}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes && !test_on_cuda(); s++) {
        int64_t M = shapes[s][0], N = shapes[s][1], K = shapes[s][2];
        Tensor x = new_random(BF16, M, K, 1), w = new_random(BF16, N, K, 1), dy = new_random(BF16, M, N, 1);
        Tensor y = new_random(BF16, M, N, 1), dx = new_random(BF16, M, K, 1), none = NONE;
        dev->matmul(dev, y, x, w);
        assert_some_near(y, none, x, false, w, false, M, N, K, "product");
        for (DType g = F32; g <= BF16; g++) {
            Tensor dw = new_random(g, N, K, 1), before = new_tensor(g, N, K);
            memcpy(before.data, dw.data, tensor_bytes(dw));
            dev->matmul_bwd(dev, dx, dw, dy, x, w);
            assert_some_near(dx, none, dy, false, w, true, M, K, N, "dx");
            assert_some_near(dw, before, dy, true, x, true, N, K, M, "dw");
            free(dw.data), free(before.data);
        }
        free(x.data), free(w.data), free(dy.data), free(y.data), free(dx.data);
    }
}

// What is not asked for is left alone: either gradient may be absent.
static void test_absent_gradients(void **state) {
    Tensor h = new_random(F32, 6, 6, 1), dy = to_device(dev, h), x = to_device(dev, h), w = to_device(dev, h);
    Tensor dx = to_device(dev, h), dw = to_device(dev, h), none = NONE;
    dev->matmul_bwd(dev, dx, none, dy, x, w);
    dev->matmul_bwd(dev, none, dw, dy, x, w);
    double *dxr = product(h, false, h, true, 6, 6, 6), *dwr = product(h, true, h, true, 6, 6, 6);
    for (int i = 0; i < 36; i++) dwr[i] += (double)f32(h)[i];
    assert_near(dx, dxr, "dx alone", 6, 6, 6);
    assert_near(dw, dwr, "dw alone", 6, 6, 6);
    free(dxr), free(dwr), free(h.data);
    device_drop(dev, dy), device_drop(dev, x), device_drop(dev, w), device_drop(dev, dx), device_drop(dev, dw);
}

// A row's product is the same bits alone, in any batch, at any place and thread count.
static void check_rows(DType t, DType u, int64_t M, int64_t N, int64_t K, const int *batch, int batches) {
    Tensor hx = new_random(t, M, K, 1), hw = new_random(t, N, K, 1), hy = new_tensor(u, M, N);
    Tensor x = to_device(dev, hx), w = to_device(dev, hw), y = to_device(dev, hy);
    dev->matmul(dev, y, x, w);
    Tensor want = to_host(dev, y);
    bool cpu = !strcmp(dev->name, "cpu");
    for (int b = 0; b < batches; b++)
        for (int threads = cpu ? 1 : 2; threads <= (cpu ? 3 : 2); threads++) {
            set_threads(threads);
            dev->copy(dev, y.data, hy.data, tensor_bytes(y));
            for (int64_t i = 0; i < M; i += batch[b]) {
                int64_t n = M - i < batch[b] ? M - i : batch[b];
                dev->matmul(dev, tensor_rows(y, i, n), tensor_rows(x, i, n), w);
            }
            Tensor got = to_host(dev, y);
            if (memcmp(want.data, got.data, tensor_bytes(y)))
                fail_msg("[%lld,%lld,%lld] %s: other bits in batches of %d on %d threads", (long long)M, (long long)N,
                         (long long)K, dtype_name(t), batch[b], threads);
            free(got.data);
        }
    set_threads(2);
    free(hx.data), free(hw.data), free(hy.data), free(want.data);
    device_drop(dev, x), device_drop(dev, w), device_drop(dev, y);
}
static void test_matmul_rows(void **state) {
    static const int few[] = {1, 2, 3, 7, 64}, many[] = {9, 31, 63, 65, 128};
    static const int narrow[] = {1, 8, 12, 20, 64}, one[] = {50}, decoded[] = {4, 8, 11, 20, 29, 32};
    static const int pieces[] = {1, 10, 16, 32, 33, 70, 129};
    for (DType t = F32; t <= BF16; t++) {
        check_rows(t, t, 64, 203, 2600, few, 5);
        check_rows(t, t, 200, 136, 1064, many, 5); // whole 16 bytes: large and small tiles, chunks apart and together
        check_rows(t, t, 130, 312, 64, many, 4);   // just more than a wave of large tiles
        check_rows(t, t, 131, 600, 520, one, 1);
        check_rows(t, t, 131, 520, 1064, one, 1);
        check_rows(t, t, 70, 24, 1032, narrow, 5); // fewer blocks than a card has processors
        check_rows(t, t == F32 ? BF16 : F32, 70, 20, 1032, few, 5);
        check_rows(t, t, 44, 77, 501, decoded, 6); // the CPU's ways for few rows: a chunk of K, several, many columns
        check_rows(t, t, 44, 77, 1030, decoded, 6);
        check_rows(t, t, 44, 3300, 72, decoded, 6);
        check_rows(t, t, 140, 29, 2600, pieces, 7); // strips of rows, pieces of chunks
    }
    if (test_on_cuda()) return;
    static const int windows[] = {512, 140, 128, 33}; // the ways of tile registers
    check_rows(BF16, BF16, 560, 40, 700, windows, 4);
    check_rows(BF16, BF16, 560, 40, 3900, windows, 2);
}

// Many tokens take tiles of their own kind on some cards: edges of theirs, one chunk of K and more.
static void check_many(bool small) {
    static const int batch[] = {130, 64};
    static const int64_t widths[] = {200, 1032, 1024, 2120};
    for (int i = 0; i < (small ? 2 : 4); i++)
        for (DType t = F32; t <= BF16; t++)
            check_rows(BF16, t, small ? 150 : 1100, small ? 264 : 2200, widths[i], batch, small ? 1 : 2);
}
static void test_matmul_many(void **state) { check_many(emu_launches || !test_on_cuda()); }

// A product with swiglu behind it has the bits of the two ops, whether it keeps gate and up or not.
static void check_swiglu(DType t, int64_t M, int64_t F, int64_t K) {
    Tensor hx = new_random(t, M, K, 1), hw = new_random(t, 2 * F, K, 1), hh = new_tensor(t, M, F);
    Tensor hgu = new_tensor(t, M, 2 * F), x = to_device(dev, hx), w = to_device(dev, hw);
    Tensor gu = to_device(dev, hgu), h = to_device(dev, hh);
    dev->matmul(dev, gu, x, w);
    dev->swiglu(dev, h, gu);
    for (int kept = 0; kept < 2; kept++) {
        Tensor gu2 = to_device(dev, hgu), h2 = to_device(dev, hh);
        dev->matmul_swiglu(dev, h2, kept ? gu2 : NONE, x, w);
        if (!device_same(dev, h, h2) || (kept && !device_same(dev, gu, gu2)))
            fail_msg("[%lld,%lld,%lld] %s: other bits than product and swiglu", (long long)M, (long long)F,
                     (long long)K, dtype_name(t));
        device_drop(dev, gu2), device_drop(dev, h2);
    }
    free(hx.data), free(hw.data), free(hh.data), free(hgu.data);
    device_drop(dev, x), device_drop(dev, w), device_drop(dev, gu), device_drop(dev, h);
}
// Nor does it matter whether the first weights are copied before the block waits for the kernels before it, as it may
// in a graph that leaves them alone.
static void check_early(DType t, int64_t M, int64_t N, int64_t K) {
    Tensor hx = new_random(t, M, K, 1), hw = new_random(t, N, K, 1), hy = new_tensor(t, M, N);
    Tensor x = to_device(dev, hx), w = to_device(dev, hw), y = to_device(dev, hy), z = to_device(dev, hy);
    dev->matmul(dev, y, x, w);
    dev->graph_begin(dev, w);
    dev->matmul(dev, z, x, w);
    Graph *g = dev->graph_end(dev);
    assert_non_null(g);
    dev->graph_run(dev, g);
    if (!device_same(dev, y, z))
        fail_msg("[%lld,%lld,%lld] %s: other bits with weights copied early", (long long)M, (long long)N, (long long)K,
                 dtype_name(t));
    dev->graph_free(dev, g);
    free(hx.data), free(hw.data), free(hy.data);
    device_drop(dev, x), device_drop(dev, w), device_drop(dev, y), device_drop(dev, z);
}

// A norm and a product in one op have the bits of the two: at once, the second time recorded in a graph that leaves the
// weights alone, and with swiglu keeping gate and up. `off`: elements by which the weights' place is off. Returns how
// many kernels of its own the op launched.
static int64_t check_norm(DType t, DType norm, int64_t M, int64_t N, int64_t K, bool gated, bool add, int64_t off) {
    Tensor hx = new_random(t, M, K, 1), hw = new_random(t, N, K, 1), hn = new_random(norm, 1, K, 1);
    Tensor hy = new_tensor(t, M, gated ? N / 2 : N), hsum = new_random(t, M, K, 1), hrstd = new_tensor(F32, M, 1);
    Placed w = place(hw, off);
    Tensor x = to_device(dev, hx), delta = to_device(dev, hsum), rstd = to_device(dev, hrstd);
    Tensor hgu = new_tensor(t, M, N), gu[2] = {NONE, NONE};
    Tensor norm_w = tensor1(NULL, norm, K), y[2], sum[2], room = to_device(dev, hx);
    norm_w.data = to_device(dev, hn).data;
    for (int i = 0; i < 2; i++) y[i] = to_device(dev, hy), sum[i] = to_device(dev, hsum), gu[i] = to_device(dev, hgu);
    Norm n = {room, add ? sum[0] : NONE, tensor1(rstd.data, F32, M), x, add ? delta : NONE, norm_w, 1e-5f};
    dev->rmsnorm(dev, n.y, n.sum, n.rstd, n.x, n.delta, n.w, n.eps);
    if (gated) dev->matmul_swiglu(dev, y[0], gu[0], n.y, w.t);
    else dev->matmul(dev, y[0], n.y, w.t);
    int64_t before = emu_launches ? emu_launches("norm_matmul_kernel") : 0;
    for (int again = 0; again < 2; again++) {
        dev->copy(dev, y[1].data, hy.data, tensor_bytes(hy));
        dev->copy(dev, sum[1].data, hsum.data, tensor_bytes(hsum));
        dev->copy(dev, room.data, hx.data, tensor_bytes(hx));
        if (add) n.sum = sum[1];
        Graph *g = NULL;
        if (again && dev->graph_begin) dev->graph_begin(dev, w.t);
        dev->norm_matmul(dev, gated ? again ? gu[1] : NONE : y[1], gated ? y[1] : NONE, n, w.t);
        if (again && dev->graph_begin) {
            g = dev->graph_end(dev);
            assert_non_null(g);
            dev->graph_run(dev, g);
        }
        if (!device_same(dev, y[0], y[1]) || !device_same(dev, sum[0], sum[1]) ||
            (again && !device_same(dev, gu[0], gu[1])))
            fail_msg("[%lld,%lld,%lld] %s%s%s: other bits than norm and product", (long long)M, (long long)N,
                     (long long)K, dtype_name(t), gated ? ", swiglu" : "", again ? ", recorded" : "");
        if (g) dev->graph_free(dev, g);
    }
    int64_t launches = emu_launches ? emu_launches("norm_matmul_kernel") - before : 0;
    free(hx.data), free(hw.data), free(hn.data), free(hy.data), free(hsum.data), free(hrstd.data);
    free(hgu.data);
    for (int i = 0; i < 2; i++) device_drop(dev, y[i]), device_drop(dev, sum[i]), device_drop(dev, gu[i]);
    device_drop(dev, x), device_drop(dev, delta), device_drop(dev, rstd), device_drop(dev, room),
        device_drop(dev, w.whole);
    device_drop(dev, tensor2(norm_w.data, norm, 1, K));
    return launches;
}

#define NOT_HERE "off:head,attention,attention_bwd" // kernels for Hopper

// The emulator's (tests/emu/emu.h): where it is, it is asked to be a Hopper card, whose two kinds of tensor core
// products give the same bits; and one where they do not.
static void test_matmul_hopper(void **state) {
    if (!test_emulated(__func__)) skip();
    Device *portable = dev;
    setenv("EMU_ARCH", "90", 1);
    const int64_t none = emu_launches("matmul_hopper_kernel");
    dev = test_device(2);
    int64_t before = emu_launches("matmul_hopper_kernel"), checks = before - none; // when the device was opened
    assert_true(checks > 0);
    check_many(true);
    assert_true(emu_launches("matmul_hopper_kernel") >= before + 4);
    before = emu_launches("matmul_hopper_kernel");
    static const int64_t swiglu[][3] = {{150, 264, 200}, {300, 520, 1032}, {140, 136, 72}, {260, 1000, 1096}};
    for (int i = 0; i < 4; i++) check_swiglu(BF16, swiglu[i][0], swiglu[i][1], swiglu[i][2]);
    assert_int_equal(emu_launches("matmul_hopper_kernel"), before + 12);
    for (int i = 0; i < 12; i++) // weights read early too, as the portable kernel of few tokens does there
        assert_int_equal(check_norm(BF16, BF16, 1 + 11 * (i / 2), 72, i % 2 ? 1032 : 136, i % 4 < 2, i % 3, 0), 2);
    static const int64_t few[][3] = {{1, 7, 5},     {4, 40, 2064}, {8, 72, 64},
                                     {20, 24, 896}, {33, 7, 513},  {64, 130, 328}};
    for (int i = 0; i < 6; i++)
        for (DType t = F32; t <= BF16; t++) check_early(t, few[i][0], few[i][1], few[i][2]);
    device_close(dev);

    // On more than eight processors each check runs twice, the second time with several tiles for a block.
    setenv("EMU_SMS", "9", 1), unsetenv("GRPO_HOPPER");
    dev = test_device(2);
    char used[VARIANT_LINE];
    int n_used = 0;
    for (int i = 0; dev->variant(dev, i, used); i++) n_used += strstr(used, ": used") != NULL;
    assert_int_equal(n_used, 5);
    device_close(dev);
    setenv("GRPO_HOPPER", NOT_HERE, 1);

    // More processors: narrower tiles, and K in pieces.
    static const char *const sms[] = {"9", "16", "30"};
    for (int s = 0; s < 3; s++) {
        setenv("EMU_SMS", sms[s], 1);
        int64_t opening = emu_launches("matmul_hopper_kernel");
        dev = test_device(2);
        before = emu_launches("matmul_hopper_kernel");
        assert_int_equal(before - opening, 2 * checks);
        static const int batch[] = {130, 64};
        check_rows(BF16, BF16, 260, 264, 2120, batch, 2);
        check_rows(BF16, F32, 140, 520, 1032, batch, 2);
        check_swiglu(BF16, 140, 264, 3080);
        check_swiglu(BF16, 100, 520, 1000);
        check_early(BF16, 140, 520, 72);
        check_early(BF16, 260, 264, 1096);
        assert_true(emu_launches("matmul_hopper_kernel") >= before + 13);
        device_close(dev);
    }
    unsetenv("EMU_SMS");

    // Where one of them takes the card down, the error says how to do without.
    Error e = {0};
    emu_fail_launch("matmul_hopper_kernel");
    assert_null(device_open(DEVICE_CUDA, 0, 2, CPU_ISA_AUTO, &e));
    if (!strstr(e.text, "; to go on without: GRPO_HOPPER=off:matmul,head,attention,attention_bwd"))
        fail_msg("%s", e.text);
    emu_reset();
    setenv("GRPO_HOPPER", "off:matmul,head,attention,attention_bwd", 1);
    dev = test_device(2);
    char line[2][VARIANT_LINE];
    for (int i = 0; i < 2; i++) dev->variant(dev, i, line[i]);
    assert_non_null(strstr(line[0], "(matmul): not used: GRPO_HOPPER"));
    assert_non_null(strstr(line[1], "(product): used"));
    device_close(dev);
    static const char *const wrong[] = {"on", "off:matmul,heads", "offmatmul"};
    for (int i = 0; i < 3; i++) {
        setenv("GRPO_HOPPER", wrong[i], 1);
        assert_null(device_open(DEVICE_CUDA, 0, 2, CPU_ISA_AUTO, &e));
        assert_int_equal(e.code, EXIT_CONFIG);
        if (!strstr(e.text, wrong[i]) || !strstr(e.text, "some of matmul, product, head,")) fail_msg("%s", e.text);
    }
    setenv("GRPO_HOPPER", "off", 1);
    dev = test_device(2);
    before = emu_launches("matmul_hopper_kernel");
    check_many(true);
    assert_int_equal(emu_launches("matmul_hopper_kernel"), before);
    device_close(dev);
    setenv("GRPO_HOPPER", NOT_HERE, 1);

    setenv("EMU_UNITS", "unlike", 1);
    dev = test_device(2);
    before = emu_launches("matmul_hopper_kernel");
    check_many(true);
    assert_int_equal(emu_launches("matmul_hopper_kernel"), before);
    device_close(dev);
    unsetenv("EMU_UNITS"), unsetenv("EMU_ARCH");
    dev = portable;
}

static void test_matmul_swiglu(void **state) {
    static const int64_t shapes[][3] = {{1, 1, 1},    {3, 17, 40},  {8, 72, 1096},   {16, 8, 64},   {20, 40, 72},
                                        {33, 65, 31}, {64, 96, 64}, {70, 520, 72},   {9, 24, 1032}, {130, 312, 64},
                                        {5, 7, 2100}, {0, 8, 8},    {150, 200, 1096}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (DType t = F32; t <= BF16; t++) check_swiglu(t, shapes[s][0], shapes[s][1], shapes[s][2]);
}

static void test_norm_matmul(void **state) {
    // Tiles of each kind and their edges, K of several chunks and strips.
    static const int64_t shapes[][3] = {{1, 8, 8},     {3, 40, 72},    {8, 264, 64},  {16, 130, 896}, {17, 72, 1032},
                                        {32, 264, 72}, {20, 510, 136}, {5, 600, 40},  {2, 16, 2312},  {31, 40, 1096},
                                        {9, 24, 2304}, {16, 602, 8},   {8, 24, 3592}, {1, 500, 896},  {33, 40, 72},
                                        {64, 72, 136}, {70, 120, 328}, {97, 40, 896}, {256, 30, 72}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int kind = 0; kind < 4; kind++) {
            const int64_t M = shapes[s][0], N = shapes[s][1], K = shapes[s][2];
            int64_t own = check_norm(BF16, BF16, M, N, K, kind / 2, kind % 2, 0);
            if (emu_launches && test_on_cuda()) assert_int_equal(own, 2);
            assert_int_equal(check_norm(F32, F32, M, N, K, kind / 2, kind % 2, 0), 0);
        }
    // What its kernel does not take: many tokens, rows that are no whole 16 bytes or lie elsewhere, weights of the norm
    // in f32, more tiles than run at once.
    assert_int_equal(check_norm(BF16, BF16, 257, 40, 72, true, true, 0), 0);
    assert_int_equal(check_norm(BF16, BF16, 4, 40, 71, false, true, 0), 0);
    assert_int_equal(check_norm(BF16, BF16, 4, 40, 72, true, true, 1), 0);
    assert_int_equal(check_norm(BF16, F32, 4, 40, 72, false, true, 0), 0);
    assert_int_equal(check_norm(BF16, BF16, 0, 16, 64, true, true, 0), 0);
    assert_int_equal(check_norm(BF16, BF16, 5, 3000, 40, true, true, 0), 0);
    assert_int_equal(check_norm(BF16, BF16, 256, 200, 72, true, true, 0), 0);
    // And where a multiprocessor would norm more than NORMED elements: 16 x 2312.
    assert_int_equal(check_norm(BF16, BF16, 9, 24, 2312, false, true, 0), 0);
    assert_int_equal(check_norm(BF16, BF16, 4, 16, 8200, true, true, 0), 0);
    // And where a card's shared memory does not hold the rows: 103 KiB, which the usual one has.
    if (!emu_launches || !test_on_cuda()) return;
    assert_int_equal(check_norm(BF16, BF16, 30, 40, 960, false, true, 0), 2);
    Device *usual = dev;
    dev = test_card("80", "EMU_SHARED_KIB", "99");
    assert_int_equal(check_norm(BF16, BF16, 30, 40, 960, false, true, 0), 0);
    device_close(dev);
    dev = usual;
}

// The choice of a tile for 132 SMs: the table of hopper_choice.h, and that nothing allowed is estimated as faster.
static void test_hopper_choice(void **state) {
    static const struct {
        int64_t M, N, chunks;
        int W;
        bool split;
        int64_t items;
    } known[] = {{256, 1152, 1, 0, false, 0},       {256, 896, 1, 0, false, 0},       {256, 9728, 1, 160, false, 122},
                 {256, 896, 5, 96, true, 100},      {256, 2048, 2, 64, true, 128},    {256, 1536, 2, 64, true, 96},
                 {256, 17920, 2, 160, false, 224},  {256, 1536, 9, 256, true, 108},   {256, 4608, 4, 160, true, 232},
                 {256, 3584, 4, 256, true, 112},    {256, 37888, 4, 192, false, 396}, {128, 9728, 1, 96, false, 102},
                 {8192, 9728, 1, 256, false, 2432}, {8192, 896, 5, 160, false, 384},  {256, 3584, 19, 192, true, 722}};
    const int64_t scratch = (int64_t)256 << 20, counters = 4096, sms = 132;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        int64_t M = known[i].M, N = known[i].N, chunks = known[i].chunks;
        HopperChoice c = hopper_choose(M, N, chunks, sms, scratch, counters);
        int64_t items = c.W ? hopper_tiles(c.W, M, N) * (c.split ? chunks : 1) : 0;
        if (c.W != known[i].W || c.split != known[i].split || items != known[i].items)
            fail_msg("[%lld,%lld] in %lld chunks: %d%s, %lld items", (long long)M, (long long)N, (long long)chunks, c.W,
                     c.split ? " split" : "", (long long)items);
    }
    for (int64_t M = 65; M < 1200; M += 97)
        for (int64_t N = 8; N < 20000; N += 344)
            for (int64_t chunks = 1; chunks < 20; chunks += 3)
                for (int64_t room = 0; room <= scratch; room += scratch / 2) {
                    HopperChoice c = hopper_choose(M, N, chunks, sms, room, counters);
                    assert_true(!c.split || (chunks > 1 && hopper_sums(c.W, M, N, chunks) <= room));
                    HopperChoice other = {192, false};
                    if (c.W && 2 * hopper_tiles(192, M, N) >= sms)
                        assert_true(hopper_cost(c, M, N, chunks, sms) <= hopper_cost(other, M, N, chunks, sms));
                }
}

// The gradients of y[M,N] = x[M,K] w[N,K]^T with dw in `g`, against f64; twice, for the same bytes in every run. `off`:
// elements by which the results' places are off. Returns how many of the two products wgmma made.
static int64_t check_gradients(DType g, int64_t M, int64_t N, int64_t K, int64_t off) {
    Tensor hx = new_random(BF16, M, K, 1), hw = new_random(BF16, N, K, 1), hdy = new_random(BF16, M, N, 1);
    Tensor hdw = new_random(g, N, K, 1), x = to_device(dev, hx), w = to_device(dev, hw), dy = to_device(dev, hdy);
    Placed dx = place(hx, off), dw = place(hdw, off);
    double *dxr = product(hdy, false, hw, true, M, K, N), *dwr = product(hdy, true, hx, true, N, K, M);
    for (int64_t i = 0; i < N * K; i++) dwr[i] += (double)tensor_get(hdw, i);
    int64_t before = emu_launches("product_hopper_kernel");
    dev->matmul_bwd(dev, dx.t, dw.t, dy, x, w);
    int64_t launches = emu_launches("product_hopper_kernel") - before;
    assert_near(dx.t, dxr, "dx", M, K, N);
    assert_near(dw.t, dwr, "dw", N, K, M);
    Tensor first_dx = to_host(dev, dx.t), first_dw = to_host(dev, dw.t);
    dev->copy(dev, dw.t.data, hdw.data, tensor_bytes(hdw));
    dev->matmul_bwd(dev, dx.t, dw.t, dy, x, w);
    Tensor again_dx = to_host(dev, dx.t), again_dw = to_host(dev, dw.t);
    assert_memory_equal(first_dx.data, again_dx.data, tensor_bytes(first_dx));
    assert_memory_equal(first_dw.data, again_dw.data, tensor_bytes(first_dw));
    assert_int_equal(dev->scratch.used, 0);
    Tensor host[] = {hx, hw, hdy, hdw, first_dx, first_dw, again_dx, again_dw}, all[] = {x, w, dy, dx.whole, dw.whole};
    for (int i = 0; i < 8; i++) free(host[i].data);
    for (int i = 0; i < 5; i++) device_drop(dev, all[i]);
    free(dxr), free(dwr);
    return launches;
}
// What doctor says of wgmma in backward products.
static bool gradients_are(const char *state) {
    char line[VARIANT_LINE];
    for (int i = 0; dev->variant(dev, i, line); i++)
        if (strstr(line, "gradients")) return strstr(line, state) != NULL;
    return false;
}

// Backward products by wgmma on an emulated Hopper card of a few processors and of more: edges of tiles, one and many
// steps, tiles whole and in parts; added to bf16 and f32.
static void test_gradients_hopper(void **state) {
    if (!test_emulated(__func__)) skip();
    static const int64_t shapes[][3] = {{8, 8, 8},       {136, 264, 520}, {200, 1096, 72}, {1080, 136, 232},
                                        {520, 2056, 40}, {392, 392, 224}, {72, 1032, 448}};
    Device *ordinary = dev;
    setenv("EMU_ARCH", "90", 1);
    for (int many = 0; many < 2; many++) {
        setenv("EMU_SMS", many ? "20" : "4", 1);
        setenv("EMU_UNITS", many ? "unlike" : "ascending", 1);
        dev = test_device(2);
        assert_true(gradients_are(": used"));
        dev->products = PRODUCTS_OWN;
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (DType g = F32; g <= BF16; g++)
                assert_int_equal(check_gradients(g, shapes[i][0], shapes[i][1], shapes[i][2], 0), 2);
        assert_int_equal(check_gradients(F32, 40, 72, 20, 0), 0);  // rows of no whole 16 bytes
        assert_int_equal(check_gradients(BF16, 40, 20, 72, 0), 0); // for dy alone
        assert_int_equal(check_gradients(BF16, 40, 72, 64, 1), 0); // results that begin anywhere
        device_close(dev);
    }
    unsetenv("EMU_UNITS"), unsetenv("EMU_SMS"), unsetenv("EMU_ARCH");
    dev = ordinary;
}

// Who makes them where nobody says: wgmma for large ones, the library for small ones, for all where it is asked to, and
// where a card has too little shared memory.
static void test_gradients_chosen(void **state) {
    if (!test_emulated(__func__)) skip();
    Device *ordinary = dev;
    setenv("EMU_ARCH", "90", 1), setenv("EMU_SMS", "1", 1);
    dev = test_device(2);
    assert_int_equal(check_gradients(F32, 128, 512, 512, 0), 0);
    assert_int_equal(check_gradients(F32, 256, 1024, 512, 0), 2);
    assert_int_equal(check_gradients(F32, 264, 520, 264, 0), 0);
    dev->products = PRODUCTS_LIBRARY;
    for (dev->proposal = 0; dev->proposal < 9; dev->proposal += 4)
        assert_int_equal(check_gradients(F32, 136, 512, 72, 0), 0);
    device_close(dev);

    setenv("EMU_SHARED_KIB", "160", 1);
    dev = test_device(2);
    assert_true(gradients_are("too little shared memory"));
    dev->products = PRODUCTS_OWN;
    assert_int_equal(check_gradients(F32, 136, 512, 72, 0), 0);
    device_close(dev);
    unsetenv("EMU_SHARED_KIB"), unsetenv("EMU_SMS"), unsetenv("EMU_ARCH");
    dev = ordinary;
}

// Nor do they depend on where the operands lie in memory.
static void test_matmul_places(void **state) {
    for (DType t = F32; t <= BF16; t++) {
        int64_t M = 10, N = 72, K = 1040;
        Tensor hx = new_random(t, M, K, 1), hw = new_random(t, N, K, 1), hy = new_tensor(t, M, N), want = {0};
        for (int64_t at = 0; at < 8; at++) {
            Placed x = place(hx, at & 1), w = place(hw, at >> 1 & 1), y = place(hy, at >> 2 & 1);
            dev->matmul(dev, y.t, x.t, w.t);
            Tensor got = to_host(dev, y.t);
            if (!at) want = got;
            else {
                assert_memory_equal(want.data, got.data, tensor_bytes(got));
                free(got.data);
            }
            device_drop(dev, x.whole), device_drop(dev, w.whole), device_drop(dev, y.whole);
        }
        free(hx.data), free(hw.data), free(hy.data), free(want.data);
    }
}

// Recorded once and run again, products find their counters and scratch as they left them.
static void test_matmul_again(void **state) {
    for (DType t = F32; t <= BF16; t++) {
        int64_t M = 4, N = 40, K = 2064;
        Tensor hx = new_random(t, M, K, 1), hw = new_random(t, N, K, 1), hy = new_tensor(t, M, N);
        Tensor x = to_device(dev, hx), w = to_device(dev, hw), y = to_device(dev, hy), z = to_device(dev, hy);
        if (dev->graph_begin) dev->graph_begin(dev, NONE);
        for (int i = 0; i < 3; i++) {
            dev->matmul(dev, y, x, w);
            dev->matmul(dev, z, x, w);
        }
        Graph *g = dev->graph_begin ? dev->graph_end(dev) : NULL;
        for (int i = 0; g && i < 2; i++) dev->graph_run(dev, g);
        Tensor a = to_host(dev, y), b = to_host(dev, z);
        assert_memory_equal(a.data, b.data, tensor_bytes(a));
        double *ref = product(hx, false, hw, false, M, N, K);
        assert_near(z, ref, "product, again", M, N, K);
        if (g) dev->graph_free(dev, g);
        free(ref), free(a.data), free(b.data), free(hx.data), free(hw.data), free(hy.data);
        device_drop(dev, x), device_drop(dev, w), device_drop(dev, y), device_drop(dev, z);
    }
}

// The library's products, where the device has them: right, though their bits may differ.
static void test_library_products(void **state) {
    dev->products = PRODUCTS_LIBRARY;
    for (size_t s = 0; s < sizeof matmul_shapes / sizeof *matmul_shapes; s += 3)
        for (DType t = F32; t <= BF16; t++) {
            int64_t M = matmul_shapes[s][0], N = matmul_shapes[s][1], K = matmul_shapes[s][2];
            Tensor hx = new_random(t, M, K, 1), hw = new_random(t, N, K, 1), hy = new_tensor(t, M, N);
            Tensor x = to_device(dev, hx), w = to_device(dev, hw), y = to_device(dev, hy);
            dev->matmul(dev, y, x, w);
            double *ref = product(hx, false, hw, false, M, N, K);
            assert_near(y, ref, "library's product", M, N, K);
            free(ref), free(hx.data), free(hw.data), free(hy.data);
            device_drop(dev, x), device_drop(dev, w), device_drop(dev, y);
        }
    dev->products = PRODUCTS_CHOSEN;
}

int main(void) {
    test_hopper_without(NOT_HERE);
    dev = test_device(2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),           cmocka_unit_test(test_absent_gradients),
        cmocka_unit_test(test_matmul_rows),      cmocka_unit_test(test_matmul_places),
        cmocka_unit_test(test_matmul_again),     cmocka_unit_test(test_library_products),
        cmocka_unit_test(test_matmul_many),      cmocka_unit_test(test_matmul_hopper),
        cmocka_unit_test(test_matmul_swiglu),    cmocka_unit_test(test_hopper_choice),
        cmocka_unit_test(test_gradients_hopper), cmocka_unit_test(test_gradients_chosen),
        cmocka_unit_test(test_norm_matmul),      cmocka_unit_test(test_matmul_tiles),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (dev->scratch.used) die("tests: a product kept scratch");
    device_close(dev);
    return failed;
}
