// decode: attention of one query a sequence over the KV cache, by the parts of attention.cuh, so that it gives the same
// bits as attention over packed sequences; and rope_decode, which first norms its rows as qk_norm does, where the
// family has that, and rotates them as rope does.
//
//   y[b,h] = sum over j of p_j v_j[h / group] / sum p_j,  j over the keys of span[b], p_j from q[b,h] k_j / sqrt(d)
//
// Chunks of 64 keys are merged in ascending order; it does not matter which warp or block computes a chunk. A block
// owns a tile of up to 16 rows: the query heads of one kv head, of one sequence or, where there are enough sequences to
// fill the card, of two neighbours. Its tasks are the whole chunks of a prefix that the two share, computed once for
// both, then the other chunks of the first, then those of the second. In each turn every warp has one task: it waits
// for its keys, then for its values, and stores (m, l, o) in shared memory; after a barrier each thread merges its
// elements of the output with all tasks of the turn, in order. Where there are too few sequences to fill the card,
// several blocks share a tile's chunks: they store them in scratch, and the block that finishes last merges all.
//
// Bytes: 4 K d for a key (bf16), read from memory once: what neighbours share is in L2. The floor is those bytes over
// the bandwidth. On an H200, context 400, heads as in 0.5B, in microseconds: 6 at B = 8 and 64 (of a turn, 1 for the
// keys to arrive and 1.5 to multiply), 20 at 256; at 1,024 56 with a prefix of 336 shared by all, 63 with one of 128
// shared by 16. f32 has a plain kernel: a block for each (sequence, kv head, 16 query heads), all chunks in order.
//
// rope_decode: a block makes the angles of its sequences while their rows are on the way, then rotates its queries in
// shared memory; it makes the sequence's own key and value, stores them in the cache, and puts them into their chunk in
// shared memory, where the cache does not have them yet. That should take it some 0.4 us, where rope by itself would be
// a node of the graph: 2 us and its gap. Of the blocks that share a sequence each makes both, and the first stores
// them. Norms of queries and keys, a warp a head, should take 0.2 us more, and another node less.
#include "attention.cuh"
#include "cuda.cuh"
#include "head_norm.cuh"
#include "rotate.cuh"

#define TILE_ROWS  16 // (sequence, query head) rows of a block
#define MOST_SPLIT 16 // at most so many blocks share a tile's chunks

typedef struct {
    int prefix_row, prefix_len, suffix_row, keys;
} Span;
static __device__ __forceinline__ Span span_of(const int32_t *span, int b) {
    const int32_t *s = span + 4 * (int64_t)b; // may not be aligned for a single load of 16 bytes
    return {s[0], s[1], s[2], s[1] + s[3]};
}
// The row of the cache that holds key j.
static __device__ __forceinline__ int64_t row_of(const Span &s, int j) {
    return (int64_t)(j < s.prefix_len ? s.prefix_row : s.suffix_row - s.prefix_len) + j;
}
static __device__ __forceinline__ int chunks_of(const Span &s) { return (s.keys + CHUNK - 1) / CHUNK; }

// Results of chunks, for tiles that several blocks share: o[tiles, most, TILE_ROWS, D] and ml[tiles, most, TILE_ROWS]
// f32.
typedef struct {
    float *o;
    float2 *ml;
    unsigned *arrived; // [tiles] blocks that are done; 0 before and after the kernel
    int most;          // chunks for which there is room
} Parts;

// What rope_decode has to do before; decode has nothing.
struct Own {
    static constexpr bool ROTATES = true;
    RopeTable table;
    const int32_t *pos, *kv_row; // [B]
    Bf16 *kv;                    // the cache, to store in
    const void *bias;            // [(H + 2K) d]?
    const void *q_norm, *k_norm; // [d]? both or none
    bool bias_f32, norms_f32;    // else they are bf16
    float eps;
    // A head's elements, to[d] = x[d] normed, by a warp.
    __device__ __forceinline__ void norm(Bf16 *to, const Bf16 *x, const void *w, int d) const {
        const int lane = (int)threadIdx.x % WARP;
        float squares = 0;
#pragma unroll 1
        for (int i = lane; i < d; i += WARP) squares = fmaf(to_float(x[i]), to_float(x[i]), squares);
        const float rstd = head_rstd(squares, d, eps);
#pragma unroll 1
        for (int i = lane; i < d; i += WARP)
            to[i] = head_normed(x[i], rstd, norms_f32 ? ((const float *)w)[i] : to_float(((const Bf16 *)w)[i]));
    }
    // An element of column i of qkv, and its bias; where there is none, -0 too stays what it is.
    __device__ __forceinline__ float with_bias(Bf16 x, int64_t i) const {
        if (!bias) return to_float(x);
        return to_float(x) + (bias_f32 ? ((const float *)bias)[i] : to_float(((const Bf16 *)bias)[i]));
    }
};
struct Nothing {
    static constexpr bool ROTATES = false;
};

template <int D, int WARPS, int SEQS, typename Before> struct Tile16 {
    static constexpr int THREADS = WARPS * WARP, EACH = TILE_ROWS * D / THREADS; // elements of the output a thread has
    static constexpr int CHUNK_ELEMS = 2 * CHUNK * PITCH<D>;                     // keys and values of a warp
    // Own keys, and values too but for heads of 64, of which three blocks fit a Hopper's multiprocessor to the byte.
    // Angles lie where (m, l) will.
    static constexpr int FRESH = !Before::ROTATES ? 0 : D == 64 ? 1 : 2;
    static constexpr size_t MADE_BYTES = sizeof(float2) * WARPS * TILE_ROWS,
                            ANGLE_BYTES = Before::ROTATES ? sizeof(float2) * SEQS * D / 2 : 0,
                            FRESH_BYTES = sizeof(Bf16) * SEQS * FRESH * D;
    static constexpr size_t SHARED_BYTES = sizeof(Bf16) * (TILE_ROWS * PITCH<D> + WARPS * CHUNK_ELEMS) +
                                           (MADE_BYTES > ANGLE_BYTES ? MADE_BYTES : ANGLE_BYTES) + FRESH_BYTES;
};

// low and high = the pair (x, y), rotated.
static __device__ __forceinline__ void rotate_two(Bf16 *low, Bf16 *high, float x, float y, float2 angle) {
    float2 to = rope_rotate(x, y, angle.x, angle.y);
    *low = from_float<Bf16>(to.x), *high = from_float<Bf16>(to.y);
}
// A value of the sequence's own token, column i of its row.
static __device__ __forceinline__ Bf16 own_value(const Own &own, const Bf16 *row, int64_t i) {
    return from_float<Bf16>(own.with_bias(row[i], i));
}
// By the whole block: angle[SEQS, D / 2] and fresh[SEQS, FRESH, D], keys and perhaps values, of `n` sequences from b
// on; with `stores`, both go to the cache. Barriers within; angle is complete at the end, fresh after another.
template <int D, int FRESH>
static __device__ __forceinline__ void make_own(const Own &own, float2 *angle, Bf16 *fresh, const Bf16 *qkv, int b,
                                                int n, int kv_head, bool stores, const Heads &h) {
    const int thread = (int)threadIdx.x, threads = (int)blockDim.x, half = h.d / 2;
    for (int i = thread; i < n * half; i += threads)
        angle[i / half * (D / 2) + i % half] = rope_angle(own.table, own.pos[b + i / half], i % half);
    auto row_of = [&](int s) { return qkv + (int64_t)(b + s) * (h.H + 2 * h.K) * h.d; };
    if (own.k_norm)
#pragma unroll 1
        for (int s = thread / WARP; s < n; s += threads / WARP)
            own.norm(fresh + s * FRESH * D, row_of(s) + (int64_t)(h.H + kv_head) * h.d, own.k_norm, h.d);
    __syncthreads();
    for (int i = thread; i < n * half; i += threads) {
        const int s = i / half, pair = i % half;
        const int64_t key = (int64_t)(h.H + kv_head) * h.d + pair, value = key + (int64_t)h.K * h.d;
        const Bf16 *row = row_of(s);
        Bf16 *to = fresh + s * FRESH * D + pair;
        const Bf16 *from = own.k_norm ? to : row + key;
        rotate_two(to, to + half, own.with_bias(from[0], key), own.with_bias(from[half], key + half),
                   angle[s * (D / 2) + pair]);
        if (FRESH == 2) to[D] = own_value(own, row, value), to[D + half] = own_value(own, row, value + half);
        const int32_t at = own.kv_row[b + s];
        if (!stores || at < 0) continue;
        Bf16 *cached = own.kv + ((int64_t)at * 2 * h.K + kv_head) * h.d + pair;
        cached[0] = to[0], cached[half] = to[half];
        cached += (int64_t)h.K * h.d;
        cached[0] = own_value(own, row, value), cached[half] = own_value(own, row, value + half);
    }
}

// Grid (B / SEQS, K, tiles of query heads x split), block 32 WARPS. Where a thread has many outputs, the launch bounds
// keep the compiler from aiming at more blocks an SM than shared memory allows: it would spill registers.
template <int D, int WARPS, int SEQS, typename Before>
static __global__ void __launch_bounds__(32 * WARPS,
                                         ((D == 64 && Before::ROTATES) || D == 128 || (D > 128 && WARPS == 1)) ? 1 : 0)
    decode_kernel(Bf16 *y, Parts p, const Bf16 *qkv, const Bf16 *kv, const int32_t *span, int B, int split, Heads h,
                  const Before own) {
    typedef Tile16<D, WARPS, SEQS, Before> Tile;
    constexpr int THREADS = Tile::THREADS, OF_ROW = THREADS / TILE_ROWS, QUADS = Tile::EACH / 4;
    SHARED_DYNAMIC(Bf16, q);                                      // [TILE_ROWS, PITCH]
    Bf16 *chunk = q + TILE_ROWS * PITCH<D>;                       // [WARPS, 2, CHUNK, PITCH]
    float2 *made = (float2 *)(chunk + WARPS * Tile::CHUNK_ELEMS); // [WARPS, TILE_ROWS] (m, l) of a chunk
    // For rope_decode alone: angles [SEQS, D / 2], until the queries are rotated; the sequences' own
    // keys and values [SEQS, FRESH, D].
    float2 *angle = made;
    Bf16 *fresh = (Bf16 *)((char *)q + Tile::SHARED_BYTES - Tile::FRESH_BYTES);
    int thread = (int)threadIdx.x, warp = thread / WARP, lane = thread % WARP, b = (int)blockIdx.x * SEQS;
    int kv_head = (int)blockIdx.y, place = (int)blockIdx.z % split, in_group = (int)blockIdx.z / split * TILE_ROWS;
    int of_one = min(h.group - in_group, TILE_ROWS), rows = SEQS * of_one; // rows of one sequence, of the tile
    auto sequence_of = [&](int row) { return SEQS > 1 && row >= of_one ? 1 : 0; };
    // Where a row of the tile is in q or y [., heads].
    auto at = [&](int row, int heads) {
        int s = sequence_of(row);
        return (int64_t)(b + s) * heads + kv_head * h.group + in_group + row - s * of_one;
    };
    wait_for_earlier();
    Span s0 = span_of(span, b), s1 = s0;
    bool two = SEQS > 1 && b + 1 < B;
    if (two) s1 = span_of(span, b + 1);
    else rows = of_one;
    int shared = two && s0.prefix_row == s1.prefix_row && s0.prefix_len == s1.prefix_len ? s0.prefix_len / CHUNK : 0;
    int first_end = chunks_of(s0), tasks = first_end + (two ? chunks_of(s1) - shared : 0);
    // How many blocks share the tile.
    int blocks = tasks <= p.most ? max(1, min(split, (tasks + WARPS - 1) / WARPS)) : 1;
    if (place >= blocks) return; // the whole block

    load_rows<D>(q, TILE_ROWS, rows, h, thread, THREADS, [&](int i) { return qkv + at(i, h.H + 2 * h.K) * h.d; });
    if constexpr (Before::ROTATES)
        make_own<D, Tile::FRESH>(own, angle, fresh, qkv, b, two ? 2 : 1, kv_head, in_group == 0 && place == 0, h);
    float o[Tile::EACH], m = -INFINITY, l = 0;
#pragma unroll
    for (int i = 0; i < Tile::EACH; i++) o[i] = 0;
    const int row = thread / OF_ROW, column = thread % OF_ROW * 4; // + 4 OF_ROW i
    // Functions, so that the numbers are computed where they are used and take no registers.
    auto tile = [&] { return ((int64_t)blockIdx.z / split * h.K + kv_head) * gridDim.x + blockIdx.x; };
    auto made_row = [&](int t) { return (tile() * p.most + t) * TILE_ROWS + row; };
    auto made_o = [&](int t, int j) { return (float4 *)(p.o + made_row(t) * D + column + j * 4 * OF_ROW); };
    // Merges a chunk's (m, l, o) into the thread's elements.
    auto take = [&](float2 ml, auto quad) {
        Scales s = merge(&m, &l, ml.x, ml.y, h.scale2);
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            float4 x = quad(i);
            o[4 * i] = merged(o[4 * i], x.x, s), o[4 * i + 1] = merged(o[4 * i + 1], x.y, s);
            o[4 * i + 2] = merged(o[4 * i + 2], x.z, s), o[4 * i + 3] = merged(o[4 * i + 3], x.w, s);
        }
    };

    Bf16 *k = chunk + warp * Tile::CHUNK_ELEMS, *v = k + CHUNK * PITCH<D>;
    for (int first = place * WARPS; first < tasks; first += blocks * WARPS) {
        int t = first + warp, n = min(tasks - first, WARPS);
        bool second = t >= first_end;
        Span s = second ? s1 : s0;
        int c = second ? t - first_end + shared : t, live = s.keys - c * CHUNK;
        // The sequence's own token, which the cache need not have yet, is this chunk's last.
        const bool has_own = Before::ROTATES && t < tasks && live <= CHUNK;
        auto put_own = [&](Bf16 *to, auto element) {
            if constexpr (Before::ROTATES) {
                if (!has_own) return;
#pragma unroll 1
                for (int i = lane; i < h.d; i += WARP) to[(live - 1) * PITCH<D> + i] = element(i);
                __syncwarp();
            }
        };
        if (t < tasks) {
            auto load_chunk = [&](Bf16 *to, int head) {
                load_rows<D>(to, CHUNK, live - has_own, h, lane, WARP,
                             [&](int j) { return kv + (row_of(s, c * CHUNK + j) * 2 * h.K + head) * h.d; });
                cp_async_commit();
            };
            load_chunk(k, kv_head);
            load_chunk(v, h.K + kv_head);
            cp_async_wait<1>();
        } else cp_async_commit(), cp_async_wait<0>();
        if (first == place * WARPS) {
            __syncthreads(); // the queries, which all warps have loaded together
            if constexpr (Before::ROTATES) {
                if (own.q_norm) {
#pragma unroll 1
                    for (int r = computed_here(warp); r < rows; r += WARPS)
                        own.norm(q + r * PITCH<D>, q + r * PITCH<D>, own.q_norm, h.d);
                    __syncthreads();
                }
#pragma unroll 1
                for (int i = thread; i < rows * (h.d / 2); i += THREADS) {
                    int r = i / (h.d / 2), pair = i % (h.d / 2);
                    Bf16 *low = q + r * PITCH<D> + pair, *high = low + h.d / 2;
                    int64_t bias = (int64_t)(kv_head * h.group + in_group + r - sequence_of(r) * of_one) * h.d + pair;
                    rotate_two(low, high, own.with_bias(*low, bias), own.with_bias(*high, bias + h.d / 2),
                               angle[sequence_of(r) * (D / 2) + pair]);
                }
                __syncthreads();
            }
        } else __syncwarp();
        if (t < tasks) {
            put_own(k, [&](int i) { return fresh[second * Tile::FRESH * D + i]; });
            float x[1][8][4];
            ChunkRows<1> rows_of_chunk;
            const int seen[1][2] = {{live, live}};
            dot_rows<D, 1, 8>(x, q, k);
            cp_async_wait<0>();
            __syncwarp(); // the values have arrived, the keys are no longer needed
            if constexpr (Tile::FRESH == 2) put_own(v, [&](int i) { return fresh[(second * 2 + 1) * D + i]; });
            else if constexpr (Before::ROTATES) { // it is in the first-level cache
                const int64_t head = (int64_t)(h.H + h.K + kv_head) * h.d;
                const Bf16 *own_row = qkv + (int64_t)(b + second) * (h.H + 2 * h.K) * h.d;
                put_own(v, [&](int i) { return own_value(own, own_row, head + i); });
            }
            softmax_chunk<1>(&rows_of_chunk, x, seen, live >= CHUNK, h.scale2);
            if (lane % 4 == 0)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    made[warp * TILE_ROWS + i * 8 + lane / 4] =
                        make_float2(rows_of_chunk.m[0][i], rows_of_chunk.l[0][i]);
            float *to = (float *)k + lane / 4 * PITCH<D> + lane % 4 * 2; // over the keys
            weigh_values<D, D, 1>(rows_of_chunk, v, seen, true, [&](int j, const float a[1][2][4]) {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    *(float2 *)(to + i % 2 * 8 * PITCH<D> + j * 16 + i / 2 * 8) =
                        make_float2(a[0][i / 2][i % 2 * 2], a[0][i / 2][i % 2 * 2 + 1]);
            });
        }
        __syncthreads();
        for (int i = 0; i < n; i++) {
            float2 ml = made[i * TILE_ROWS + row];
            const float *from = (const float *)(chunk + i * Tile::CHUNK_ELEMS) + row * PITCH<D> + column;
            auto quad = [&](int j) { return *(const float4 *)(from + j * 4 * OF_ROW); };
            int done = first + i;
            if (blocks > 1) {
                if (thread % OF_ROW == 0) __stcg(p.ml + made_row(done), ml);
#pragma unroll
                for (int j = 0; j < QUADS; j++) __stcg(made_o(done, j), quad(j));
            } else if (SEQS == 1 || done < shared || (done >= first_end) == (row >= of_one)) take(ml, quad);
        }
        __syncthreads();
    }
    if (SEQS == 1 && blocks > 1) {
        SHARED(unsigned, before, [1]);
        __threadfence();
        __syncthreads();
        if (thread == 0) before[0] = atomicAdd(p.arrived + tile(), 1);
        __syncthreads();
        if (before[0] != (unsigned)blocks - 1) return;
        __threadfence();
        if (thread == 0) p.arrived[tile()] = 0;
#pragma unroll(QUADS > 16 ? 1 : 4)
        for (int t = 0; t < tasks; t++)
            take(__ldcg(p.ml + made_row(t)), [&](int j) { return __ldcg((const float4 *)made_o(t, j)); });
    }
    if (row >= rows) return;
    float scale = 1.0f / l;
    bool none = (sequence_of(row) ? s1.keys : s0.keys) <= 0;
    Bf16 *out = y + at(row, h.H) * h.d;
#pragma unroll
    for (int i = 0; i < QUADS; i++)
#pragma unroll
        for (int e = 0; e < 4; e += 2)
            store_two(out, column + i * 4 * OF_ROW + e, none ? 0 : o[4 * i + e] * scale,
                      none ? 0 : o[4 * i + e + 1] * scale, h);
}

// decode in f32. Grid (B, K, tiles of 16 query heads), block F32_THREADS.
template <int D>
static __global__ void __launch_bounds__(F32_THREADS, 2)
    decode_f32_kernel(float *y, const float *qkv, const float *kv, const int32_t *span, Heads h) {
    SHARED_DYNAMIC(float, room);
    int b = (int)blockIdx.x, kv_head = (int)blockIdx.y, in_group = (int)blockIdx.z * F32_ROWS;
    int rows = min(h.group - in_group, F32_ROWS);
    int64_t head = (int64_t)kv_head * h.group + in_group;
    float *out = y + ((int64_t)b * h.H + head) * h.d;
    wait_for_earlier();
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

template <int D, int WARPS, int SEQS, typename Before>
static void decode_bf16(Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, Heads h, int split,
                        const Before &own) {
    unsigned B = (unsigned)y.dim[0], seqs = (B + SEQS - 1) / SEQS, tiles = blocks_for(h.group, TILE_ROWS);
    size_t mark = arena_mark(&d->scratch);
    Parts p = {};
    if (split > 1) {
        int64_t all = (int64_t)seqs * h.K * tiles,
                row = all * TILE_ROWS * (D * (int64_t)sizeof(float) + (int64_t)sizeof(float2));
        int64_t room = (int64_t)(d->scratch.cap - d->scratch.used) - 2 * ARENA_ALIGN;
        int64_t most = room / row, whole = kv.dim[0] / CHUNK + 1; // chunks that fit in scratch; that the cache can hold
        p.most = (int)(most < whole ? most : whole);
        p.o = (float *)arena_take(&d->scratch, (size_t)(p.most * all * TILE_ROWS * D) * sizeof(float));
        p.ml = (float2 *)arena_take(&d->scratch, (size_t)(p.most * all * TILE_ROWS) * sizeof(float2));
        p.arrived = ((CudaDevice *)d->backend)->arrived;
    }
    h.packs = aligned_rows(data_of<Bf16>(qkv), h.d) && aligned_rows(data_of<Bf16>(kv), h.d);
    LAUNCH_EARLY(d, (decode_kernel<D, WARPS, SEQS, Before>), dim3(seqs, h.K, tiles * (unsigned)split), 32 * WARPS,
                 (Tile16<D, WARPS, SEQS, Before>::SHARED_BYTES), data_of<Bf16>(y), p, data_of<Bf16>(qkv),
                 data_of<Bf16>(kv), i32(span), (int)B, split, h, own);
    arena_rewind(&d->scratch, mark);
}
// Chooses the kernel by the shape and the card; every choice gives the same bits.
template <int D, typename Before>
static void decode_any(Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, Heads h, const Before &own) {
    constexpr int NARROW = 256 / D, WIDE = 2 * NARROW; // warps; every card has shared memory for NARROW
    int64_t sms = cuda_sm_count(d), blocks = y.dim[0] * h.K * blocks_for(h.group, TILE_ROWS);
    int split = (int)(sms / blocks < MOST_SPLIT ? (sms > blocks ? sms / blocks : 1) : MOST_SPLIT);
    if (blocks <= sms && Tile16<D, WIDE, 1, Before>::SHARED_BYTES < ((CudaDevice *)d->backend)->shared)
        decode_bf16<D, WIDE, 1>(d, y, qkv, kv, span, h, split, own);
    else if (2 * h.group <= TILE_ROWS && blocks >= 2 * sms) decode_bf16<D, NARROW, 2>(d, y, qkv, kv, span, h, 1, own);
    else decode_bf16<D, NARROW, 1>(d, y, qkv, kv, span, h, split, own);
}
template <int D> static void decode_f32(Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, Heads h) {
    unsigned tiles = blocks_for(h.group, F32_ROWS);
    LAUNCH_EARLY(d, decode_f32_kernel<D>, dim3((unsigned)y.dim[0], h.K, tiles), F32_THREADS, f32_shared<D>(), f32(y),
                 f32(qkv), f32(kv), i32(span), h);
}

void cuda_decode(Device *d, Tensor y, Tensor qkv, Tensor kv, Tensor span, int n_kv) {
    Heads h = heads_of(qkv.dim[1], n_kv, qkv.dim[2]);
    if (!y.dim[0]) return;
    if (qkv.dtype == F32) DISPATCH_HEAD(h.d, D, decode_f32<D>(d, y, qkv, kv, span, h));
    else DISPATCH_HEAD(h.d, D, decode_any<D>(d, y, qkv, kv, span, h, Nothing{}));
}

void cuda_rope_decode(Device *d, Tensor y, Tensor qkv, Tensor q_norm, Tensor k_norm, float eps, Tensor bias, Tensor pos,
                      const RopeTable *table, int n_kv, Tensor kv, Tensor kv_row, Tensor span) {
    Heads h = heads_of(qkv.dim[1], n_kv, qkv.dim[2]);
    if (!y.dim[0]) return;
    if (qkv.dtype == F32) {
        if (present(q_norm)) cuda_qk_norm(d, qkv, NONE, q_norm, k_norm, n_kv, eps);
        cuda_rope(d, qkv, bias, pos, table, n_kv, kv, kv_row);
        cuda_decode(d, y, qkv, kv, span, n_kv);
        return;
    }
    Own own = {*table,      i32(pos),    i32(kv_row),       data_of<Bf16>(kv),   bias.data,
               q_norm.data, k_norm.data, bias.dtype == F32, q_norm.dtype == F32, eps};
    DISPATCH_HEAD(h.d, D, decode_any<D>(d, y, qkv, kv, span, h, own));
}
