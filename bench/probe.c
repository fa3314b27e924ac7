// The probe of a CPU: the speed of loops that only read memory, or only compute.
#include "bench.h"
#include "clock.h"
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__)
#include "tile_asm.h"
#include <immintrin.h>
#endif

static int thread_count(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static volatile float seed = 1e-3f; // volatile: the compiler must not compute with its value
static volatile float sink;

// A loop of multiply-adds that do not wait for each other, for each instruction set: enough accumulators to cover the
// latency of every unit, few enough to stay in registers. `flop`: those of one round.
typedef struct {
    void (*run)(int64_t rounds);
    double flop;
} Burst;

#define DEFINE_BURST(name, target_text, Lanes, accumulators, unknown, step)                                            \
    __attribute__((target(target_text))) static void name(int64_t rounds) {                                            \
        Lanes acc[accumulators], x = unknown;                                                                          \
        for (int i = 0; i < accumulators; i++) acc[i] = (Lanes){0} + seed * (float)i;                                  \
        for (int64_t r = 0; r < rounds; r++) {                                                                         \
            _Pragma("GCC unroll 32") for (int i = 0; i < accumulators; i++) acc[i] = step;                             \
        }                                                                                                              \
        Lanes sum = acc[0];                                                                                            \
        for (int i = 1; i < accumulators; i++) sum += acc[i];                                                          \
        sink = sum[0];                                                                                                 \
    }

#if defined(__x86_64__)
DEFINE_BURST(f32_sse, "sse2", __m128, 12, (__m128){0} + seed, x *x + acc[i])
DEFINE_BURST(f32_avx2, "avx2,fma", __m256, 12, (__m256){0} + seed, _mm256_fmadd_ps(x, x, acc[i]))
DEFINE_BURST(f32_avx512, "avx512f", __m512, 24, (__m512){0} + seed, _mm512_fmadd_ps(x, x, acc[i]))
#define BF16(x) _mm512_cvtne2ps_pbh(x, x)
DEFINE_BURST(bf16_avx512, "avx512f,avx512bf16", __m512, 24, (__m512){0} + seed,
             _mm512_dpbf16_ps(acc[i], BF16(x), BF16(x)))

#if __has_include(<amxtileintrin.h>) // the assembler knows tile registers
// Six squares of sums, each 16 x 16 products of 32 elements a round.
#define SIX(f)                                                                                                         \
    f(0);                                                                                                              \
    f(1);                                                                                                              \
    f(2);                                                                                                              \
    f(3);                                                                                                              \
    f(4);                                                                                                              \
    f(5);
#define DOT(t) tile_dot(t, 6, 7)
static void bf16_amx(int64_t rounds) {
    uint16_t one[16 * 32];
    float sum[16 * 16];
    for (int i = 0; i < 16 * 32; i++) one[i] = 0x3a83; // 1e-3
    tile_open();
    SIX(tile_zero)
    tile_load(6, one, 64);
    tile_load(7, one, 64);
    for (int64_t r = 0; r < rounds; r++) {
        SIX(DOT)
    }
    tile_store(0, sum, 64);
    tile_close();
    sink = sum[0];
}
#define BURST_TILES                                                                                                    \
    (Burst) { bf16_amx, 6 * 16 * 16 * 64 }
#else
#define BURST_TILES                                                                                                    \
    (Burst) { 0 }
#endif

// Picks the fastest instruction set that this CPU has, even if the ops do not use it.
static Burst burst_f32(void) {
    if (!cpu_isa_missing(CPU_ISA_avx512)) return (Burst){f32_avx512, 24 * 32};
    if (!cpu_isa_missing(CPU_ISA_avx2)) return (Burst){f32_avx2, 12 * 16};
    return (Burst){f32_sse, 12 * 8};
}
static Burst burst_bf16(const char **unit) {
    if (!cpu_isa_missing(CPU_ISA_amx)) return *unit = "tile products", BURST_TILES;
    if (!cpu_isa_missing(CPU_ISA_avx512_bf16)) return *unit = "dot products", (Burst){bf16_avx512, 24 * 64};
    return (Burst){0};
}
#else
typedef float Lanes __attribute__((vector_size(16)));
DEFINE_BURST(f32_plain, "", Lanes, 12, (Lanes){0} + seed, x *x + acc[i])
static Burst burst_f32(void) { return (Burst){f32_plain, 12 * 8}; }
static Burst burst_bf16(const char **unit) { return (Burst){0}; }
#endif

// GFLOP/s of all threads at once, each by its best burst: bursts are so short (about a millisecond) that even on a busy
// machine some of them have their core to themselves.
static double best_rate(Burst burst) {
    const int64_t rounds = 100000;
    double all = 0, end = clock_seconds() + 0.7;
#pragma omp parallel reduction(+ : all)
    {
        double top = 0;
        while (clock_seconds() < end) {
            double start = clock_seconds();
            burst.run(rounds);
            top = fmax(top, burst.flop * (double)rounds / (clock_seconds() - start) * 1e-9);
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
    p.f32 = best_rate(burst_f32());
    Burst bf16 = burst_bf16(&p.bf16_unit);
    p.bf16 = bf16.run ? best_rate(bf16) : 0;
    if (p.bf16 < p.f32) p.bf16_unit = NULL, p.bf16 = p.f32; // widened to f32, then
    return p;
}
