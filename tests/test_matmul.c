// The matrix products against naive f64 references, and the promise that a row's bits do not depend on what is computed
// beside it. A bf16 result may be off by its own rounding, 2^-8 at most.
#include "device.h"
#include "head.h"

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

static const int64_t matmul_shapes[][3] = {{1, 1, 1},    {1, 17, 5},    {2, 33, 31},    {3, 16, 64},   {5, 100, 33},
                                           {7, 19, 128}, {64, 97, 896}, {130, 200, 77}, {9, 40, 2500}, {33, 7, 4864}};

static void test_matmul(void **state) {
    for (size_t s = 0; s < sizeof matmul_shapes / sizeof *matmul_shapes; s++)
        for (DType t = F32; t <= BF16; t++) {
            int64_t M = matmul_shapes[s][0], N = matmul_shapes[s][1], K = matmul_shapes[s][2];
            Tensor x = new_random(t, M, K, 1), w = new_random(t, N, K, 1), y = new_tensor(t, M, N);
            dev->matmul(dev, y, x, w);
            double *ref = product(x, false, w, false, M, N, K);
            assert_true(relative(y, ref) < (t == F32 ? 1e-6 : 4e-3));
            free(ref);
            for (DType g = F32; g <= BF16; g++) {
                Tensor dy = new_random(t, M, N, 1), dx = new_tensor(t, M, K), dw = new_random(g, N, K, 1);
                double *dxr = product(dy, false, w, true, M, K, N), *dwr = product(dy, true, x, true, N, K, M);
                for (int64_t i = 0; i < N * K; i++) dwr[i] += tensor_get(dw, i);
                dev->matmul_bwd(dev, dx, dw, dy, x, w);
                assert_true(relative(dx, dxr) < (t == F32 ? 1e-6 : 4e-3));
                assert_true(relative(dw, dwr) < (g == F32 ? 1e-6 : 4e-3));
                free(dxr), free(dwr), free(dy.data), free(dx.data), free(dw.data);
            }
            free(x.data), free(w.data), free(y.data);
        }
}

// A row's product is the same bits alone, in any batch, at any place and thread count.
static void test_matmul_rows(void **state) {
    for (DType t = F32; t <= BF16; t++) {
        int64_t M = 64, N = 203, K = 2600;
        Tensor x = new_random(t, M, K, 1), w = new_random(t, N, K, 1), y = new_tensor(t, M, N), z = new_tensor(t, M, N);
        dev->matmul(dev, y, x, w);
        static const int batch[] = {1, 2, 3, 7, 64};
        for (int b = 0; b < 5; b++)
            for (int threads = 1; threads <= 3; threads++) {
                set_threads(threads);
                memset(z.data, 0, tensor_bytes(z));
                for (int64_t i = 0; i < M; i += batch[b]) {
                    int64_t n = M - i < batch[b] ? M - i : batch[b];
                    dev->matmul(dev, tensor_rows(z, i, n), tensor_rows(x, i, n), w);
                }
                assert_memory_equal(y.data, z.data, tensor_bytes(y));
            }
        set_threads(2);
        free(x.data), free(w.data), free(y.data), free(z.data);
    }
}

int main(void) {
    dev = test_device(2);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_matmul), cmocka_unit_test(test_matmul_rows)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    device_close(dev);
    return failed;
}
