// Threads for the CPU ops, with and without OpenMP: how many there are, how many a loop should use, and sums over rows
// whose order does not depend on them.
#pragma once
#include "ops.h"
#ifdef _OPENMP
#include <omp.h>
static inline int thread_index(void) { return omp_get_thread_num(); }
static inline int thread_limit(void) { return omp_get_max_threads(); }
#else
static inline int thread_index(void) { return 0; }
static inline int thread_limit(void) { return 1; }
#endif

// Loops shorter than this many elements are not worth waking threads for.
#define PARALLEL_MIN 16384

// How many threads can work at once on `items` tasks when each thread needs `bytes` of scratch: at least one.
static inline int threads_that_fit(const Device *d, size_t bytes, int64_t items) {
    int64_t room = (int64_t)((d->scratch.cap - d->scratch.used) / (bytes + ARENA_ALIGN));
    int64_t n = thread_limit();
    n = n < room ? n : room;
    n = n < items ? n : items;
    return n > 1 ? (int)n : 1;
}

// Rows in a block of a column sum over T rows. There are at most 256 blocks; each adds its rows in order, then the
// blocks are added in order. The blocks depend on T alone, so the sum does not depend on the number of threads.
static inline int64_t sum_block_rows(int64_t T) {
    int64_t rows = (T + 255) / 256;
    return rows < 32 ? 32 : rows;
}
// out[n] += the sum over blocks of partial[blocks, n], in f32; out is f32 or bf16, rounded once.
void add_column_sums(Tensor out, const float *partial, int64_t blocks, int64_t n);
