// The inner parts of attention, shared by attention.cu (packed sequences) and decode.cu (one query a sequence over the
// cache), so that both give a (token, head) row the same bits.
//
// The contract. A query row goes through its keys in chunks of 64 counted from position 0. Each chunk is a softmax of
// its own, (m, l, o) = (largest score, sum of p, sum of p v), p = 2^((s - m) log2(e) / sqrt(d)), and the chunks are
// merged in ascending order by one function, `merge` (Milakov & Gimelshein 2018). So any block may compute a chunk.
//   bf16  scores    mma m16n8k16, queries on the side of 16, keys on that of 8, ascending over the head size from 0
//         values    mma, p on the side of 16 as the sum of two bf16, a high and a low part (so p is good to 2^-17 and
//                   the output's error is its own rounding); for every 16 keys first the high parts, then the low,
//                   ascending from 0
//         l         of the p in f32: each of a row's 4 lanes adds its 16 in order, then lanes 1 apart, then 2 apart
//   f32   scores    one chain of fmaf over the head size, values: one over the live keys, l: lanes j + (j + 32),
//                   then warp_sum
// Masked keys have p = 0 exactly. Value rows past the last key are loaded as zeros, so they add exactly 0. Value rows
// that only some rows of a tile may see are multiplied by 0 for the others; where that is not 0, because they hold inf
// or NaN, the row is computed again without them (weigh_seen). An element of an mma depends on its own row and column
// alone, whatever else the tile holds.
#pragma once
#include "ptx.cuh"
#include <float.h>
#include <math.h>

#define CHUNK        64 // keys
#define LOG2E        1.4426950408889634f
#define TILE_THREADS 128 // threads of a block that works on a tile of rows by mma: 4 warps

typedef struct {
    int H, K, d, group;  // query heads, kv heads, head size, H / K
    float scale, scale2; // 1 / sqrt(d), and that times log2(e)
    bool packs;          // rows can be read 16 bytes at a time
    uint32_t inverse;    // of `group`, for over_group
} Heads;

static inline Heads heads_of(int64_t heads, int n_kv, int64_t d) {
    Heads h = {(int)heads - 2 * n_kv, n_kv, (int)d, ((int)heads - 2 * n_kv) / n_kv, 1.0f / sqrtf((float)d), 0, true, 0};
    h.scale2 = h.scale * LOG2E;
    h.inverse = (uint32_t)(((1ull << 32) + (unsigned)h.group - 1) / (unsigned)h.group); // 0 for a group of 1
    return h;
}
// item / group, by a multiplication because it is needed for every row that is loaded. Exact where item * group < 2^32,
// which heads_check makes sure of.
static __device__ __forceinline__ int over_group(const Heads &h, int item) {
    return h.group == 1 ? item : (int)((uint64_t)(unsigned)item * h.inverse >> 32);
}

// Ends the program where over_group would not be exact for T tokens.
static inline void heads_check(const Heads &h, int64_t T) {
    if (T * h.group * h.group >> 32) die("attention: %lld tokens of %d heads a group", (long long)T, h.group);
}

// DISPATCH_HEAD(d, D, code): runs the code with D as a constant, head size d rounded up to a size that kernels are
// compiled for.
#define DISPATCH_HEAD(d, D, ...)                                                                                       \
    do {                                                                                                               \
        if ((d) <= 64) {                                                                                               \
            constexpr int D = 64;                                                                                      \
            __VA_ARGS__;                                                                                               \
        } else if ((d) <= 128) {                                                                                       \
            constexpr int D = 128;                                                                                     \
            __VA_ARGS__;                                                                                               \
        } else if ((d) <= HEAD_MAX) {                                                                                  \
            constexpr int D = HEAD_MAX;                                                                                \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            die("%s: heads of size %d; at most %d", __func__, (int)(d), HEAD_MAX);                                     \
        }                                                                                                              \
    } while (0)

// ---- packed sequences -----------------------------------------------------------------------------------------------
// A tile of one sequence's work. A sequence of n tokens has n * unit items, which are cut into tiles of `size`. A
// launcher knows only T and B, not the lengths, so the tiles of sequence b are numbered from seq[b] * unit / size + b
// on: that leaves room for all of them and at most B numbers unused.
typedef struct {
    int b;        // which sequence
    int start, n; // its first token, its tokens
    int first;    // the tile's first item; past the sequence's last item where the number is unused
} Tile;

// Which token of the pack is at a position of a sequence. The first `before` positions are those of the shared prefix,
// another sequence of the pack that begins at token `prefix`.
struct Places {
    int start, prefix, before;
    __device__ __forceinline__ Places(const int32_t *seq, const int32_t *prefix_of, int b) {
        int p = prefix_of ? prefix_of[b] : -1;
        start = seq[b], prefix = p < 0 ? 0 : seq[p], before = p < 0 ? 0 : seq[p + 1] - seq[p];
    }
    __device__ __forceinline__ int token(int pos) const { return pos < before ? prefix + pos : start + pos - before; }
};

// How many tile numbers there are: the grid of a launch.
static inline unsigned tiles_most(int64_t T, int64_t B, int64_t unit, int64_t size) {
    return (unsigned)(T * unit / size + B + 1);
}
// The tile of a number, found by a 32-way search for its sequence. All lanes of a warp must call it.
static __device__ __forceinline__ Tile find_tile(const int32_t *seq, int B, int unit, int size, int64_t number) {
    int low = 0, high = B, lane = (int)threadIdx.x % WARP;
    while (high - low > 1) {
        int step = (high - low + WARP - 1) / WARP, b = low + lane * step;
        bool before = b < high && (int64_t)seq[b < B ? b : B] * unit / size + b <= number;
        int n = __popc(__ballot_sync(FULL, before)); // at least 1
        low += (n - 1) * step;
        high = min(high, low + step);
    }
    Tile t = {low, 0, 0, 0};
    if (low >= B) return t;
    t.start = seq[low];
    t.n = seq[low + 1] - t.start;
    t.first = (int)(number - ((int64_t)t.start * unit / size + low)) * size;
    return t;
}

// Sets to 0 the rows from T_end on, which belong to no sequence. All blocks take part; this one is number `block` of
// `blocks`.
template <typename T>
static __device__ void clear_rest(T *y, float *lse, int64_t T_end, int64_t T_all, int64_t width, int H, int64_t block,
                                  int64_t blocks) {
    for (int64_t t = T_end + block; t < T_all; t += blocks) {
        for (int64_t i = (int)threadIdx.x; i < width; i += blockDim.x) y[t * width + i] = from_float<T>(0.0f);
        for (int i = (int)threadIdx.x; i < H; i += (int)blockDim.x) lse[t * H + i] = 0;
    }
}

// ---- the softmax of a chunk, and chunks together --------------------------------------------------------------------
// The maximum to subtract: 0 for a row that sees no key of the chunk (m = -inf), so that its p is 0 and not NaN.
static __device__ __forceinline__ float finite_max(float m) { return m == -INFINITY ? 0.0f : m; }

typedef struct {
    float old, add; // factors of the row so far and of the chunk's part
} Scales;

// Merges a chunk's (m, l) into a row's; the row's output then becomes merged(o, chunk's o, the returned scales).
static __device__ __forceinline__ Scales merge(float *m, float *l, float chunk_m, float chunk_l, float scale2) {
    float top = fmaxf(*m, chunk_m), at = finite_max(top);
    Scales s = {exp2_approx((*m - at) * scale2), exp2_approx((chunk_m - at) * scale2)};
    *l = fmaf(chunk_l, s.add, *l * s.old);
    *m = top;
    return s;
}
static __device__ __forceinline__ float merged(float o, float chunk_o, Scales s) {
    return fmaf(chunk_o, s.add, o * s.old);
}
static __device__ __forceinline__ float row_lse(float m, float l, float scale) { return m * scale + logf(l); }

// ---- bf16: tiles in shared memory, products by mma ------------------------------------------------------------------
// Elements from one row of D to the next: 16 bytes more than a row, so that the 8 rows of an ldmatrix hit different
// banks.
template <int D> constexpr int PITCH = D + 8;
// Whether a warp keeps its 16 query rows as fragments in registers; larger heads would need too many.
template <int D> constexpr bool KEEPS = D <= 128;

// Fills tile[rows, D] with the first d elements of row(r), zeros beyond them and from row `live` on. Called by
// `threads` threads, of which this one is number `thread`. The caller commits the group of asynchronous copies.
template <int D, typename F>
static __device__ __forceinline__ void load_rows(Bf16 *tile, int rows, int live, const Heads &h, int thread,
                                                 int threads, F row) {
    constexpr int PACKS = D / 8;
    for (int i = thread; i < rows * PACKS; i += threads) {
        int r = i / PACKS, c = i % PACKS * 8;
        bool valid = r < live && c < h.d;
        Bf16 *to = tile + r * PITCH<D> + c;
        const Bf16 *from = row(valid ? r : 0) + (valid ? c : 0);
        if (h.packs) cp_async_16(to, from, valid);
        else
#pragma unroll 1
            for (int e = 0; e < 8; e++) to[e] = valid && c + e < h.d ? from[e] : from_float<Bf16>(0.0f);
    }
}

// s[M][N][4] = a[16 M, D] b[8 N, D]^T as fragments of C (ptx.cuh), by one warp; a and b in shared memory, rows PITCH
// apart.
template <int D, int M, int N>
static __device__ __forceinline__ void dot_rows(float s[M][N][4], const Bf16 *a, const Bf16 *b) {
    int lane = (int)threadIdx.x % WARP;
    a += lane % 16 * PITCH<D> + lane / 16 * 8;
    b += (lane / 16 * 8 + lane % 8) * PITCH<D> + lane / 8 % 2 * 8;
#pragma unroll
    for (int i = 0; i < M * N * 4; i++) s[i / (4 * N)][i / 4 % N][i % 4] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t x[M][4], y[4];
#pragma unroll
        for (int m = 0; m < M; m++) ldmatrix_x4(x[m], a + m * 16 * PITCH<D> + k * 16);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            ldmatrix_x4(y, b + n * 8 * PITCH<D> + k * 16);
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_bf16(s[m][n], x[m], y);
                mma_bf16(s[m][n + 1], x[m], y + 2);
            }
        }
    }
}

// Loads rows a[16, D] from shared memory as fragments of A, for a warp that multiplies them many times (dot_kept).
template <int D> static __device__ __forceinline__ void keep_rows(uint32_t x[D / 16][4], const Bf16 *a) {
    int lane = (int)threadIdx.x % WARP;
    a += lane % 16 * PITCH<D> + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < D / 16; k++) ldmatrix_x4(x[k], a + k * 16);
}
// dot_rows for 16 rows that keep_rows loaded.
template <int D, int N>
static __device__ __forceinline__ void dot_kept(float s[N][4], const uint32_t x[D / 16][4], const Bf16 *b) {
    int lane = (int)threadIdx.x % WARP;
    b += (lane / 16 * 8 + lane % 8) * PITCH<D> + lane / 8 % 2 * 8;
#pragma unroll
    for (int i = 0; i < N * 4; i++) s[i / 4][i % 4] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t y[4];
            ldmatrix_x4(y, b + n * 8 * PITCH<D> + k * 16);
            mma_bf16(s[n], x[k], y);
            mma_bf16(s[n + 1], x[k], y + 2);
        }
}

// Columns 16 k .. 16 k + 15 of c[16, 8 N] (fragments of C) rounded to bf16, as a fragment of A.
template <int N> static __device__ __forceinline__ void round_fragment(uint32_t a[4], const float c[N][4], int k) {
    a[0] = pack_bf16(c[2 * k][0], c[2 * k][1]);
    a[1] = pack_bf16(c[2 * k][2], c[2 * k][3]);
    a[2] = pack_bf16(c[2 * k + 1][0], c[2 * k + 1][1]);
    a[3] = pack_bf16(c[2 * k + 1][2], c[2 * k + 1][3]);
}

// What rounding x and y to the two bf16 of `high` took away, as two bf16.
static __device__ __forceinline__ uint32_t pack_rest(uint32_t high, float x, float y) {
    return pack_bf16(x - __uint_as_float(high << 16), y - __uint_as_float(high & 0xffff0000u));
}

// The softmax of a warp's 16 M rows over one chunk. Lane l holds elements of rows l / 4 and l / 4 + 8 of each 16.
template <int M> struct ChunkRows {
    uint32_t high[M][4][4], low[M][4][4]; // p as fragments of A, 16 keys each
    float m[M][2], l[M][2];
};

// Computes it from s[M][8][4], the scores of the chunk's 64 keys, of which row i sees the first n[i] (`whole`: every
// row sees all). Overwrites s.
template <int M>
static __device__ __forceinline__ void softmax_chunk(ChunkRows<M> *p, float s[M][8][4], const int n[M][2], bool whole,
                                                     float scale2) {
    int column = (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < M; m++) {
        float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
        if (!whole)
#pragma unroll
            for (int i = 0; i < 32; i++)
                if (i / 4 * 8 + column + i % 2 >= n[m][i / 2 % 2]) s[m][i / 4][i % 4] = -INFINITY;
#pragma unroll
        for (int i = 0; i < 32; i++) top[i / 2 % 2] = fmaxf(top[i / 2 % 2], s[m][i / 4][i % 4]);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            top[r] = fmaxf(top[r], __shfl_xor_sync(FULL, top[r], 1));
            top[r] = fmaxf(top[r], __shfl_xor_sync(FULL, top[r], 2));
        }
        float less[2] = {-finite_max(top[0]) * scale2, -finite_max(top[1]) * scale2};
#pragma unroll
        for (int i = 0; i < 32; i++) {
            float x = exp2_approx(fmaf(s[m][i / 4][i % 4], scale2, less[i / 2 % 2]));
            s[m][i / 4][i % 4] = x;
            sum[i / 2 % 2] += x;
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            sum[r] += __shfl_xor_sync(FULL, sum[r], 1);
            sum[r] += __shfl_xor_sync(FULL, sum[r], 2);
            p->m[m][r] = top[r];
            p->l[m][r] = sum[r];
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            round_fragment<8>(p->high[m][k], s[m], k);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *x = &s[m][2 * k + i / 2][i % 2 * 2];
                p->low[m][k][i] = pack_rest(p->high[m][k][i], x[0], x[1]);
            }
        }
    }
}

// Computes 16 columns of p v again, row by row, with the values a row does not see taken as zeros, as decode loads
// them. For values that are not finite, since 0 times those is not 0. at(k): the lane's ldmatrix address for keys from
// 16 k on.
template <typename At>
static __device__ __forceinline__ void weigh_seen(float c[2][4], const uint32_t high[4][4], const uint32_t low[4][4],
                                                  At at, const int n[2]) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll 1
    for (int row = 0; row < 16; row++) {
        int seen = __shfl_sync(FULL, row < 8 ? n[0] : n[1], row % 8 * 4);
        float t[2][4] = {};
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t y[4];
            ldmatrix_x4_trans(y, at(k));
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int key = k * 16 + i % 2 * 8 + lane % 4 * 2;
                y[i] &= key + 1 < seen ? 0xffffffffu : key < seen ? 0xffffu : 0u;
            }
#pragma unroll
            for (int i = 0; i < 2; i++) mma_bf16(t[i], high[k], y + 2 * i);
#pragma unroll
            for (int i = 0; i < 2; i++) mma_bf16(t[i], low[k], y + 2 * i);
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
            if (lane / 4 + i / 2 % 2 * 8 == row) c[i / 4][i % 4] = t[i / 4][i % 4];
    }
}

// Calls use(j, c) with c[M][2][4] = p v[64, columns 16 j .. 16 j + 15], for all j < COLUMNS / 16.
template <int D, int COLUMNS, int M, typename F>
static __device__ __forceinline__ void weigh_values(const ChunkRows<M> &p, const Bf16 *v, const int n[M][2], bool whole,
                                                    F use) {
    int lane = (int)threadIdx.x % WARP;
    v += lane % 16 * PITCH<D> + lane / 16 * 8;
#pragma unroll
    for (int j = 0; j < COLUMNS / 16; j++) {
        float c[M][2][4];
#pragma unroll
        for (int i = 0; i < M * 8; i++) c[i / 8][i / 4 % 2][i % 4] = 0;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            uint32_t y[4];
            ldmatrix_x4_trans(y, v + k * 16 * PITCH<D> + j * 16);
#pragma unroll
            for (int i = 0; i < 2 * M; i++) mma_bf16(c[i / 2][i % 2], p.high[i / 2][k], y + i % 2 * 2);
#pragma unroll
            for (int i = 0; i < 2 * M; i++) mma_bf16(c[i / 2][i % 2], p.low[i / 2][k], y + i % 2 * 2);
        }
        if (!whole) {
            bool odd = false;
#pragma unroll
            for (int i = 0; i < M * 8; i++) odd |= !(fabsf(c[i / 8][i / 4 % 2][i % 4]) <= FLT_MAX);
            if (__ballot_sync(FULL, odd))
#pragma unroll
                for (int m = 0; m < M; m++)
                    weigh_seen(
                        c[m], p.high[m], p.low[m], [&](int k) { return v + k * 16 * PITCH<D> + j * 16; }, n[m]);
        }
        use(j, c);
    }
}

// Stores a and b at columns column and column + 1 of a row of h.d elements.
static __device__ __forceinline__ void store_two(Bf16 *row, int column, float a, float b, const Heads &h) {
    if (column + 1 < h.d && h.packs) *(uint32_t *)(row + column) = pack_bf16(a, b);
    else {
        if (column < h.d) row[column] = from_float<Bf16>(a);
        if (column + 1 < h.d) row[column + 1] = from_float<Bf16>(b);
    }
}

// ---- f32: up to 16 rows by a block of 256 threads, plain multiply-adds ----------------------------------------------
#define F32_ROWS    16
#define F32_THREADS 256
template <int D> constexpr int F32_PITCH = D + 4; // elements from row to row: 16-byte loads of rows hit different banks

template <int D> constexpr size_t f32_shared() {
    return sizeof(float) * (CHUNK * F32_PITCH<D> + F32_ROWS * F32_PITCH<D> + F32_ROWS * CHUNK + 4 * F32_ROWS);
}

// tile[rows, D] = d elements of row(r), zeros up to the next multiple of 4 and from row `live` on.
template <int D, typename F>
static __device__ __forceinline__ void load_rows_f32(float *tile, int rows, int live, int d, F row) {
    int width = (d + 3) / 4 * 4;
    for (int i = (int)threadIdx.x; i < rows * width; i += F32_THREADS) {
        int r = i / width, c = i % width;
        tile[r * F32_PITCH<D> + c] = r < live && c < d ? row(r)[c] : 0.0f;
    }
}
// The product of two rows: one chain of multiply-adds over the head size.
static __device__ __forceinline__ float dot_f32(const float *a, const float *b, int d) {
    float s = 0;
    for (int c = 0; c < d; c += 4) {
        float4 x = *(const float4 *)(a + c), y = *(const float4 *)(b + c);
        s = fmaf(x.x, y.x, s), s = fmaf(x.y, y.y, s), s = fmaf(x.z, y.z, s), s = fmaf(x.w, y.w, s);
    }
    return s;
}

// Attention in f32 of up to F32_ROWS rows, by a whole block. Row r < rows has query(r) and sees the first limit(r) of
// `keys` keys key(j) with values value(j). Calls store(r, c, y) for every element of the output, and store_lse(r, lse).
// `room` is f32_shared<D>() bytes of shared memory.
template <int D, typename Query, typename Limit, typename Key, typename Value, typename Store, typename StoreLse>
static __device__ __forceinline__ void attend_f32(float *room, const Heads &h, int rows, int keys, Query query,
                                                  Limit limit, Key key, Value value, Store store, StoreLse store_lse) {
    constexpr int EACH = D / F32_ROWS, STEP = F32_THREADS / D; // a thread owns one column of EACH rows, STEP apart
    float *kv = room, *q = kv + CHUNK * F32_PITCH<D>, *s = q + F32_ROWS * F32_PITCH<D>;
    float *m = s + F32_ROWS * CHUNK, *l = m + F32_ROWS;
    Scales *scales = (Scales *)(l + F32_ROWS);
    int thread = (int)threadIdx.x, lane = thread % WARP, column = thread % D, row = thread / D;
    float o[EACH];
    int n[EACH];
    for (int i = 0; i < EACH; i++) o[i] = 0, n[i] = limit(min(row + i * STEP, rows - 1));
    if (thread < F32_ROWS) m[thread] = -INFINITY, l[thread] = 0;
    load_rows_f32<D>(q, F32_ROWS, rows, h.d, query);
    for (int first = 0; first < keys; first += CHUNK) {
        __syncthreads();
        load_rows_f32<D>(kv, CHUNK, keys - first, h.d, [&](int j) { return key(first + j); });
        __syncthreads();
        for (int r = thread / CHUNK; r < F32_ROWS; r += F32_THREADS / CHUNK)
            s[r * CHUNK + thread % CHUNK] = dot_f32(q + r * F32_PITCH<D>, kv + thread % CHUNK * F32_PITCH<D>, h.d);
        __syncthreads();
        load_rows_f32<D>(kv, CHUNK, keys - first, h.d, [&](int j) { return value(first + j); });
        for (int r = thread / WARP; r < F32_ROWS; r += F32_THREADS / WARP) {
            int seen = limit(min(r, rows - 1)) - first;
            float a = lane < seen ? s[r * CHUNK + lane] : -INFINITY;
            float b = lane + WARP < seen ? s[r * CHUNK + lane + WARP] : -INFINITY;
            float top = warp_max(fmaxf(a, b)), at = finite_max(top);
            a = exp2f((a - at) * h.scale2), b = exp2f((b - at) * h.scale2);
            s[r * CHUNK + lane] = a, s[r * CHUNK + lane + WARP] = b;
            a = warp_sum(a + b);
            if (lane == 0) scales[r] = merge(m + r, l + r, top, a, h.scale2);
        }
        __syncthreads();
        float c[EACH];
        for (int i = 0; i < EACH; i++) c[i] = 0;
        for (int j = 0; j < CHUNK && column < h.d; j++) {
            float v = kv[j * F32_PITCH<D> + column];
#pragma unroll
            for (int i = 0; i < EACH; i++)
                if (first + j < n[i]) c[i] = fmaf(s[(row + i * STEP) * CHUNK + j], v, c[i]);
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) o[i] = merged(o[i], c[i], scales[row + i * STEP]);
    }
    __syncthreads();
    for (int i = 0; i < EACH; i++) {
        int r = row + i * STEP;
        if (r < rows && column < h.d) store(r, column, o[i] * (1.0f / l[r]));
        if (r < rows && column == 0) store_lse(r, row_lse(m[r], l[r], h.scale));
    }
}
