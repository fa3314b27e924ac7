// Sums whose order is fixed by the data's shape alone.
#include "parallel.h"
#include "simd.h"

#define CHUNK 4096 // elements summed on their own before the chunks are added in order

typedef double vd __attribute__((vector_size(128), may_alias));

ALWAYS_INLINE double chunk_sumsq(const void *p, DType t, int64_t begin, int64_t end) {
    vd sum = {0};
    for (int64_t i = begin; i < end; i += LANES) {
        vd x = __builtin_convertvector(row_load_part(p, t, i, end - i), vd);
        sum += x * x;
    }
    for (int n = LANES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) sum[i] += sum[i + n];
    return sum[0];
}

void cpu_sumsq(Device *d, Tensor out, Tensor x) {
    int64_t n = tensor_numel(x), chunks = (n + CHUNK - 1) / CHUNK;
    size_t mark = arena_mark(&d->scratch);
    double *part = arena_take(&d->scratch, (size_t)chunks * sizeof *part); // [chunks]
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (int64_t c = 0; c < chunks; c++) {
        int64_t begin = c * CHUNK, end = begin + CHUNK < n ? begin + CHUNK : n;
        part[c] = x.dtype == F32 ? chunk_sumsq(x.data, F32, begin, end) : chunk_sumsq(x.data, BF16, begin, end);
    }
    double sum = 0;
    for (int64_t c = 0; c < chunks; c++) sum += part[c];
    memcpy(out.data, &sum, sizeof sum);
    arena_rewind(&d->scratch, mark);
}

void add_column_sums(Tensor out, const float *part, int64_t blocks, int64_t n) {
#pragma omp parallel for schedule(static) if (blocks * n >= PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += LANES) {
        vf sum = row_load_part(out.data, out.dtype, i, n - i);
        for (int64_t b = 0; b < blocks; b++) sum += row_load_part(part + b * n, F32, i, n - i);
        row_store_part(out.data, out.dtype, i, n - i, sum);
    }
}
