// The probe: what memory and arithmetic units give to a loop that does nothing else.
#include "bench.h"
#include "clock.h"
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

// `rounds` of ACCUMULATORS multiply-adds that do not wait for each other.
static void f32_burst(int64_t rounds) {
    Lanes a = (Lanes){0} + seed, b = a, acc[ACCUMULATORS];
    for (int i = 0; i < ACCUMULATORS; i++) acc[i] = a * (float)i;
    for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 32
        for (int i = 0; i < ACCUMULATORS; i++) acc[i] = multiply_add(a, b, acc[i]);
    Lanes sum = acc[0];
    for (int i = 1; i < ACCUMULATORS; i++) sum += acc[i];
    sink = sum[0];
}

#if defined(__AVX512BF16__)
static void bf16_burst(int64_t rounds) {
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
#endif

// GFLOP/s of all threads at once, each by its best burst: bursts are so short (about a millisecond) that even on a busy
// machine some of them have their core to themselves.
static double best_rate(void (*burst)(int64_t), double flop_a_round) {
    const int64_t rounds = 100000;
    double all = 0, end = clock_seconds() + 0.7;
#pragma omp parallel reduction(+ : all)
    {
        double top = 0;
        while (clock_seconds() < end) {
            double start = clock_seconds();
            burst(rounds);
            top = fmax(top, flop_a_round * (double)rounds / (clock_seconds() - start) * 1e-9);
        }
        all += top;
    }
    return all;
}

// GB/s of reading `bytes` once: each thread its own stretch, in `streams` parts side by side.
static double read_rate(const char *memory, int64_t bytes, int streams) {
    typedef uint64_t Words __attribute__((vector_size(64), may_alias));
    int64_t threads = thread_count(), part = bytes / threads / streams / 4096 * 4096;
    uint64_t folded = 0;
    double start = clock_seconds();
#pragma omp parallel for schedule(static) reduction(^ : folded)
    for (int64_t t = 0; t < threads; t++) {
        const char *mine = memory + t * streams * part;
        Words x[4] = {0};
        for (int64_t i = 0; i < part; i += 256)
            for (int s = 0; s < streams; s++)
                for (int k = 0; k < 4; k++) x[k] ^= *(const Words *)(mine + s * part + i + 64 * k);
        x[0] ^= x[1] ^ x[2] ^ x[3];
        for (int k = 0; k < 8; k++) folded ^= x[0][k];
    }
    sink = (float)folded;
    return (double)(part * streams * threads) / (clock_seconds() - start) * 1e-9;
}

// The best of several ways to read: how many streams and which pages suit a machine differs.
static double best_read(void) {
    size_t bytes = (size_t)512 << 20; // many times any cache
    double top = 0;
    for (int huge = 0; huge < 2; huge++) {
        char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) continue;
        madvise(memory, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#pragma omp parallel for schedule(static)
        for (size_t page = 0; page < bytes / 4096; page++) memset(memory + page * 4096, (int)page & 127, 4096);
        for (int streams = 1; streams <= 8; streams *= 2)
            for (int i = 0; i < 12; i++) top = fmax(top, read_rate(memory, (int64_t)bytes, streams));
        munmap(memory, bytes);
    }
    return top;
}

Probe probe_run(void) {
    Probe p = {.threads = thread_count(), .read = best_read()};
    p.f32 = best_rate(f32_burst, 2.0 * sizeof(Lanes) / sizeof(float) * ACCUMULATORS);
#if defined(__AVX512BF16__)
    p.bf16 = best_rate(bf16_burst, 64.0 * ACCUMULATORS);
#else
    p.bf16 = p.f32;
#endif
    return p;
}
