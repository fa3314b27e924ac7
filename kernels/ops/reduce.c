// sumsq, and the column sums of parallel.h: sums whose order depends on the shape alone.
#include "parallel.h"
#include "simd.h"

#define CHUNK 4096 // elements summed on their own before the chunks are added in order

ALWAYS_INLINE double chunk_sumsq(const void *p, DType t, int64_t begin, int64_t end) {
    vd low = {0}, high = {0}; // of the halves of a vector
    FOR_LANES(i, left, end - begin, {
        vf x = row_load_part(p, t, begin + i, left);
        vd a = vd_of(vf_low(x)), b = vd_of(vf_high(x));
        low += a * a;
        high += b * b;
    });
    return vd_sum(low + high);
}

void cpu_sumsq(Device *d, Tensor out, Tensor x) {
    int64_t n = tensor_numel(x), chunks = (n + CHUNK - 1) / CHUNK;
    size_t mark = arena_mark(&d->scratch);
    double *partial = arena_take(&d->scratch, (size_t)chunks * sizeof *partial); // [chunks]
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (int64_t c = 0; c < chunks; c++) {
        int64_t begin = c * CHUNK, end = begin + CHUNK < n ? begin + CHUNK : n;
        partial[c] = x.dtype == F32 ? chunk_sumsq(x.data, F32, begin, end) : chunk_sumsq(x.data, BF16, begin, end);
    }
    double sum = 0;
    for (int64_t c = 0; c < chunks; c++) sum += partial[c];
    memcpy(out.data, &sum, sizeof sum);
    arena_rewind(&d->scratch, mark);
}

void add_column_sums(Tensor out, const float *partial, int64_t blocks, int64_t n) {
#pragma omp parallel for schedule(static) if (blocks * n >= PARALLEL_MIN)
    for (int64_t i = 0; i < n; i += LANES) {
        vf sum = row_load_part(out.data, out.dtype, i, n - i);
        for (int64_t b = 0; b < blocks; b++) sum += row_load_part(partial + b * n, F32, i, n - i);
        row_store_part(out.data, out.dtype, i, n - i, sum);
    }
}
