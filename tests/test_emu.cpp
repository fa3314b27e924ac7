// The calls of tests/emu: limits and errors, launches, streams and graphs, and the libraries that it stands in for.
#include "emu_fixture.h"
#include <cublasLt.h>
#include <math.h>
#include <nccl.h>
#include <thread>

// ---- limits and faults ----------------------------------------------------------------------------------------------
static __global__ void nothing_kernel() {}
static __global__ void add_kernel(int *x, int v) { atomicAdd(x, v); }
static __global__ void much_shared_kernel() {
    SHARED(float, a, [8192]);
    SHARED(float, b, [8192]);
    a[0] = b[0] = 0;
}
static void launch_limits(void **) {
    assert_int_equal(start(nothing_kernel, 1, 1024, 48 * 1024), cudaSuccess);
    assert_int_equal(start(nothing_kernel, 1, 1025, 0), cudaErrorInvalidConfiguration);
    assert_int_equal(start(nothing_kernel, 1, dim3(32, 33), 0), cudaErrorInvalidConfiguration);
    assert_int_equal(start(nothing_kernel, 1, dim3(1, 1, 65), 0), cudaErrorInvalidConfiguration);
    assert_int_equal(start(nothing_kernel, 0, 32, 0), cudaErrorInvalidConfiguration);
    assert_int_equal(start(nothing_kernel, 70000, 1, 0), cudaSuccess);
    assert_int_equal(start(nothing_kernel, dim3(1, 65536), 32, 0), cudaErrorInvalidConfiguration);
    assert_int_equal(start(nothing_kernel, dim3(1, 1, 65536), 32, 0), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaPeekAtLastError(), cudaErrorInvalidConfiguration);
    assert_int_equal(start(nothing_kernel, 1, 32, 48 * 1024 + 1), cudaErrorInvalidValue);
    const void *k = (const void *)nothing_kernel;
    auto most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    assert_int_equal(cudaFuncSetAttribute(k, most, 227 * 1024 + 1), cudaErrorInvalidValue);
    assert_int_equal(cudaFuncSetAttribute(k, most, 227 * 1024), cudaSuccess);
    assert_int_equal(start(nothing_kernel, 1, 32, 227 * 1024), cudaSuccess);
    dies([] { start(much_shared_kernel, 1, 1, 0); }, {"65536 bytes of fixed shared arrays"});
    dies([] { start(reverse_kernel<true>, 1, 64, 48 * 1024, device<int>(64)); },
         {"49152 of dynamic shared memory; both together"});
    emu_reset();
}

static void asked_faults(void **) {
    void *p = nullptr;
    emu_fail_alloc(2);
    assert_int_equal(cudaMalloc(&p, 16), cudaSuccess);
    cudaFree(p);
    assert_int_equal(cudaMalloc(&p, 16), cudaErrorMemoryAllocation);
    assert_null(p);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaMalloc(&p, 16), cudaSuccess);

    emu_fail_launch("add_kernel"); // a crash is told by the next call, and by all after it
    assert_int_equal(start(nothing_kernel, 1, 1, 0), cudaSuccess);
    assert_int_equal(start(add_kernel, 1, 1, 0, (int *)p, 1), cudaSuccess);
    assert_int_equal(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
    assert_int_equal(start(nothing_kernel, 1, 1, 0), cudaErrorLaunchFailure);
    assert_string_equal(cudaGetErrorString(cudaGetLastError()), "unspecified launch failure");
    emu_reset();
    assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
    assert_int_equal(cudaFree(p), cudaSuccess);

    int n = -1;
    setenv("EMU_DEVICES", "3", 1);
    assert_true(cudaGetDeviceCount(&n) == cudaSuccess && n == 3);
    assert_true(cudaSetDevice(2) == cudaSuccess && cudaSetDevice(3) == cudaErrorInvalidDevice);
    cudaSetDevice(0);
    setenv("EMU_DEVICES", "0", 1);
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorNoDevice);
    unsetenv("EMU_DEVICES");
    setenv("EMU_DRIVER", "11040", 1);
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    unsetenv("EMU_DRIVER");
    cudaFuncAttributes code;
    setenv("EMU_IMAGE", "0", 1);
    assert_int_equal(cudaFuncGetAttributes(&code, (const void *)nothing_kernel), cudaErrorNoKernelImageForDevice);
    unsetenv("EMU_IMAGE");
    cudaDeviceProp card;
    setenv("EMU_SMS", "7", 1);
    assert_true(cudaGetDeviceProperties(&card, 0) == cudaSuccess && card.multiProcessorCount == 7);
    unsetenv("EMU_SMS");
    emu_reset();
}

static void launch_counts(void **) {
    emu_reset();
    int *x = device<int>(64);
    for (int i = 0; i < 3; i++) start(nothing_kernel, 1, 1, 0);
    start(reverse_kernel<true>, 1, 64, 0, x);
    start(reverse_kernel<false>, 1, 64, 0, x);
    assert_int_equal(emu_launches("nothing_kernel"), 3);
    assert_int_equal(emu_launches("reverse_kernel"), 2);
    assert_int_equal(emu_launches("other_kernel"), 0);
    assert_int_equal(emu_launches_total(), 5);
    emu_reset();
    assert_int_equal(emu_launches_total(), 0);
    cudaFree(x);
}

// ---- streams, events, graphs ----------------------------------------------------------------------------------------
static __global__ void double_kernel(int *x) { *x *= 2; }
static void put(cudaStream_t s, void (*kernel)(int *), int *x) {
    cudaLaunchConfig_t config = {};
    config.gridDim = config.blockDim = dim3(1);
    config.stream = s;
    cudaLaunchKernelEx(&config, kernel, x);
}
static void put(cudaStream_t s, void (*kernel)(int *, int), int *x, int v) {
    cudaLaunchConfig_t config = {};
    config.gridDim = config.blockDim = dim3(1);
    config.stream = s;
    cudaLaunchKernelEx(&config, kernel, x, v);
}

static void deferred_work(void **) {
    int *x = device<int>(1), *pinned = nullptr;
    cudaMallocHost(&pinned, sizeof *pinned);
    cudaStream_t a, b;
    cudaEvent_t e;
    cudaStreamCreate(&a);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaEventCreate(&e);
    emu_defer(true);
    *pinned = 0;
    int five = 5;
    cudaMemcpyAsync(x, &five, sizeof five, cudaMemcpyHostToDevice, a);
    five = 9; // pageable memory was read when the call was made
    put(a, double_kernel, x);
    cudaEventRecord(e, a);
    cudaStreamWaitEvent(b, e, 0);
    put(b, add_kernel, x, 1);
    cudaMemcpyAsync(pinned, x, sizeof *pinned, cudaMemcpyDeviceToHost, b);
    assert_int_equal(*pinned, 0); // nothing has run
    assert_int_equal(cudaEventQuery(e), cudaErrorNotReady);
    assert_int_equal(cudaStreamSynchronize(b), cudaSuccess); // takes a along, as far as the event
    assert_int_equal(*pinned, 11);
    assert_int_equal(cudaEventQuery(e), cudaSuccess);
    put(a, double_kernel, x);
    int polls = 0;
    while (cudaStreamQuery(a) == cudaErrorNotReady) polls++;
    assert_int_equal(host(x, 1)[0], 22);
    emu_defer(false);
    cudaEventDestroy(e);
    cudaStreamDestroy(a), cudaStreamDestroy(b);
    cudaFreeHost(pinned), cudaFree(x);
}

static void events(void **) {
    cudaEvent_t a, b;
    cudaStream_t s;
    cudaEventCreate(&a), cudaEventCreateWithFlags(&b, cudaEventDefault), cudaStreamCreate(&s);
    float ms = -1;
    assert_int_equal(cudaEventElapsedTime(&ms, a, b), cudaErrorInvalidResourceHandle);
    cudaEventRecord(a, s);
    usleep(2000);
    cudaEventRecord(b, s);
    assert_int_equal(cudaEventSynchronize(b), cudaSuccess);
    assert_int_equal(cudaEventElapsedTime(&ms, a, b), cudaSuccess);
    assert_true(ms >= 2 && ms < 2000);
    cudaEventDestroy(a), cudaEventDestroy(b), cudaStreamDestroy(s);
}

// Doubles *x, adds 3 from a forked stream's copy, doubles again; y takes the result.
static void ask(cudaStream_t s, cudaStream_t side, cudaEvent_t e, int *x, int *y, int *three) {
    put(s, double_kernel, x);
    cudaEventRecord(e, s);
    cudaStreamWaitEvent(side, e, 0);
    cudaMemsetAsync(y, 0xff, sizeof *y, side);
    cudaMemcpyAsync(y, three, sizeof *y, cudaMemcpyDefault, side);
    cudaEventRecord(e, side);
    cudaStreamWaitEvent(s, e, 0);
    put(s, double_kernel, x);
    cudaMemcpyAsync(y, x, sizeof *y, cudaMemcpyDeviceToDevice, s);
}
static void graphs(void **) {
    int *x = device(std::vector<int>{3}), *y = device(std::vector<int>{0}), *three = device(std::vector<int>{3});
    cudaStream_t s, side;
    cudaEvent_t e;
    cudaStreamCreate(&s), cudaStreamCreate(&side), cudaEventCreate(&e);
    ask(s, side, e, x, y, three);
    assert_int_equal(host(y, 1)[0], 12);

    emu_reset();
    int three_again = 3;
    cudaMemcpy(x, &three_again, sizeof *x, cudaMemcpyHostToDevice);
    cudaGraph_t g = nullptr;
    cudaGraphExec_t exec = nullptr;
    cudaStreamCaptureStatus status;
    assert_int_equal(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    cudaStreamIsCapturing(s, &status);
    assert_int_equal(status, cudaStreamCaptureStatusActive);
    ask(s, side, e, x, y, three);
    assert_int_equal(cudaStreamEndCapture(s, &g), cudaSuccess);
    assert_int_equal(emu_launches_total(), 0);
    assert_true(host(x, 1)[0] == 3 && host(y, 1)[0] == 12); // recorded, not run
    size_t nodes = 0;
    cudaGraphGetNodes(g, nullptr, &nodes);
    assert_int_equal(nodes, 5);
    assert_int_equal(cudaGraphInstantiate(&exec, g, 0), cudaSuccess);
    cudaGraphDestroy(g);
    for (int run = 1, want = 12; run <= 3; run++, want *= 4) {
        assert_int_equal(cudaGraphLaunch(exec, s), cudaSuccess);
        cudaStreamSynchronize(s);
        assert_int_equal(host(y, 1)[0], want);
        assert_int_equal(emu_launches("double_kernel"), 2 * run);
    }
    cudaGraphExecDestroy(exec);

    // What must not come between spoils the recording.
    void *p = nullptr;
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    assert_int_equal(cudaStreamSynchronize(s), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureInvalidated);
    cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
    assert_int_equal(cudaMalloc(&p, 4), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureInvalidated);
    assert_null(g);
    assert_int_equal(cudaStreamEndCapture(s, &g), cudaErrorStreamCaptureUnmatched);
    emu_reset();
    cudaEventDestroy(e), cudaStreamDestroy(s), cudaStreamDestroy(side);
    cudaFree(x), cudaFree(y), cudaFree(three);
}

// ---- libraries ------------------------------------------------------------------------------------------------------
// c[m,n] = 2 op(a) op(b) + 3 c by rows, as a column-major product of the transposes.
static void library_product(void **) {
    const int m = 5, n = 7, k = 40;
    for (int ta = 0; ta < 2; ta++)
        for (int tb = 0; tb < 2; tb++) {
            std::vector<float> a(m * k), b(k * n), c(m * n);
            for (size_t i = 0; i < a.size(); i++) a[i] = (float)((i * 37) % 11) - 5;
            for (size_t i = 0; i < b.size(); i++) b[i] = (float)((i * 53) % 13) - 6;
            for (size_t i = 0; i < c.size(); i++) c[i] = (float)i;
            float *dc = device(c), alpha = 2, beta = 3;
            cublasLtHandle_t blas;
            cublasLtMatmulDesc_t op;
            cublasLtMatrixLayout_t la, lb, lc;
            cublasOperation_t opa = tb ? CUBLAS_OP_T : CUBLAS_OP_N, opb = ta ? CUBLAS_OP_T : CUBLAS_OP_N;
            cublasLtCreate(&blas);
            cublasLtMatmulDescCreate(&op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
            cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &opa, sizeof opa);
            cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSB, &opb, sizeof opb);
            cublasLtMatrixLayoutCreate(&la, CUDA_R_32F, (uint64_t)(tb ? k : n), (uint64_t)(tb ? n : k), tb ? k : n);
            cublasLtMatrixLayoutCreate(&lb, CUDA_R_32F, (uint64_t)(ta ? m : k), (uint64_t)(ta ? k : m), ta ? m : k);
            cublasLtMatrixLayoutCreate(&lc, CUDA_R_32F, n, m, n);
            assert_int_equal(cublasLtMatmul(blas, op, &alpha, device(b), la, device(a), lb, &beta, dc, lc, dc, lc,
                                            nullptr, nullptr, 0, nullptr),
                             CUBLAS_STATUS_SUCCESS);
            std::vector<float> got = host(dc, c.size());
            for (int i = 0; i < m; i++)
                for (int j = 0; j < n; j++) {
                    float sum = 0;
                    for (int l = 0; l < k; l++)
                        sum += a[(size_t)(ta ? l * m + i : i * k + l)] * b[(size_t)(tb ? j * k + l : l * n + j)];
                    assert_true(got[(size_t)(i * n + j)] == 2 * sum + 3 * c[(size_t)(i * n + j)]);
                }
            cublasLtMatrixLayoutSetAttribute(lc, CUBLASLT_MATRIX_LAYOUT_ROWS, std::vector<uint64_t>{4}.data(), 8);
            assert_int_equal(
                cublasLtMatmul(blas, op, &alpha, dc, la, dc, lb, &beta, dc, lc, dc, lc, nullptr, nullptr, 0, nullptr),
                CUBLAS_STATUS_INVALID_VALUE);
            cublasLtMatrixLayoutDestroy(la), cublasLtMatrixLayoutDestroy(lb), cublasLtMatrixLayoutDestroy(lc);
            cublasLtMatmulDescDestroy(op), cublasLtDestroy(blas);
        }
}

enum { RANKS = 3, PART = 40000 }; // a part takes several pieces of a mailbox
static bool rank_passes(int rank, ncclUniqueId id) {
    cudaSetDevice(rank);
    ncclComm_t comm = nullptr;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclResult_t status = ncclCommInitRankConfig(&comm, RANKS, id, rank, &config);
    while (status == ncclInProgress) ncclCommGetAsyncError(comm, &status);
    bool ok = status == ncclSuccess;
    cudaStream_t s;
    cudaStreamCreate(&s);
    std::vector<float> mine(RANKS * PART);
    for (size_t i = 0; i < mine.size(); i++) mine[i] = (float)(rank * 1000 + (int)(i % 777));
    float *x = nullptr, *y = nullptr;
    cudaMalloc(&x, mine.size() * sizeof(float)), cudaMalloc(&y, mine.size() * sizeof(float));
    cudaMemcpy(x, mine.data(), mine.size() * sizeof(float), cudaMemcpyHostToDevice);
    std::vector<float> got(mine.size());
    auto take = [&] {
        ok = ok && cudaStreamSynchronize(s) == cudaSuccess;
        cudaMemcpy(got.data(), y, got.size() * sizeof(float), cudaMemcpyDeviceToHost);
    };
    ncclAllReduce(x, y, RANKS * PART, ncclFloat32, ncclSum, comm, s);
    take();
    for (size_t i = 0; i < got.size(); i++) ok &= got[i] == (float)(3000 + 3 * (int)(i % 777));
    ncclReduceScatter(x, y, PART, ncclFloat32, ncclMax, comm, s);
    take();
    for (size_t i = 0; i < PART; i++) ok &= got[i] == (float)(2000 + (int)((i + (size_t)rank * PART) % 777));
    ncclAllGather(x, y, PART, ncclFloat32, comm, s);
    take();
    for (size_t i = 0; i < got.size(); i++) ok &= got[i] == (float)((int)(i / PART) * 1000 + (int)(i % PART % 777));
    ncclGroupStart(); // each to the next, and one to all
    ncclSend(x, PART, ncclFloat32, (rank + 1) % RANKS, comm, s);
    ncclRecv(y, PART, ncclFloat32, (rank + 2) % RANKS, comm, s);
    ncclBroadcast(x, y + PART, 100, ncclFloat32, 1, comm, s);
    ncclGroupEnd();
    take();
    for (size_t i = 0; i < PART; i++) ok &= got[i] == (float)((rank + 2) % RANKS * 1000 + (int)(i % 777));
    for (size_t i = 0; i < 100; i++) ok &= got[PART + i] == (float)(1000 + (int)i);
    // Two calls in two streams are served in the order of the calls, whichever stream is waited for first.
    cudaStream_t other;
    cudaStreamCreate(&other);
    float *z = nullptr;
    cudaMalloc(&z, mine.size() * sizeof(float));
    ncclAllReduce(x, y, RANKS * PART, ncclFloat32, ncclSum, comm, s);
    ncclAllReduce(x, z, RANKS * PART, ncclFloat32, ncclMin, comm, other);
    cudaStreamSynchronize(rank == 1 ? s : other);
    take();
    for (size_t i = 0; i < got.size(); i++) ok &= got[i] == (float)(3000 + 3 * (int)(i % 777));
    cudaStreamSynchronize(other);
    cudaMemcpy(got.data(), z, got.size() * sizeof(float), cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < got.size(); i++) ok &= got[i] == (float)(int)(i % 777);
    cudaFree(z);
    cudaStreamDestroy(other);
    // A call that a rank never joins waits in its stream, and ends when the communicator is given up.
    if (rank != 2) ncclAllReduce(x, y, PART, ncclFloat32, ncclSum, comm, s);
    if (rank == 0) ok &= cudaStreamQuery(s) == cudaErrorNotReady;
    usleep(20000);
    ncclCommAbort(comm);
    ok &= cudaStreamSynchronize(s) == cudaSuccess;
    cudaFree(x), cudaFree(y);
    cudaStreamDestroy(s);
    return ok;
}
static void ranks_as_threads(void **) {
    setenv("EMU_DEVICES", "3", 1);
    ncclUniqueId id;
    assert_int_equal(ncclGetUniqueId(&id), ncclSuccess);
    std::vector<std::thread> threads;
    bool ok[RANKS] = {};
    for (int r = 0; r < RANKS; r++) threads.emplace_back([&, r] { ok[r] = rank_passes(r, id); });
    for (std::thread &t : threads) t.join();
    unsetenv("EMU_DEVICES");
    for (bool passed : ok) assert_true(passed);
}
static void ranks_as_processes(void **) {
    setenv("EMU_DEVICES", "3", 1);
    ncclUniqueId id;
    assert_int_equal(ncclGetUniqueId(&id), ncclSuccess);
    pid_t child[RANKS];
    fflush(stdout);
    for (int r = 0; r < RANKS; r++)
        if ((child[r] = fork()) == 0) _exit(rank_passes(r, id) ? 0 : 1);
    unsetenv("EMU_DEVICES");
    for (pid_t c : child) {
        int status = -1;
        waitpid(c, &status, 0);
        assert_int_equal(status, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(launch_limits, clean),
        cmocka_unit_test_teardown(asked_faults, clean),
        cmocka_unit_test_teardown(launch_counts, clean),
        cmocka_unit_test_teardown(deferred_work, clean),
        cmocka_unit_test_teardown(events, clean),
        cmocka_unit_test_teardown(graphs, clean),
        cmocka_unit_test_teardown(library_product, clean),
        cmocka_unit_test_teardown(ranks_as_threads, clean),
        cmocka_unit_test_teardown(ranks_as_processes, clean),
    };
    return cmocka_run_group_tests_name("emu", tests, NULL, NULL);
}
