// One query a sequence over the KV cache, by the core of attention.cuh: the same bits as the packed pass gives.
//
//   y[b,h] = sum over j of p_j v_j[h / group] / sum p_j,  j over the keys of span[b], p_j from q[b,h] k_j / sqrt(d)
//
// Chunks of 64 keys are merged in ascending order, so any block may make a chunk's (m, l, o) and leave it in scratch.
//   parts_kernel   what several blocks should share the work of. A block takes chunks z, z + Z, ... of a sequence's first
//                  `parts`. A chunk that lies in a prefix shared with neighbouring rows is made once for up to 64 (row,
//                  head) pairs of them, by the first row's block: a group's prefix is read once a group and kv head (but
//                  for what is beyond its last whole chunk, up to 63 keys, which meets the suffix in one chunk).
//   decode_kernel  a block merges the parts of a (sequence, kv head, 16 query heads), then walks the chunks that are left,
//                  one a warp and turn; each warp waits for its own keys, then its own values.
// Where sequences are too few to fill the card, all chunks are parts, as far as scratch reaches; else only shared ones.
// Which chunks are parts has no influence on the bits.
//
// Bytes: 4 K d a key (bf16), a shared prefix's once a group; the parts add (d + 2) 4 H a chunk, mostly in L2, which is
// H (d + 2) / (64 K d) of the keys' bytes: a ninth for H / K = 7. The floor is those bytes over the bandwidth.
// f32 storage takes the plain way: a block a (sequence, kv head, 16 query heads), all chunks in order.
#include "attention.cuh"

#define PART_ROWS  64 // rows of a part's block, 16 a warp
#define OWN_ROWS   16 // rows of a decode block
#define MERGE_STEP 16 // parts merged at a time

typedef struct {
    int prefix_row, prefix_len, suffix_row, keys;
} Span;
static __device__ __forceinline__ Span span_of(const int32_t *span, int b) {
    const int32_t *s = span + 4 * (int64_t)b;
    return {s[0], s[1], s[2], s[1] + s[3]};
}
// The cache row of key j.
static __device__ __forceinline__ int64_t row_of(const Span &s, int j) {
    return (int64_t)(j < s.prefix_len ? s.prefix_row : s.suffix_row - s.prefix_len) + j;
}
static __device__ __forceinline__ int chunks_of(const Span &s) { return (s.keys + CHUNK - 1) / CHUNK; }
static __device__ __forceinline__ bool same_prefix(const int32_t *span, int B, int a, int b) {
    if (a < 0 || b < 0 || a >= B || b >= B) return false;
    return span[4 * (int64_t)a] == span[4 * (int64_t)b] && span[4 * (int64_t)a + 1] == span[4 * (int64_t)b + 1];
}

// The parts of all sequences: o[most, B, H, d] and ml[most, B, H, 2] f32, for the first `most` chunks.
typedef struct {
    float *o, *ml;
    int most, B;
    bool all; // every chunk that fits is a part, not the shared ones only
} Parts;

static __device__ __forceinline__ int shared_chunks(const Parts &p, const int32_t *span, int b, const Span &s) {
    bool shared = same_prefix(span, p.B, b - 1, b) || same_prefix(span, p.B, b, b + 1);
    return shared ? min(s.prefix_len / CHUNK, p.most) : 0;
}
static __device__ __forceinline__ int parts_of(const Parts &p, int shared, const Span &s) {
    return p.all ? min(chunks_of(s), p.most) : shared;
}

// How many rows before b, or from b on, share its prefix, looked for 32 at a time by whole warps; at most about `most`.
static __device__ __forceinline__ int run_before(const int32_t *span, int B, int b) {
    int lane = (int)threadIdx.x % WARP, n = 0;
    for (;; n += WARP) {
        unsigned other = ~__ballot_sync(FULL, same_prefix(span, B, b - n - lane - 1, b));
        if (other) return n + __ffs((int)other) - 1;
    }
}
static __device__ __forceinline__ int run_from(const int32_t *span, int B, int b, int most) {
    int lane = (int)threadIdx.x % WARP, n = 0;
    for (; n < most; n += WARP) {
        unsigned other = ~__ballot_sync(FULL, same_prefix(span, B, b, b + n + lane));
        if (other) return min(n + __ffs((int)other) - 1, most);
    }
    return most;
}

// Leaves chunk c of rows [first, first + rows) in the parts: row i is head i % group of sequence b + i / group.
template <int D>
static __device__ void make_part(const Parts &p, Bf16 *q, const Bf16 *qkv, const Bf16 *kv, const Span &span, int b,
                                 int head, int first, int rows, int c, const Heads &h) {
    Bf16 *k = q + PART_ROWS * PITCH<D>, *v = k + CHUNK * PITCH<D>;
    int thread = (int)threadIdx.x, lane = thread % WARP, own = thread / WARP * 16, live = span.keys - c * CHUNK;
    auto head_of = [&](int i) { return head * h.group + (first + i) % h.group; };
    auto load_chunk = [&](Bf16 *to, int at) {
        load_rows<D>(to, CHUNK, live, h, thread, TILE_THREADS,
                     [&](int j) { return kv + (row_of(span, c * CHUNK + j) * 2 * h.K + at) * h.d; });
        cp_async_commit();
    };
    __syncthreads(); // whoever used q, k, v before
    load_rows<D>(q, PART_ROWS, rows, h, thread, TILE_THREADS, [&](int i) {
        return qkv + ((int64_t)(b + (first + i) / h.group) * (h.H + 2 * h.K) + head_of(i)) * h.d;
    });
    load_chunk(k, head);
    load_chunk(v, h.K + head);
    cp_async_wait<1>();
    __syncthreads();
    float s[1][8][4];
    ChunkRows<1> x;
    const int n[1][2] = {{live, live}};
    if (own < rows) dot_rows<D, 1, 8>(s, q + own * PITCH<D>, k);
    cp_async_wait<0>();
    __syncthreads();
    if (own >= rows) return;
    softmax_chunk<1>(&x, s, n, live >= CHUNK, h.scale2);
    // By way of the room of q and k, so that rows are written whole: the warp's 16 rows, f32.
    float *o = (float *)q + own * PITCH<D>;
    weigh_values<D, D, 1>(x, v, n, true, [&](int j, const float t[1][2][4]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = i % 2 * 8 + lane / 4, column = j * 16 + i / 2 * 8 + lane % 4 * 2;
            float2 two = {t[0][i / 2][i % 2 * 2], t[0][i / 2][i % 2 * 2 + 1]};
            *(float2 *)(o + row * PITCH<D> + column) = two;
        }
    });
    __syncwarp();
    for (int r = 0; r < 16 && own + r < rows; r++) {
        int64_t out = ((int64_t)c * p.B + b + (first + own + r) / h.group) * h.H + head_of(own + r);
        for (int i = lane; i < h.d; i += WARP) p.o[out * h.d + i] = o[r * PITCH<D> + i];
        if (lane == r % 8 * 4) { // the lanes with its m and l
            p.ml[out * 2] = r < 8 ? x.m[0][0] : x.m[0][1];
            p.ml[out * 2 + 1] = r < 8 ? x.l[0][0] : x.l[0][1];
        }
    }
}

// grid (B, K, Z), block TILE_THREADS
template <int D>
static __global__ void __launch_bounds__(TILE_THREADS)
    parts_kernel(Parts p, const Bf16 *qkv, const Bf16 *kv, const int32_t *span, Heads h) {
    SHARED_DYNAMIC(Bf16, room); // q[PART_ROWS, PITCH], k and v [CHUNK, PITCH] each
    int b = (int)blockIdx.x, head = (int)blockIdx.y, together = max(1, PART_ROWS / h.group);
    Span s = span_of(span, b);
    int shared = shared_chunks(p, span, b, s), parts = parts_of(p, shared, s), sequences = 0;
    if ((int)blockIdx.z < shared && run_before(span, p.B, b) % together == 0)
        sequences = run_from(span, p.B, b, together);
    for (int c = (int)blockIdx.z; c < parts; c += (int)gridDim.z) {
        int rows = (c < shared ? sequences : 1) * h.group;
        for (int first = 0; first < rows; first += PART_ROWS)
            make_part<D>(p, room, qkv, kv, s, b, head, first, min(rows - first, PART_ROWS), c, h);
    }
}

template <int D> struct Own {
    static constexpr int WARPS = 256 / D;                    // of a block
    static constexpr int CHUNK_ELEMS = 2 * CHUNK * PITCH<D>; // keys and values of a warp
    static constexpr size_t SHARED_BYTES = sizeof(Bf16) * (OWN_ROWS * PITCH<D> + WARPS * CHUNK_ELEMS) +
                                           sizeof(float) * (OWN_ROWS * (D + 2) + OWN_ROWS * 2 * WARPS) +
                                           sizeof(Scales) * OWN_ROWS * MERGE_STEP;
};

// grid (B, K, 16 query heads), block 32 WARPS. Shared memory leaves room for two blocks an SM; without the bound's second
// number ptxas saves registers for more, and spills.
template <int D>
static __global__ void __launch_bounds__(32 * Own<D>::WARPS, 4)
    decode_kernel(Bf16 *y, Parts p, const Bf16 *qkv, const Bf16 *kv, const int32_t *span, Heads h) {
    constexpr int WARPS = Own<D>::WARPS;
    SHARED_DYNAMIC(Bf16, q);                                              // [OWN_ROWS, PITCH]
    Bf16 *chunk = q + OWN_ROWS * PITCH<D>;                                // [WARPS, 2, CHUNK, PITCH]
    float *o = (float *)(chunk + WARPS * Own<D>::CHUNK_ELEMS);            // [OWN_ROWS, d]
    float *m = o + OWN_ROWS * D, *l = m + OWN_ROWS, *made = l + OWN_ROWS; // made[WARPS, 2, OWN_ROWS]: a chunk's m, l
    Scales *scales = (Scales *)(made + 2 * WARPS * OWN_ROWS);             // [MERGE_STEP, OWN_ROWS]
    int thread = (int)threadIdx.x, warp = thread / WARP, lane = thread % WARP, b = (int)blockIdx.x;
    int kv_head = (int)blockIdx.y, in_group = (int)blockIdx.z * OWN_ROWS, rows = min(h.group - in_group, OWN_ROWS);
    int64_t head = (int64_t)kv_head * h.group + in_group, out = (int64_t)b * h.H + head;
    Span s = span_of(span, b);
    int chunks = chunks_of(s), parts = parts_of(p, shared_chunks(p, span, b, s), s), elems = rows * h.d;
    if (s.keys <= 0) {
        for (int i = thread; i < elems; i += 32 * WARPS) y[out * h.d + i] = from_float<Bf16>(0.0f);
        return; // the whole block
    }
    for (int i = thread; i < elems; i += 32 * WARPS) o[i] = 0;
    if (thread < OWN_ROWS) m[thread] = -INFINITY, l[thread] = 0;
    load_rows<D>(q, OWN_ROWS, rows, h, thread, 32 * WARPS,
                 [&](int i) { return qkv + ((int64_t)b * (h.H + 2 * h.K) + head + i) * h.d; });
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();

    for (int first = 0; first < parts; first += MERGE_STEP) {
        int n = min(parts - first, MERGE_STEP);
        if (thread < rows)
            for (int i = 0; i < n; i++) {
                const float *ml = p.ml + (((int64_t)(first + i) * p.B * h.H) + out + thread) * 2;
                scales[i * OWN_ROWS + thread] = merge(m + thread, l + thread, ml[0], ml[1], h.scale2);
            }
        __syncthreads();
        for (int e = thread; e < elems; e += 32 * WARPS) {
            const float *part = p.o + ((int64_t)first * p.B * h.H + out) * h.d + e;
            float x = o[e];
#pragma unroll 4
            for (int i = 0; i < n; i++)
                x = merged(x, part[(int64_t)i * p.B * h.H * h.d], scales[i * OWN_ROWS + e / h.d]);
            o[e] = x;
        }
        __syncthreads();
    }

    Bf16 *k = chunk + warp * Own<D>::CHUNK_ELEMS, *v = k + CHUNK * PITCH<D>;
    for (int first = parts; first < chunks; first += WARPS) {
        int c = first + warp, n = min(chunks - first, WARPS);
        if (c < chunks) {
            int live = s.keys - c * CHUNK;
            auto load_chunk = [&](Bf16 *to, int at) {
                load_rows<D>(to, CHUNK, live, h, lane, WARP,
                             [&](int j) { return kv + (row_of(s, c * CHUNK + j) * 2 * h.K + at) * h.d; });
                cp_async_commit();
            };
            float x[1][8][4];
            ChunkRows<1> t;
            const int seen[1][2] = {{live, live}};
            load_chunk(k, kv_head);
            load_chunk(v, h.K + kv_head);
            cp_async_wait<1>();
            __syncwarp();
            dot_rows<D, 1, 8>(x, q, k);
            cp_async_wait<0>();
            __syncwarp(); // the values are here, the keys no longer needed
            softmax_chunk<1>(&t, x, seen, live >= CHUNK, h.scale2);
            for (int i = 0; i < 2; i++)
                if (lane % 4 == 0) {
                    made[(warp * 2) * OWN_ROWS + i * 8 + lane / 4] = t.m[0][i];
                    made[(warp * 2 + 1) * OWN_ROWS + i * 8 + lane / 4] = t.l[0][i];
                }
            weigh_values<D, D, 1>(t, v, seen, true, [&](int j, const float a[1][2][4]) {
#pragma unroll
                for (int i = 0; i < 8; i++) { // into the room of the keys
                    int row = i / 2 % 2 * 8 + lane / 4, column = j * 16 + i / 4 * 8 + lane % 4 * 2 + i % 2;
                    if (row < rows && column < h.d) ((float *)k)[row * h.d + column] = a[0][i / 4][i % 4];
                }
            });
        }
        __syncthreads();
        if (thread < rows)
            for (int i = 0; i < n; i++)
                scales[i * OWN_ROWS + thread] = merge(m + thread, l + thread, made[2 * i * OWN_ROWS + thread],
                                                      made[(2 * i + 1) * OWN_ROWS + thread], h.scale2);
        __syncthreads();
        for (int e = thread; e < elems; e += 32 * WARPS) {
            float x = o[e];
            for (int i = 0; i < n; i++)
                x = merged(x, ((float *)(chunk + i * Own<D>::CHUNK_ELEMS))[e], scales[i * OWN_ROWS + e / h.d]);
            o[e] = x;
        }
        __syncthreads();
    }
    for (int i = thread; i < elems; i += 32 * WARPS) y[out * h.d + i] = from_float<Bf16>(o[i] * (1.0f / l[i / h.d]));
}

// grid (B, K, 16 query heads), block F32_THREADS
template <int D>
static __global__ void __launch_bounds__(F32_THREADS, 2)
    decode_f32_kernel(float *y, const float *qkv, const float *kv, const int32_t *span, Heads h) {
    SHARED_DYNAMIC(float, room);
    int b = (int)blockIdx.x, kv_head = (int)blockIdx.y, in_group = (int)blockIdx.z * F32_ROWS;
    int rows = min(h.group - in_group, F32_ROWS);
    int64_t head = (int64_t)kv_head * h.group + in_group;
    float *out = y + ((int64_t)b * h.H + head) * h.d;
    Span s = span_of(span, b);
    if (s.keys <= 0) {
        for (int i = (int)threadIdx.x; i < rows * h.d; i += F32_THREADS) out[i] = 0;
        return; // the whole block
    }
    auto cache_row = [&](int j, int at) { return kv + (row_of(s, j) * 2 * h.K + at) * h.d; };
    attend_f32<D>(
        room, h, rows, s.keys, [&](int r) { return qkv + ((int64_t)b * (h.H + 2 * h.K) + head + r) * h.d; },
        [&](int) { return s.keys; }, [&](int j) { return cache_row(j, kv_head); },
        [&](int j) { return cache_row(j, h.K + kv_head); }, [&](int r, int c, float x) { out[r * h.d + c] = x; },
        [](int, float) {});
}

template <int D> static void decode_bf16(Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, Heads h) {
    int64_t B = y.dim[0], row = (h.d + 2) * (int64_t)sizeof(float), tiles = (h.group + OWN_ROWS - 1) / OWN_ROWS;
    int64_t blocks = B * h.K, sms = cuda_sm_count(d);
    size_t mark = arena_mark(&d->scratch);
    int64_t room = (int64_t)(d->scratch.cap - d->scratch.used) - 2 * ARENA_ALIGN;
    int64_t most = room / (B * h.H * row), whole = kv.dim[0] / CHUNK + 1; // chunks: that fit, that the cache can hold
    Parts p = {NULL, NULL, (int)(most < whole ? most : whole), (int)B, blocks < 2 * sms};
    p.o = (float *)arena_take(&d->scratch, (size_t)(p.most * B * h.H * h.d) * sizeof(float));
    p.ml = (float *)arena_take(&d->scratch, (size_t)(p.most * B * h.H * 2) * sizeof(float));
    h.packs = aligned_rows(data_of<Bf16>(qkv), h.d) && aligned_rows(data_of<Bf16>(kv), h.d);
    int64_t split = 8 * sms / blocks < 16 ? 8 * sms / blocks : 16;
    LAUNCH(d, parts_kernel<D>, dim3((unsigned)B, h.K, (unsigned)(split > 1 ? split : 1)), TILE_THREADS,
           (PART_ROWS + 2 * CHUNK) * PITCH<D> * sizeof(Bf16), p, data_of<Bf16>(qkv), data_of<Bf16>(kv), i32(span), h);
    LAUNCH(d, decode_kernel<D>, dim3((unsigned)B, h.K, (unsigned)tiles), 32 * Own<D>::WARPS, Own<D>::SHARED_BYTES,
           data_of<Bf16>(y), p, data_of<Bf16>(qkv), data_of<Bf16>(kv), i32(span), h);
    arena_rewind(&d->scratch, mark);
}
template <int D> static void decode_f32(Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, Heads h) {
    unsigned tiles = blocks_for(h.group, F32_ROWS);
    LAUNCH(d, decode_f32_kernel<D>, dim3((unsigned)y.dim[0], h.K, tiles), F32_THREADS, f32_shared<D>(), f32(y),
           f32(qkv), f32(kv), i32(span), h);
}

void cuda_decode(Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, int n_kv) {
    Heads h = heads_of(qkv.dim[1], n_kv, qkv.dim[2]);
    if (!y.dim[0]) return;
    if (qkv.dtype == F32) DISPATCH_HEAD(h.d, D, decode_f32<D>(d, y, qkv, kv, span, h));
    else DISPATCH_HEAD(h.d, D, decode_bf16<D>(d, y, qkv, kv, span, h));
}
