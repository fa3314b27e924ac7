// decode: attention of one query a sequence over the KV cache, with the inner loops of attention.h, so that it gives
// the same bits as attention over packed sequences. Each kv head of a sequence is a piece of work; the query heads of
// its group share its keys. The cache is read once.
#include "attention.h"
#include "parallel.h"

// Makes key[] and value[] point to those of n positions from j on in the cache kv[R,2K,d], for kv head k.
static void cache_rows(const void **key, const void **value, Tensor kv, const int32_t *span, int64_t j, int64_t n,
                       int64_t k) {
    size_t bytes = (size_t)kv.dim[2] * dtype_size(kv.dtype); // of a head
    for (int64_t i = 0; i < n; i++) {
        int64_t row = j + i < span[1] ? span[0] + j + i : span[2] + j + i - span[1];
        key[i] = (char *)kv.data + (size_t)(row * kv.dim[1] + k) * bytes;
        value[i] = (char *)key[i] + (size_t)(kv.dim[1] / 2) * bytes;
    }
}
// Prefetches the rows of the next chunk while the one before it is computed.
static inline void prefetch_rows(const void *const *row, int64_t n, size_t bytes) {
    for (int64_t i = 0; i < n; i++)
        for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)row[i] + at, 0, 2);
}
// How many of `keys` keys are in the chunk that begins at j.
static inline int64_t chunk_at(int64_t j, int64_t keys) {
    int64_t n = keys - j;
    return n < 0 ? 0 : n < CHUNK ? n : CHUNK;
}

void cpu_decode(Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, int n_kv) {
    int64_t B = y.dim[0], H = y.dim[1], head = y.dim[2], group = H / n_kv, dp = padded(head);
    float scale = 1.0f / sqrtf((float)head);
    size_t bytes = (size_t)head * dtype_size(kv.dtype), mark = arena_mark(&d->scratch);
    size_t floats = (size_t)(2 * CHUNK * dp) + queries_floats(group, dp);
    int threads = threads_that_fit(d, floats * sizeof(float), B * n_kv);
    float *room = arena_take(&d->scratch, (size_t)threads * floats * sizeof *room); // [threads, floats]
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t item = 0; item < B * n_kv; item++) {
        int64_t b = item / n_kv, k = item % n_kv;
        const int32_t *s = i32(span) + 4 * b;
        int64_t keys = (int64_t)s[1] + s[3];
        float *kt = room + (size_t)thread_index() * floats, *v = kt + CHUNK * dp;
        Queries q = queries_at(v + CHUNK * dp, group, dp);
        char *out = (char *)y.data + (size_t)((b * H + k * group) * head) * dtype_size(y.dtype);
        if (keys <= 0) {
            memset(out, 0, (size_t)(group * head) * dtype_size(y.dtype));
            continue;
        }
        const char *in = tensor_rows(qkv, b, 1).data;
        for (int64_t h = 0; h < group; h++)
            query_start(q, h, in + (size_t)((k * group + h) * head) * dtype_size(qkv.dtype), qkv.dtype, head, scale);
        const void *key[2][CHUNK], *value[2][CHUNK]; // of this chunk and the next
        cache_rows(key[0], value[0], kv, s, 0, chunk_at(0, keys), k);
        for (int64_t j = 0; j < keys; j += CHUNK) {
            int64_t n = chunk_at(j, keys), next = chunk_at(j + CHUNK, keys), seen[BLOCK_ROWS];
            int now = (int)(j / CHUNK % 2);
            cache_rows(key[!now], value[!now], kv, s, j + CHUNK, next, k);
            prefetch_rows(key[!now], next, bytes);
            prefetch_rows(value[!now], next, bytes);
            pack_transposed(kt, key[now], n, kv.dtype, head);
            pack_rows(v, value[now], n, kv.dtype, head);
            for (int r = 0; r < BLOCK_ROWS; r++) seen[r] = n;
            for (int64_t h = 0; h < group; h += BLOCK_ROWS)
                attend(q, h, group - h < BLOCK_ROWS ? (int)(group - h) : BLOCK_ROWS, seen, kt, v, head);
        }
        for (int64_t h = 0; h < group; h++)
            query_finish(q, h, out + (size_t)(h * head) * dtype_size(y.dtype), y.dtype, head);
    }
    arena_rewind(&d->scratch, mark);
}

void cpu_rope_decode(Device *d, Tensor y, Tensor qkv, Tensor q_norm, Tensor k_norm, float eps, Tensor bias, Tensor pos,
                     const RopeTable *table, int n_kv, Tensor kv, Tensor kv_row, Tensor span) {
    if (present(q_norm)) cpu_qk_norm(d, qkv, NONE, q_norm, k_norm, n_kv, eps);
    cpu_rope(d, qkv, bias, pos, table, n_kv, kv, kv_row);
    cpu_decode(d, y, qkv, kv, span, n_kv);
}
