// What the tests of the emulator share: launches, device memory that a test need not free, children that die of a
// fault.
#pragma once
#include "emu.h"
#include "ptx.cuh"
#include <initializer_list>
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>
extern "C" {
#include <cmocka.h>
}

template <typename... P, typename... A>
static cudaError_t start(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... args) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    return cudaLaunchKernelEx(&config, kernel, P(args)...);
}
static std::vector<void *> taken; // device memory of the running test
template <typename T> static T *device(size_t n) {
    T *p = nullptr;
    assert_int_equal(cudaMalloc(&p, n * sizeof(T)), cudaSuccess);
    taken.push_back(p);
    return p;
}
static inline int clean(void **) {
    for (void *p : taken) cudaFree(p); // fails where the test has done it
    taken.clear();
    emu_reset();
    return 0;
}
template <typename T> static T *device(const std::vector<T> &values) {
    T *p = device<T>(values.size());
    cudaMemcpy(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice);
    return p;
}
template <typename T> static std::vector<T> host(const T *p, size_t n) {
    std::vector<T> values(n);
    assert_int_equal(cudaMemcpy(values.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
}

// Runs f in a child and asserts that it dies saying each of the words.
static inline void dies(void (*f)(), std::initializer_list<const char *> words) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(stdout);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        for (int s : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) signal(s, SIG_DFL); // cmocka's would go on
        f();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char piece[4096];
    for (ssize_t n; (n = read(ends[0], piece, sizeof piece)) > 0;) said.append(piece, (size_t)n);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) fail_msg("the fault went unnoticed; said: %s", said.c_str());
    for (const char *word : words)
        if (said.find(word) == std::string::npos) fail_msg("\"%s\" is not in: %s", word, said.c_str());
}

// x[64] backwards, right only with the barrier.
template <bool barrier> static __global__ void reverse_kernel(int *x) {
    SHARED(int, room, [64]);
    room[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncthreads();
    x[threadIdx.x] = room[63 - threadIdx.x];
}
