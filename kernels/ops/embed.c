// The embedding: y[t] = w[ids[t]], and its gradient dw[ids[t]] += dy[t].
#include "parallel.h"
#include "simd.h"

static void *row(Tensor x, int64_t i) { return tensor_rows(x, i, 1).data; }

void cpu_embed(Device *d, Tensor y, Tensor w, Tensor ids) {
    int64_t T = y.dim[0], D = tensor_width(y);
    const int32_t *id = i32(ids); // [T]
#pragma omp parallel for schedule(static) if (T * D >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        if (y.dtype == w.dtype) {
            memcpy(row(y, t), row(w, id[t]), (size_t)D * dtype_size(y.dtype));
            continue;
        }
        FOR_LANES(i, n, D, row_store_part(row(y, t), y.dtype, i, n, row_load_part(row(w, id[t]), w.dtype, i, n)););
    }
}

// The tokens of one id form a chain in ascending order. One thread sums a chain in f32 and rounds it once into dw's
// row, so that the result does not depend on the number of threads, and small gradients are not lost to repeated
// rounding in bf16.
void cpu_embed_bwd(Device *d, Tensor dw, Tensor dy, Tensor ids, int pad) {
    int64_t T = dy.dim[0], D = tensor_width(dy), V = dw.dim[0];
    const int32_t *id = i32(ids); // [T]
    size_t mark = arena_mark(&d->scratch);
    int32_t *first = arena_take(&d->scratch, (size_t)V * sizeof *first); // [V] first token of each id, or -1
    int32_t *next = arena_take(&d->scratch, (size_t)T * sizeof *next);   // [T] next token of the same id, or -1
    memset(first, -1, (size_t)V * sizeof *first);
    for (int64_t t = T - 1; t >= 0; t--) {
        next[t] = first[id[t]];
        first[id[t]] = (int32_t)t;
    }
#pragma omp parallel for schedule(dynamic, 16) if (T * D >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        if (first[id[t]] != t || id[t] == pad) continue;
        void *out = row(dw, id[t]);
        FOR_LANES(i, n, D, {
            vf sum = row_load_part(out, dw.dtype, i, n);
            for (int64_t u = t; u >= 0; u = next[u]) sum += row_load_part(row(dy, u), dy.dtype, i, n);
            row_store_part(out, dw.dtype, i, n, sum);
        });
    }
    arena_rewind(&d->scratch, mark);
}
