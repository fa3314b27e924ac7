// The language-model head on the GPU, shared by the ops logprob and sample: logits are streamed over the vocabulary and
// never stored whole.
//
// A block owns HEAD_CHUNK tokens of the vocabulary and X rows: the tile product (tile.cuh) gives its logits z = x w^T /
// temperature, which go through shared memory once, where the caller's `done` uses them. Of each row and chunk only a
// summary of 12 bytes is kept, in scratch: m = max z, the sum of e^(z - m), the sum of e^(z - m) (z - m). head_lse
// combines a row's summaries. Both ops run this code, so the log-prob of a sampled token and the trainer's are the same
// bits.
//
// Inside a chunk the sums follow one tree, whatever X is: four logits 16 apart (those that share a Philox counter),
// then pairs of neighbours up to the whole chunk.
#pragma once
#include "draw.cuh"
#include "lse.h"
#include "tile.cuh"

#define HEAD_CHUNK   128 // tokens of the vocabulary
#define HEAD_THREADS 256
#define LSE_THREADS  128 // threads that add up a row's summaries

static inline int64_t head_chunks(int64_t V) { return (V + HEAD_CHUNK - 1) / HEAD_CHUNK; }

// One pass of the head over n rows.
template <typename T> struct Head {
    const T *x, *w;      // [., D] [V, D]
    const int32_t *rows; // [n] which rows of x; NULL: 0, 1, ...
    const int64_t *key;  // [n] negative: the row is idle and is not read; NULL: no row is idle
    int64_t n, V, first; // first: the number of the first chunk, where only some of the chunks are wanted
    int D;
    float scale;
};

// A block's shared memory once the product is done.
template <int X> struct HeadRoom {
    static constexpr int PARTS = HEAD_THREADS / X;       // threads for a row
    static constexpr int QUADS = HEAD_CHUNK / 4 / PARTS; // quads of logits for a thread
    static constexpr int STRIDE = X + 8;                 // so that a warp's writes hit different banks
    float z[HEAD_CHUNK][STRIDE];                         // -inf past the end of the vocabulary
    float max[PARTS][X], sum[PARTS][X], dot[PARTS][X];
    int32_t id[PARTS][X];

    static __device__ __forceinline__ int row() { return (int)threadIdx.x % X; }
    static __device__ __forceinline__ int slice() { return (int)threadIdx.x / X; }
    // The first token of this thread's quad k; the others are 16, 32 and 48 on.
    static __device__ __forceinline__ int token_of(int k) {
        int quad = slice() * QUADS + k;
        return quad / 16 * 64 + quad % 16;
    }
};

template <int N> static __device__ __forceinline__ float tree_sum(float *s) {
#pragma unroll
    for (int apart = 1; apart < N; apart *= 2)
#pragma unroll
        for (int i = 0; i < N; i += 2 * apart) s[i] += s[i + apart];
    return s[0];
}

// e^s; 0 below e^-87.
static __device__ __forceinline__ float head_exp(float s) { return exp2_approx(s * 1.44269504f); }

// Of a quad of logits: the sums of e^(z - max) and of e^(z - max) (z - max).
static __device__ __forceinline__ void quad_sums(const float z[4], float max, float *sum, float *dot) {
    float s[4], e[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        s[i] = fmaxf(z[i] - max, -200); // where e^s is 0, s must not be -inf: 0 * inf
        e[i] = head_exp(s[i]);
    }
    *sum = (e[0] + e[1]) + (e[2] + e[3]);
    *dot = fmaf(e[0], s[0], e[1] * s[1]) + fmaf(e[2], s[2], e[3] * s[3]);
}

// The summary of row r, returned in thread r < X; other threads' results mean nothing. All threads of the block call
// it.
template <int X> static __device__ __forceinline__ Lse head_summary(HeadRoom<X> *room) {
    typedef HeadRoom<X> R;
    int t = R::row(), slice = R::slice();
    float max = -INFINITY;
#pragma unroll
    for (int k = 0; k < R::QUADS; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) max = fmaxf(max, room->z[R::token_of(k) + 16 * i][t]);
    room->max[slice][t] = max;
    __syncthreads();
#pragma unroll
    for (int p = 0; p < R::PARTS; p++) max = fmaxf(max, room->max[p][t]);
    float sum[R::QUADS], dot[R::QUADS];
#pragma unroll
    for (int k = 0; k < R::QUADS; k++) {
        float z[4];
#pragma unroll
        for (int i = 0; i < 4; i++) z[i] = room->z[R::token_of(k) + 16 * i][t];
        quad_sums(z, max, sum + k, dot + k);
    }
    room->sum[slice][t] = tree_sum<R::QUADS>(sum);
    room->dot[slice][t] = tree_sum<R::QUADS>(dot);
    __syncthreads();
    float sums[R::PARTS], dots[R::PARTS];
#pragma unroll
    for (int p = 0; p < R::PARTS; p++) sums[p] = room->sum[p][t], dots[p] = room->dot[p][t];
    return {max, tree_sum<R::PARTS>(sums), tree_sum<R::PARTS>(dots)};
}

// Computes the logits of chunk blockIdx.x / (tiles of rows) for one tile of rows, then calls done.run(room, first row,
// first token, length). Registers of a thread: at most 96 for 16 rows, 120 for 32 (two blocks an SM); some 160 for 64,
// 230 for 128 and up to 200 in f32 (one block).
template <typename Tile, bool ALIGNED, typename Done>
static __global__ __launch_bounds__(HEAD_THREADS, Tile::X < 64 ? 2 : 1) void head_kernel(Head<typename Tile::T> h,
                                                                                         Done done) {
    typedef typename Tile::T T;
    constexpr int X = Tile::X;
    static_assert(Tile::W == HEAD_CHUNK && Tile::THREADS == HEAD_THREADS, "");
    static_assert(sizeof(HeadRoom<X>) <= Tile::SHARED_BYTES, "");
    SHARED_DYNAMIC(char, shared);
    int tiles = (int)((h.n + X - 1) / X);
    int64_t row = (int64_t)((int)blockIdx.x % tiles) * X, token = (h.first + (int)blockIdx.x / tiles) * HEAD_CHUNK;
    int len = (int)(h.V - token < HEAD_CHUNK ? h.V - token : HEAD_CHUNK);
    auto here = [&](int64_t i) { return row + i < h.n && (!h.key || h.key[row + i] >= 0); };
    wait_for_earlier();
    if (h.key && !__syncthreads_or(here((int)threadIdx.x % X))) return; // the whole block is idle
    tile_stream<Tile, ALIGNED>(
        shared, h.w, [&](int64_t i) -> const T * { return i < len ? h.w + (token + i) * h.D : NULL; }, 1,
        [&](int64_t i) -> const T * {
            return here(i) ? h.x + (h.rows ? (int64_t)h.rows[row + i] : row + i) * h.D : NULL;
        },
        0, h.D,
        [&](int, const float *sum) {
            __syncthreads(); // the stages are free
            HeadRoom<X> *room = (HeadRoom<X> *)shared;
            Tile::each([&](int j, int v, int t) { room->z[v][t] = v < len ? sum[j] * h.scale : -INFINITY; });
            __syncthreads();
            done.run(room, row, token, len);
        });
}

// The tile for a storage type and a number of rows. With few rows, reading the weights is the limit: two blocks an SM
// keep 96 KiB of copies under way. With many, a warp has 64 x 32 outputs. Rows that are not multiples of 16 bytes take
// the tile of 64.
template <typename T, int X> struct HeadTile;
template <> struct HeadTile<Bf16, 16> : MmaTile<HEAD_CHUNK, 16, 8, 1, 4> {};
template <> struct HeadTile<Bf16, 32> : MmaTile<HEAD_CHUNK, 32, 4, 2, 4> {};
template <> struct HeadTile<Bf16, 64> : MmaTile<HEAD_CHUNK, 64, 4, 2, 4> {};
template <> struct HeadTile<Bf16, 128> : MmaTile<HEAD_CHUNK, 128, 2, 4, 3> {};
template <> struct HeadTile<float, 16> : FmaTile<HEAD_CHUNK, 16, 4, 2, 3> {};
template <> struct HeadTile<float, 64> : FmaTile<HEAD_CHUNK, 64, 8, 4, 3> {};

// Launches head_kernel over `chunks` chunks from h.first on.
template <typename T, typename Done> static void head_launch(Device *d, Head<T> h, int64_t chunks, Done done) {
    auto run = [&](auto tile, auto aligned) {
        typedef decltype(tile) Tile;
        LAUNCH_EARLY(d, (head_kernel<Tile, decltype(aligned)::value, Done>),
                     (unsigned)(chunks * ((h.n + Tile::X - 1) / Tile::X)), HEAD_THREADS, Tile::SHARED_BYTES, h, done);
    };
    std::true_type fast;
    std::false_type slow;
    if (!aligned_rows(h.x, h.D) || !aligned_rows(h.w, h.D)) run(HeadTile<T, 64>(), slow);
    else if (h.n <= 16) run(HeadTile<T, 16>(), fast);
    else if constexpr (sizeof(T) == 4) run(HeadTile<T, 64>(), fast);
    else if (h.n <= 32) run(HeadTile<T, 32>(), fast);
    else if (h.n <= 64) run(HeadTile<T, 64>(), fast);
    else run(HeadTile<T, 128>(), fast);
}

// ---- what becomes of the logits -------------------------------------------------------------------------------------
// Each row's summaries, and the logits of targets.
struct Summaries {
    Lse *summary;          // [n, chunks]
    float *z_target;       // [n]
    const int32_t *target; // [n]
    int64_t n, chunks;
};
// Each row's summaries, and the best candidate of each chunk.
struct Choices {
    Lse *summary;    // [n, chunks]
    Candidate *best; // [n, chunks]
    int64_t n, chunks;
    Draw draw;
};

// The gradient of a row's logits, but for 1/temperature: dlogp (1[target] - p) - dentropy p (log p + entropy).
struct HeadSlope {
    float lse, dlogp, dentropy, entropy;
    int32_t target;
    __device__ __forceinline__ float at(float z, bool is_target) const {
        float logp = z - lse, p = head_exp(logp), slope = dlogp * ((is_target ? 1 : 0) - p);
        return slope - dentropy * (p * (fmaxf(logp, -200) + entropy));
    }
};
// The gradients of a block of logits, stored to dz; zeros for rows from n to `stride`, a multiple of 8.
template <typename T> struct Gradients {
    T *dz;
    int64_t stride, n, first;                      // first: the token that dz begins with
    const float *dlogp, *dentropy, *lse, *entropy; // [n]; dentropy and entropy may be NULL
    const int32_t *target;                         // [n]

    __device__ __forceinline__ HeadSlope slope_of(int64_t row) const {
        if (row >= n) return {0, 0, 0, 0, -1};
        return {lse[row], dlogp[row], dentropy ? dentropy[row] : 0, dentropy ? entropy[row] : 0, target[row]};
    }
};

// The same by wgmma (head_hopper.cu), for head_launch(d, h, all chunks or those of `len` tokens, ...). False, and
// nothing done, where that does not apply. dz is then [stride, len], a row of x along each of its rows.
bool hopper_summarise(Device *d, Head<Bf16> h, Summaries to);
bool hopper_choose(Device *d, Head<Bf16> h, Choices to);
bool hopper_differentiate(Device *d, Head<Bf16> h, int64_t len, Gradients<Bf16> to);

// ---- rows side by side ----------------------------------------------------------------------------------------------
#define GATHER_THREADS 128

// Copies to[n, D] = x[rows[n]], and zeros to the rows from n to gridDim.x.
template <typename T>
static __global__ void gather_kernel(T *to, const T *x, const int32_t *rows, int64_t n, int64_t D) {
    bool there = blockIdx.x < n;
    const T *from = x + (there ? rows[blockIdx.x] * D : 0);
    for (int64_t k = threadIdx.x; k < D; k += GATHER_THREADS)
        to[blockIdx.x * D + k] = there ? from[k] : from_float<T>(0);
}
template <typename T>
static void gather_rows(Device *d, T *to, const T *x, const int32_t *rows, int64_t n, int64_t padded, int64_t D) {
    LAUNCH(d, gather_kernel<T>, (unsigned)padded, GATHER_THREADS, 0, to, x, rows, n, D);
}

// ---- a row's summaries ---------------------------------------------------------------------------------------------
typedef struct {
    float lse, entropy;
} RowLse;

// A row's logsumexp and entropy from its summaries summary[chunks], by one block of at least LSE_THREADS; all its
// threads get them. Thread i < LSE_THREADS adds chunks i, i + LSE_THREADS, ... in ascending order, then block_sum adds
// the threads: the same additions in a block of any size, as the threads beyond bring zeros. `room` is a shared array
// of 32 doubles.
static __device__ __forceinline__ RowLse head_lse(const Lse *summary, int64_t chunks, double *room) {
    double top = -INFINITY, sum = 0, dot = 0;
    const int64_t first = threadIdx.x < LSE_THREADS ? threadIdx.x : chunks;
    for (int64_t c = first; c < chunks; c += LSE_THREADS) top = summary[c].max > top ? summary[c].max : top;
    for (int k = WARP / 2; k; k /= 2) {
        double other = __shfl_xor_sync(FULL, top, k);
        top = other > top ? other : top;
    }
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = top;
    __syncthreads();
    for (int w = 0; w < (int)blockDim.x / WARP; w++) top = room[w] > top ? room[w] : top;
    __syncthreads();
    for (int64_t c = first; c < chunks; c += LSE_THREADS) {
        Lse l = summary[c];
        double shift = l.max - top, e = exp(shift);
        sum += e * l.sum;
        dot += e * (l.dot + shift * l.sum);
    }
    sum = block_sum(sum, room);
    __syncthreads();
    dot = block_sum(dot, room);
    double log_sum = log(sum);
    return {(float)(top + log_sum), (float)(log_sum - dot / sum)};
}
