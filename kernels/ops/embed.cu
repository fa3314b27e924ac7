// The embedding: y[t] = w[ids[t]], and its gradient dw[ids[t]] += dy[t], tokens in ascending order, rounded once.
//
// embed: a warp owns a row of y; it reads a row and writes one.
//
// embed_bwd: tokens are first brought together by id. Ids go into 1,024 bins by their remainder, which spreads the
// frequent low ones; a stable counting sort over bins (tiles of 512 tokens are counted, then every tile places its
// tokens) lists each bin's tokens in ascending order. Then a warp owns one token and 32 groups of columns. If an
// earlier token of the bin has the same id, that token's warp does the work, and this one is done. Else it goes through
// the bin, adds the rows of its id in order, with several loads under way, and rounds once. Must move dy once and the
// touched rows of dw twice. The lists take 8 T bytes of scratch, the counters 4 T / 512 x 1,024 bytes.
#include "memory.cuh"

#define WARPS   8 // of a block
#define THREADS (WARPS * WARP)
#define BINS    1024
#define TILE    512
#define AHEAD   8 // rows of dy that a warp loads at once

template <typename T, typename W>
static __global__ void __launch_bounds__(THREADS)
    embed_kernel(T *y, const W *w, const int32_t *ids, int64_t T_, int64_t D, bool whole) {
    constexpr int E = GroupOf<T, W>::E, AT_ONCE = 4;
    int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (t >= T_) return;
    const W *from = w + ids[t] * D;
    T *to = y + t * D;
    for (int64_t first = threadIdx.x % WARP * E; first < D; first += AT_ONCE * WARP * E) {
        Group<W, E> g[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            int64_t i = first + k * WARP * E;
            if (i < D) g[k] = group_load<E>(from + i, D - i, whole);
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            int64_t i = first + k * WARP * E;
            Group<T, E> out;
#pragma unroll
            for (int j = 0; j < E; j++) out.x[j] = from_float<T>(to_float(g[k].x[j]));
            if (i < D) group_store<E>(to + i, D - i, whole, out);
        }
    }
}

void cuda_embed(Device *d, Tensor y, Tensor w, Tensor ids) {
    int64_t T_ = y.dim[0], D = tensor_width(y);
    DISPATCH2(y.dtype, T, w.dtype, W, {
        constexpr int E = (GroupOf<T, W>::E);
        LAUNCH(d, (embed_kernel<T, W>), blocks_for(T_, WARPS), THREADS, 0, data_of<T>(y), data_of<W>(w),
               data_of<int32_t>(ids), T_, D, in_groups<E>(data_of<T>(y), D) && in_groups<E>(data_of<W>(w), D));
    });
}

// ---- backward -------------------------------------------------------------------------------------------------------
static __device__ __forceinline__ int bin_of(int32_t id) { return (int)((uint32_t)id % BINS); }

// Fills counts[tiles, BINS]: how many tokens of a tile fall into each bin.
static __global__ void __launch_bounds__(TILE) count_kernel(int32_t *counts, const int32_t *ids, int64_t T) {
    SHARED(int32_t, count, [BINS]);
    for (int b = threadIdx.x; b < BINS; b += TILE) count[b] = 0;
    __syncthreads();
    int64_t t = (int64_t)blockIdx.x * TILE + threadIdx.x;
    if (t < T) atomicAdd(&count[bin_of(ids[t])], 1);
    __syncthreads();
    for (int b = threadIdx.x; b < BINS; b += TILE) counts[(int64_t)blockIdx.x * BINS + b] = count[b];
}

// The sum of x over the lanes below this one.
static __device__ __forceinline__ int32_t lanes_below(int32_t x) {
    int lane = threadIdx.x % WARP;
    int32_t sum = x;
    for (int k = 1; k < WARP; k *= 2) {
        int32_t other = __shfl_up_sync(FULL, sum, k);
        if (lane >= k) sum += other;
    }
    return sum - x;
}

// Fills order[T], the tokens sorted by bin and ascending within a bin, and begin[BINS + 1], where the bins begin in it.
// A thread owns a bin: the tokens of all lower bins, and those of its bin in lower tiles, come first.
static __global__ void __launch_bounds__(BINS)
    place_kernel(int32_t *order, int32_t *begin, const int32_t *counts, const int32_t *ids, int64_t T) {
    SHARED(int32_t, warp_total, [WARP]);
    SHARED(int32_t, next, [BINS]);
    SHARED(int32_t, bin, [TILE]);
    int b = threadIdx.x;
    int32_t all = 0, lower_tiles = 0;
#pragma unroll 8
    for (int tile = 0; tile < (int)gridDim.x; tile++) {
        int32_t n = counts[(int64_t)tile * BINS + b];
        all += n;
        lower_tiles += tile < (int)blockIdx.x ? n : 0;
    }
    int32_t before = lanes_below(all);
    if (b % WARP == WARP - 1) warp_total[b / WARP] = before + all;
    __syncthreads();
    for (int w = 0; w < b / WARP; w++) before += warp_total[w];
    if (blockIdx.x == 0) {
        begin[b] = before;
        if (b == BINS - 1) begin[BINS] = before + all;
    }
    next[b] = before + lower_tiles;
    int64_t t = (int64_t)blockIdx.x * TILE + b;
    if (b < TILE) bin[b] = t < T ? bin_of(ids[t]) : -1;
    __syncthreads();
    if (b >= TILE || t >= T) return;
    int rank = 0;
    for (int u = 0; u < b; u++) rank += bin[u] == bin[b];
    order[next[bin[b]] + rank] = (int32_t)t;
}

template <typename W, typename T>
static __global__ void __launch_bounds__(THREADS)
    add_rows_kernel(W *dw, const T *dy, const int32_t *ids, int pad, const int32_t *order, const int32_t *begin,
                    int64_t T_, int64_t D, bool whole) {
    constexpr int E = GroupOf<W, T>::E;
    int64_t place = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (place >= T_) return;
    int lane = threadIdx.x % WARP;
    int32_t id = ids[order[place]];
    if (id == pad) return;
    int64_t first = begin[bin_of(id)], end = begin[bin_of(id) + 1];
    for (int64_t i = first; i < place; i += WARP) // has an earlier token this id?
        if (__ballot_sync(FULL, i + lane < place && ids[order[i + lane]] == id)) return;

    int64_t column = ((int64_t)blockIdx.y * WARP + lane) * E, left = D - column;
    W *out = dw + id * D + column;
    Group<W, E> old = group_load<E>((const W *)out, left, whole);
    float sum[E];
#pragma unroll
    for (int j = 0; j < E; j++) sum[j] = to_float(old.x[j]);
    for (int64_t i = place; i < end; i += WARP) {
        int32_t token = i + lane < end ? order[i + lane] : -1;
        unsigned same = __ballot_sync(FULL, token >= 0 && ids[token < 0 ? 0 : token] == id);
        while (same) {
            Group<T, E> row[AHEAD];
            int n = 0;
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                int32_t t = __shfl_sync(FULL, token, same ? __ffs((int)same) - 1 : 0);
                if (same) row[k] = group_load<E>(dy + t * D + column, left, whole), n++;
                same &= same - 1; // 0 stays 0
            }
#pragma unroll
            for (int k = 0; k < AHEAD; k++)
#pragma unroll
                for (int j = 0; j < E; j++)
                    if (k < n) sum[j] += to_float(row[k].x[j]);
        }
    }
#pragma unroll
    for (int j = 0; j < E; j++) old.x[j] = from_float<W>(sum[j]);
    group_store<E>(out, left, whole, old);
}

void cuda_embed_bwd(Device *d, Tensor dw, Tensor dy, Tensor ids, int pad) {
    int64_t T_ = dy.dim[0], D = tensor_width(dy);
    const int32_t *id = data_of<int32_t>(ids);
    unsigned tiles = blocks_for(T_, TILE);
    size_t mark = arena_mark(&d->scratch);
    int32_t *counts = (int32_t *)arena_take(&d->scratch, (size_t)tiles * BINS * sizeof *counts); // [tiles, BINS]
    int32_t *order = (int32_t *)arena_take(&d->scratch, (size_t)T_ * sizeof *order);             // [T]
    int32_t *begin = (int32_t *)arena_take(&d->scratch, (BINS + 1) * sizeof *begin);             // [BINS + 1]
    LAUNCH(d, count_kernel, tiles, TILE, 0, counts, id, T_);
    LAUNCH(d, place_kernel, tiles, BINS, 0, order, begin, counts, id, T_);
    DISPATCH2(dw.dtype, W, dy.dtype, T, {
        constexpr int E = (GroupOf<W, T>::E);
        dim3 grid(blocks_for(T_, WARPS), blocks_for(D, WARP * E));
        LAUNCH(d, (add_rows_kernel<W, T>), grid, THREADS, 0, data_of<W>(dw), data_of<T>(dy), id, pad, order, begin, T_,
               D, in_groups<E>(data_of<W>(dw), D) && in_groups<E>(data_of<T>(dy), D));
    });
    arena_rewind(&d->scratch, mark);
}
