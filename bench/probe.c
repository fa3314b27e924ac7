// The probe: what memory and arithmetic units give to a loop that does nothing else.
#include "bench.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PASSES 5

// Accumulators: enough to cover the latency of every unit, few enough to stay in registers.
#if defined(__AVX512F__)
#define ACCUMULATORS 24
typedef __m512 Lanes;
static inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(__FMA__)
#define ACCUMULATORS 12
typedef __m256 Lanes;
static inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }
#else
#define ACCUMULATORS 12
typedef float Lanes __attribute__((vector_size(16)));
static inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return a * b + c; }
#endif

static int thread_count(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static volatile float seed = 1e-3f; // unknown to the compiler
static volatile float sink;

// Every thread runs `rounds` of ACCUMULATORS multiply-adds; GFLOP/s of all together.
static double f32_rate(int64_t rounds) {
    double start = clock_seconds();
    int threads = thread_count();
#pragma omp parallel
    {
        Lanes a = (Lanes){0} + seed, b = a, acc[ACCUMULATORS];
        for (int i = 0; i < ACCUMULATORS; i++) acc[i] = a * (float)i;
        for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 32
            for (int i = 0; i < ACCUMULATORS; i++) acc[i] = multiply_add(a, b, acc[i]);
        Lanes sum = acc[0];
        for (int i = 1; i < ACCUMULATORS; i++) sum += acc[i];
        sink = sum[0];
    }
    double flop = 2.0 * sizeof(Lanes) / sizeof(float) * ACCUMULATORS * (double)rounds * threads;
    return flop / (clock_seconds() - start) * 1e-9;
}

#if defined(__AVX512BF16__)
static double bf16_rate(int64_t rounds) {
    double start = clock_seconds();
    int threads = thread_count();
#pragma omp parallel
    {
        __m512 a = (__m512){0} + seed, acc[ACCUMULATORS];
        __m512bh x = _mm512_cvtne2ps_pbh(a, a), y = x;
        for (int i = 0; i < ACCUMULATORS; i++) acc[i] = a * (float)i;
        for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 32
            for (int i = 0; i < ACCUMULATORS; i++) acc[i] = _mm512_dpbf16_ps(acc[i], x, y);
        __m512 sum = acc[0];
        for (int i = 1; i < ACCUMULATORS; i++) sum += acc[i];
        sink = sum[0];
    }
    return 64.0 * ACCUMULATORS * (double)rounds * threads / (clock_seconds() - start) * 1e-9;
}
#endif

// GB/s of reading `bytes` once, each thread its own stretch.
static double read_rate(const char *memory, int64_t bytes) {
    typedef uint64_t Words __attribute__((vector_size(64)));
    double start = clock_seconds();
    uint64_t folded = 0;
#pragma omp parallel for schedule(static) reduction(^ : folded)
    for (int64_t page = 0; page < bytes / 4096; page++) {
        const char *p = memory + page * 4096;
        Words x[4] = {0};
        for (int i = 0; i < 4096; i += 256)
            for (int k = 0; k < 4; k++) {
                Words w;
                memcpy(&w, p + i + 64 * k, sizeof w);
                x[k] ^= w;
            }
        x[0] ^= x[1] ^ x[2] ^ x[3];
        for (int k = 0; k < 8; k++) folded ^= x[0][k];
    }
    sink = (float)folded;
    return (double)bytes / (clock_seconds() - start) * 1e-9;
}

static double best(double (*rate)(int64_t), int64_t rounds) {
    double top = 0;
    for (int i = 0; i < PASSES; i++) top = fmax(top, rate(rounds));
    return top;
}

Probe probe_run(void) {
    Probe p = {.threads = thread_count()};
    int64_t bytes = (int64_t)512 << 20; // many times any cache
    char *memory = aligned_alloc(4096, (size_t)bytes);
    if (memory) {
#pragma omp parallel for schedule(static)
        for (int64_t page = 0; page < bytes / 4096; page++) memset(memory + page * 4096, (int)page & 127, 4096);
        for (int i = 0; i < PASSES; i++) p.read = fmax(p.read, read_rate(memory, bytes));
        free(memory);
    }
    f32_rate(1000000); // the clock frequency rises
    p.f32 = best(f32_rate, 10000000);
#if defined(__AVX512BF16__)
    p.bf16 = best(bf16_rate, 10000000);
#else
    p.bf16 = p.f32;
#endif
    return p;
}
