// The streamed head: log-probs and their gradient against f64 references and finite differences, and their purity.
#include "head.h"
#include "on_device.h"
#include <stdio.h>

typedef struct {
    int64_t T, N, V, D;
    float temperature;
    Tensor x, w, rows, target, dlogp, dentropy; // [T,D] [V,D] [N] [N] [N] [N]
    Tensor logp, lse, entropy, dx, dw;          // [N] [N] [N] [T,D] [V,D]
} Case;

// Rows 0, 2, 4, ... then 1, 3, ... of x, the last one left out.
static Case new_case(DType t, DType grad, int64_t N, int64_t V, int64_t D, float temperature) {
    Case c = {.T = N + 1, .N = N, .V = V, .D = D, .temperature = temperature};
    c.x = new_random(t, c.T, D, 1), c.w = new_random(t, V, D, 1);
    c.rows = new_tensor(I32, 1, N), c.target = new_tensor(I32, 1, N);
    c.rows = tensor1(c.rows.data, I32, N), c.target = tensor1(c.target.data, I32, N);
    for (int64_t i = 0; i < N; i++) {
        i32(c.rows)[i] = (int32_t)(2 * i < N ? 2 * i : 2 * (i - (N + 1) / 2) + 1);
        i32(c.target)[i] = (int32_t)((i * 7919 + 13) % V);
    }
    Tensor *column[] = {&c.dlogp, &c.dentropy, &c.logp, &c.lse, &c.entropy};
    for (int i = 0; i < 5; i++) *column[i] = new_random(F32, 1, N, 1), *column[i] = tensor1(column[i]->data, F32, N);
    c.dx = new_random(t, c.T, D, 1), c.dw = new_random(grad, V, D, 1e-2f);
    return c;
}
static void free_case(Case c) {
    Tensor all[] = {c.x, c.w, c.rows, c.target, c.dlogp, c.dentropy, c.logp, c.lse, c.entropy, c.dx, c.dw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i].data);
}

// The case in the device's memory; and its outputs back into c's, once done.
static Case send(Case c) {
    Tensor *all[] = {&c.x, &c.w, &c.rows, &c.target, &c.dlogp, &c.dentropy, &c.logp, &c.lse, &c.entropy, &c.dx, &c.dw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (present(*all[i])) *all[i] = to_device(dev, *all[i]);
    return c;
}
static void fetch(Case c, Case g) {
    Tensor to[] = {c.logp, c.lse, c.entropy, c.dx, c.dw}, from[] = {g.logp, g.lse, g.entropy, g.dx, g.dw};
    for (int i = 0; i < 5; i++)
        if (present(to[i])) dev->copy(dev, to[i].data, from[i].data, tensor_bytes(to[i]));
    assert_device_well();
    Tensor all[] = {g.x, g.w, g.rows, g.target, g.dlogp, g.dentropy, g.logp, g.lse, g.entropy, g.dx, g.dw};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (present(all[i])) device_drop(dev, all[i]);
}

typedef struct {
    double *z, lse, entropy; // z[V]
} Dist;
// One row's distribution, from f64 weights x[D] and w[V,D].
static Dist row_of(const double *x, const double *w, int64_t V, int64_t D, double temperature) {
    Dist r = {xcalloc((size_t)V, sizeof(double)), 0, 0};
    double max = -INFINITY, sum = 0, mean = 0;
    for (int64_t v = 0; v < V; v++) {
        for (int64_t k = 0; k < D; k++) r.z[v] += x[k] * w[v * D + k];
        r.z[v] /= temperature > 0 ? temperature : 1;
        max = r.z[v] > max ? r.z[v] : max;
    }
    for (int64_t v = 0; v < V; v++) sum += exp(r.z[v] - max);
    r.lse = max + log(sum);
    for (int64_t v = 0; v < V; v++) mean += exp(r.z[v] - r.lse) * r.z[v];
    r.entropy = r.lse - mean;
    return r;
}
static double *f64_of(Tensor x) {
    double *y = xcalloc((size_t)tensor_numel(x), sizeof *y);
    for (int64_t i = 0; i < tensor_numel(x); i++) y[i] = tensor_get(x, i);
    return y;
}
static void run_forward(Case c) {
    Case g = send(c);
    dev->logprob(dev, g.logp, g.lse, g.entropy, g.x, g.rows, g.w, g.target, g.temperature);
    fetch(c, g);
}
static void run_backward(Case c) {
    Case g = send(c);
    dev->logprob_bwd(dev, g.dx, g.dw, g.dlogp, g.dentropy, g.x, g.rows, g.w, g.target, g.lse, g.entropy, g.temperature);
    fetch(c, g);
}

static const struct {
    int64_t N, V, D;
    float temperature;
} shapes[] = {{1, 5, 3, 1},      {3, 1024, 16, 0.7f},   {70, 2500, 33, 1},
              {7, 1040, 128, 0}, {530, 1100, 20, 1.3f}, {4099, 130, 8, 1}};
#define SHAPES (sizeof shapes / sizeof *shapes)

static void test_forward(void **state) {
    for (size_t s = 0; s < SHAPES; s++)
        for (DType t = F32; t <= BF16; t++) {
            Case c = new_case(t, F32, shapes[s].N, shapes[s].V, shapes[s].D, shapes[s].temperature);
            run_forward(c);
            double *x = f64_of(c.x), *w = f64_of(c.w), *logp = xcalloc((size_t)c.N, 8), *lse = xcalloc((size_t)c.N, 8),
                   *entropy = xcalloc((size_t)c.N, 8);
            for (int64_t i = 0; i < c.N; i++) {
                Dist r = row_of(x + i32(c.rows)[i] * c.D, w, c.V, c.D, c.temperature);
                logp[i] = r.z[i32(c.target)[i]] - r.lse, lse[i] = r.lse, entropy[i] = r.entropy;
                free(r.z);
            }
            assert_true(relative(c.logp, logp) < 1e-6);
            assert_true(relative(c.lse, lse) < 1e-6);
            assert_true(relative(c.entropy, entropy) < 2e-6);
            free(x), free(w), free(logp), free(lse), free(entropy);
            free_case(c);
        }
}

// Against the gradient's formula in f64.
static void check_backward(DType t, DType grad, int64_t N, int64_t V, int64_t D, float temperature) {
    Case c = new_case(t, grad, N, V, D, temperature);
    run_forward(c);
    double *x = f64_of(c.x), *w = f64_of(c.w), *dw = f64_of(c.dw);
    double *dx = xcalloc((size_t)(c.T * c.D), sizeof *dx), T = c.temperature > 0 ? c.temperature : 1;
    for (int64_t i = 0; i < c.N; i++) {
        const double *xi = x + i32(c.rows)[i] * c.D;
        Dist r = row_of(xi, w, c.V, c.D, c.temperature);
        for (int64_t v = 0; v < c.V; v++) {
            double lp = r.z[v] - r.lse, p = exp(lp);
            double dz = f32(c.dlogp)[i] * ((v == i32(c.target)[i]) - p);
            dz = (dz - f32(c.dentropy)[i] * p * (lp + r.entropy)) / T;
            for (int64_t k = 0; k < c.D; k++) {
                dx[i32(c.rows)[i] * c.D + k] += dz * w[v * c.D + k];
                dw[v * c.D + k] += dz * xi[k];
            }
        }
        free(r.z);
    }
    run_backward(c);
    assert_true(relative(c.dx, dx) < (t == F32 ? 3e-6 : 5e-3));
    assert_true(relative(c.dw, dw) < (t == F32 && grad == F32 ? 3e-6 : 5e-3));
    for (int64_t k = 0; k < c.D; k++) assert_true(tensor_get(c.dx, c.N * c.D + k) == 0); // the row not listed
    free(x), free(w), free(dw), free(dx);
    free_case(c);
}
static void test_backward(void **state) {
    for (size_t s = 0; s < SHAPES; s++)
        for (int kind = 0; kind < 4; kind++)
            check_backward(kind & 1 ? BF16 : F32, kind & 2 ? BF16 : F32, shapes[s].N, shapes[s].V, shapes[s].D,
                           shapes[s].temperature);
}
// So many rows that a GPU's scratch takes them in two blocks.
static void test_backward_blocks(void **state) { check_backward(F32, F32, 15000, 1000, 4, 1); }

// d/dstep of sum(dlogp * logp + dentropy * entropy) as *at moves, by a central difference in f64.
static double slope(Case c, const double *x, const double *w, double *at) {
    double value[2], old = *at, step = 1e-5;
    for (int side = 0; side < 2; side++) {
        *at = old + (side ? step : -step);
        value[side] = 0;
        for (int64_t i = 0; i < c.N; i++) {
            Dist r = row_of(x + i32(c.rows)[i] * c.D, w, c.V, c.D, c.temperature);
            value[side] += f32(c.dlogp)[i] * (r.z[i32(c.target)[i]] - r.lse) + f32(c.dentropy)[i] * r.entropy;
            free(r.z);
        }
    }
    *at = old;
    return (value[1] - value[0]) / (2 * step);
}

static void test_finite_differences(void **state) {
    Case c = new_case(F32, F32, 5, 1030, 6, 0.8f);
    double *x = f64_of(c.x), *w = f64_of(c.w);
    run_forward(c);
    memset(c.dw.data, 0, tensor_bytes(c.dw));
    run_backward(c);
    for (int64_t i = 0; i < c.T * c.D; i++) {
        double want = slope(c, x, w, x + i);
        assert_true(fabs(f32(c.dx)[i] - want) < 1e-5 * (1 + fabs(want)));
    }
    for (int64_t v = 0; v < c.V; v += v < 20 ? 1 : 101)
        for (int64_t k = 0; k < c.D; k++) {
            double want = slope(c, x, w, w + v * c.D + k);
            assert_true(fabs(f32(c.dw)[v * c.D + k] - want) < 1e-6 * (1 + fabs(want)));
        }
    free(x), free(w);
    free_case(c);
}

static void test_optional_arguments(void **state) {
    Case c = new_case(F32, F32, 9, 1500, 12, 1), n = c;
    run_forward(c);
    n.logp = new_tensor(F32, 1, c.N), n.lse = new_tensor(F32, 1, c.N), n.dx = new_tensor(F32, c.T, c.D);
    n.entropy = n.dw = n.dentropy = NONE;
    run_forward(n);
    assert_memory_equal(n.logp.data, c.logp.data, tensor_bytes(c.logp));
    assert_memory_equal(n.lse.data, c.lse.data, tensor_bytes(c.lse));
    memset(c.dentropy.data, 0, tensor_bytes(c.dentropy));
    run_backward(c), run_backward(n);
    assert_memory_equal(n.dx.data, c.dx.data, tensor_bytes(c.dx));
    free(n.logp.data), free(n.lse.data), free(n.dx.data);
    free_case(c);
}

// The log-prob of a (row, target) is the same bits whatever is computed beside it, and so are gradients at any thread
// count.
static void test_purity(void **state) {
    for (int kind = 0; kind < 4; kind++) {
        DType t = kind & 1 ? BF16 : F32;
        Case c = new_case(t, F32, 70, 3000, kind & 2 ? 65 : 48, 0.9f);
        run_forward(c);
        for (int k = 0; k < batchings(); k++)
            for (int threads = 1; threads <= most_threads(); threads++) {
                Case again = c;
                set_threads(threads);
                again.logp = new_tensor(F32, 1, c.N), again.lse = new_tensor(F32, 1, c.N);
                again.entropy = new_tensor(F32, 1, c.N);
                Case g = send(again);
                for (int64_t i = 0, n; i < c.N; i += n) {
                    n = batch_at(k, i, c.N);
                    dev->logprob(dev, tensor1(f32(g.logp) + i, F32, n), tensor1(f32(g.lse) + i, F32, n),
                                 tensor1(f32(g.entropy) + i, F32, n), g.x, tensor_rows(g.rows, i, n), g.w,
                                 tensor_rows(g.target, i, n), g.temperature);
                }
                fetch(again, g);
                assert_memory_equal(again.logp.data, c.logp.data, tensor_bytes(c.logp));
                assert_memory_equal(again.lse.data, c.lse.data, tensor_bytes(c.lse));
                assert_memory_equal(again.entropy.data, c.entropy.data, tensor_bytes(c.entropy));
                free(again.logp.data), free(again.lse.data), free(again.entropy.data);
            }
        Tensor dw[3], dx[3];
        for (int threads = 1; threads <= 3; threads++) {
            Case g = c;
            g.dw = dw[threads - 1] = new_zeros(F32, c.V, c.D), g.dx = dx[threads - 1] = new_tensor(t, c.T, c.D);
            set_threads(threads);
            run_backward(g);
        }
        for (int i = 1; i < 3; i++) {
            assert_memory_equal(dw[0].data, dw[i].data, tensor_bytes(dw[0]));
            assert_memory_equal(dx[0].data, dx[i].data, tensor_bytes(dx[0]));
        }
        set_threads(2);
        for (int i = 0; i < 3; i++) free(dw[i].data), free(dx[i].data);
        free_case(c);
    }
}

// Rows enough for Hopper's kernel: forward the portable kernel's bits, and its gradients but for rounding. Vocabularies
// and widths at the edges of its tiles; the fourth has gradients that only the portable kernel computes. Where the two
// kinds of tensor cores differ, it is not used.
static void test_hopper(void **state) {
    static const struct {
        int64_t N, V, D;
        float temperature;
    } many[] = {
        {130, 1032, 72, 0.7f}, {300, 392, 1096, 1.3f}, {65, 136, 8, 0}, {129, 1026, 40, 1}, {257, 768, 1024, 1}};
    if (!test_emulated(__func__)) skip();
    Device *portable = dev;
    for (int alike = 1; alike >= 0; alike--) {
        Device *hopper = test_hopper_device(alike);
        for (size_t s = 0; s < sizeof many / sizeof *many; s++) {
            Case want = new_case(BF16, F32, many[s].N, many[s].V, many[s].D, many[s].temperature), got = want;
            Tensor *own[] = {&got.logp, &got.lse, &got.entropy, &got.dx, &got.dw};
            for (int i = 0; i < 5; i++) {
                Tensor from = *own[i];
                own[i]->data = xmalloc(tensor_bytes(from) + 1);
                memcpy(own[i]->data, from.data, tensor_bytes(from));
            }
            dev = portable, run_forward(want), run_backward(want);
            int64_t before = emu_launches("head_hopper_kernel");
            dev = hopper, run_forward(got);
            assert_int_equal(emu_launches("head_hopper_kernel") - before, alike);
            run_backward(got);
            assert_int_equal(emu_launches("head_hopper_kernel") - before, alike * (many[s].V % 8 ? 1 : 2));
            assert_memory_equal(got.logp.data, want.logp.data, tensor_bytes(want.logp));
            assert_memory_equal(got.lse.data, want.lse.data, tensor_bytes(want.lse));
            assert_memory_equal(got.entropy.data, want.entropy.data, tensor_bytes(want.entropy));
            double *dx = f64_of(want.dx), *dw = f64_of(want.dw);
            assert_true(relative(got.dx, dx) < 1e-3 && relative(got.dw, dw) < 1e-5);
            free(dx), free(dw);
            for (int i = 0; i < 5; i++) free(own[i]->data);
            free_case(want);
        }
        device_close(hopper);
    }
    dev = portable;
}

// At the real vocabulary nothing of size tokens x vocabulary is ever held: scratch stays within its bound. So both ops
// go in passes: some rows and some tokens of the vocabulary on either side of where one may end, against f64.
static void test_real_vocabulary(void **state) {
    Case c = new_case(BF16, F32, 1100, 151936, 8, 1);
    double *x = f64_of(c.x), *w = f64_of(c.w), *old = f64_of(c.dw), off = 0, all = 0;
    dev->scratch.peak = 0;
    run_forward(c);
    assert_true(dev->scratch.peak < (size_t)16 << 20);
    run_backward(c);
    assert_true(dev->scratch.peak <= dev->scratch.cap);
    for (int64_t i = 0; i < c.N; i += i % 88 == 87 ? 1 : 175) { // 0, 175, 176 ... 1055, 1056
        const double *xi = x + i32(c.rows)[i] * c.D;
        Dist r = row_of(xi, w, c.V, c.D, 1);
        double dx[8] = {0};
        assert_true(fabs(f32(c.logp)[i] - (r.z[i32(c.target)[i]] - r.lse)) < 2e-5);
        assert_true(fabs(f32(c.lse)[i] - r.lse) < 2e-5 && fabs(f32(c.entropy)[i] - r.entropy) < 2e-5);
        for (int64_t v = 0; v < c.V; v++) {
            double lp = r.z[v] - r.lse, p = exp(lp);
            double dz = f32(c.dlogp)[i] * ((v == i32(c.target)[i]) - p) - f32(c.dentropy)[i] * p * (lp + r.entropy);
            for (int64_t k = 0; k < c.D; k++) dx[k] += dz * w[v * c.D + k];
        }
        for (int64_t k = 0; k < c.D; k++) {
            double got = tensor_get(c.dx, i32(c.rows)[i] * c.D + k);
            off += (got - dx[k]) * (got - dx[k]), all += dx[k] * dx[k];
        }
        free(r.z);
    }
    assert_true(sqrt(off / all) < 5e-3);
    off = all = 0;
    for (int64_t v = 0; v < c.V; v += v % 128 == 127 ? 1 : 127) { // the first and the last of every 128
        double dw[8] = {0};
        for (int64_t i = 0; i < c.N; i++) {
            const double *xi = x + i32(c.rows)[i] * c.D;
            double z = 0;
            for (int64_t k = 0; k < c.D; k++) z += xi[k] * w[v * c.D + k];
            double lp = z - f32(c.lse)[i], p = exp(lp);
            double dz =
                f32(c.dlogp)[i] * ((v == i32(c.target)[i]) - p) - f32(c.dentropy)[i] * p * (lp + f32(c.entropy)[i]);
            for (int64_t k = 0; k < c.D; k++) dw[k] += dz * xi[k];
        }
        for (int64_t k = 0; k < c.D; k++) {
            double got = f32(c.dw)[v * c.D + k] - old[v * c.D + k];
            off += (got - dw[k]) * (got - dw[k]), all += dw[k] * dw[k];
        }
    }
    assert_true(sqrt(off / all) < 5e-3);
    free(x), free(w), free(old);
    free_case(c);
}

int main(void) {
    test_hopper_without("off:matmul,attention,attention_bwd");
    dev = test_device(2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forward),         cmocka_unit_test(test_backward),
        cmocka_unit_test(test_purity),          cmocka_unit_test(test_optional_arguments),
        cmocka_unit_test(test_real_vocabulary), cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_backward_blocks), cmocka_unit_test(test_hopper),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(dev);
    return failed;
}
