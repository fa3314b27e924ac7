// fill, cast and lerp: ops that are one pass over memory.
#include "parallel.h"
#include "simd.h"

#define BLOCK 4096 // elements that a thread takes at a time

void cpu_fill(Device *d, Tensor x, float value) {
    int64_t n = tensor_numel(x);
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (int64_t b = 0; b < n; b += BLOCK) {
        int64_t end = b + BLOCK < n ? b + BLOCK : n;
        FOR_LANES(i, left, end - b, row_store_part(x.data, x.dtype, b + i, left, vf_set(value)););
    }
}

ALWAYS_INLINE void cast_block(Tensor y, DType ty, Tensor x, DType tx, int64_t b, int64_t end) {
    FOR_LANES(i, left, end - b, row_store_part(y.data, ty, b + i, left, row_load_part(x.data, tx, b + i, left)););
}

void cpu_cast(Device *d, Tensor y, Tensor x) {
    int64_t n = tensor_numel(x);
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (int64_t b = 0; b < n; b += BLOCK) {
        int64_t end = b + BLOCK < n ? b + BLOCK : n;
        if (x.dtype == y.dtype) {
            size_t size = dtype_size(x.dtype);
            memcpy((char *)y.data + (size_t)b * size, (char *)x.data + (size_t)b * size, (size_t)(end - b) * size);
        } else if (y.dtype == F32) {
            cast_block(y, F32, x, BF16, b, end);
        } else {
            cast_block(y, BF16, x, F32, b, end);
        }
    }
}

ALWAYS_INLINE void lerp_block(Tensor y, DType ty, Tensor x, DType tx, float alpha, int64_t b, int64_t end) {
    FOR_LANES(i, left, end - b, {
        vf old = row_load_part(y.data, ty, b + i, left), new = row_load_part(x.data, tx, b + i, left);
        row_store_part(y.data, ty, b + i, left, vf_fma(vf_set(alpha), new, vf_set(1 - alpha) * old));
    });
}

void cpu_lerp(Device *d, Tensor y, Tensor x, float alpha) {
    int64_t n = tensor_numel(x);
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (int64_t b = 0; b < n; b += BLOCK) {
        int64_t end = b + BLOCK < n ? b + BLOCK : n;
        if (y.dtype == F32) lerp_block(y, F32, x, x.dtype, alpha, b, end);
        else lerp_block(y, BF16, x, x.dtype, alpha, b, end);
    }
}
