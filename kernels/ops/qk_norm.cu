// qk_norm: RMSNorm of each query and key head (Qwen3), before RoPE:
//
//   y[d] = x * rstd * w        rstd = 1 / sqrt(mean(x^2) + eps)
//
// w[d] is q_w for the H query heads of a token, k_w for its K key heads. Backward, with g = dy * w:
//
//   dx = rstd * (g - x * rstd^2 * mean(g * x))        dw += the sum over tokens and their heads of dy * x * rstd
//
// A warp owns AT_ONCE heads at a time, whose loads are all under way before the first is used, and a lane every 32nd
// element of each, in registers. Memory-bound: forward reads and writes (H + K) d elements of a token, and writes them
// once more where `raw` is kept; backward reads dy and x, and writes dx.
//
// Expected on an H200 at d = 128: 80 % of a copy, backward 75 %, where the data are several times the L2; of 2,720
// tokens a launch is a third. Loads are of 2 bytes a lane in bf16, so that an SM has
// 32 KB of them under way; with `raw` a warp has about 30 instructions for 32 elements, where the bytes leave room for
// 43, and without about 22 for 28. Before, with predicates for any d and one head at a time, it had 75.
//
// In the backward pass a block takes R tokens, R = ceil(T / 1024) but at least 8, and its warps deal their heads among
// themselves. Each lane sums its elements of dw; a block adds the sums of its warps in order, cuda_add_column_sums
// those of the blocks.
#include "head_norm.cuh"
#include "memory.cuh"

#define THREADS     256
#define WARPS       (THREADS / WARP)
#define AT_ONCE     4    // heads of a warp
#define MOST_BLOCKS 1024 // of the backward pass
#define LEAST_ROWS  8    // tokens of such a block

typedef struct {
    int head, heads, queries, normed; // d, H + 2K, H, H + K
    float eps;
} Heads;

static Heads heads_of(Tensor qkv, int n_kv, float eps) {
    int head = (int)qkv.dim[2], heads = (int)qkv.dim[1];
    if (head > HEAD_MAX) die("qk_norm: heads of size %d; at most %d", head, HEAD_MAX);
    return Heads{head, heads, heads - 2 * n_kv, heads - n_kv, eps};
}

// What a lane has of a head of size d; of any size for d = 0.
template <int d> struct LaneOf { static constexpr int EACH = (d ? d : HEAD_MAX) / WARP; };

// Loads a lane's elements of a head, 0 beyond its end, from the first of them on; lane_store stores them.
template <int d, typename T> static __device__ __forceinline__ void lane_load(T *x, const T *p, const Heads &h) {
#pragma unroll
    for (int k = 0; k < LaneOf<d>::EACH; k++)
        x[k] = d || (int)threadIdx.x % WARP + k * WARP < h.head ? p[k * WARP] : from_float<T>(0.0f);
}
template <int d, typename T> static __device__ __forceinline__ void lane_store(T *p, const T *x, const Heads &h) {
#pragma unroll
    for (int k = 0; k < LaneOf<d>::EACH; k++)
        if (d || (int)threadIdx.x % WARP + k * WARP < h.head) p[k * WARP] = x[k];
}

template <int d, typename T> static __device__ __forceinline__ float lane_rstd(const T *x, const Heads &h) {
    float squares = 0;
#pragma unroll
    for (int k = 0; k < LaneOf<d>::EACH; k++) squares = fmaf(to_float(x[k]), to_float(x[k]), squares);
    return head_rstd(squares, d ? d : h.head, h.eps);
}

// Item i is head i % normed of token i / normed; this is the lane's first element of it in [T, heads, d], and whether
// it is a key.
static __device__ __forceinline__ int64_t place_of(int i, const Heads &h, bool *key) {
    int t = i / h.normed, head = i - t * h.normed;
    *key = head >= h.queries;
    return ((int64_t)t * h.heads + head) * h.head + threadIdx.x % WARP;
}

template <typename T, typename W, int d>
static __global__ void __launch_bounds__(THREADS)
    qk_norm_kernel(T *qkv, T *raw, const W *q_w, const W *k_w, int items, Heads h) {
    constexpr int EACH = LaneOf<d>::EACH;
    const int lane = threadIdx.x % WARP, step = (int)gridDim.x * WARPS * AT_ONCE;
    W of_query[EACH], of_key[EACH];
    wait_for_earlier();
    lane_load<d>(of_query, q_w + lane, h), lane_load<d>(of_key, k_w + lane, h);
    for (int first = (int)(blockIdx.x * WARPS + threadIdx.x / WARP) * AT_ONCE; first < items; first += step) {
        T x[AT_ONCE][EACH], *p[AT_ONCE];
        bool key[AT_ONCE];
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) {
            p[n] = qkv + place_of(first + n < items ? first + n : first, h, &key[n]);
            lane_load<d>(x[n], (const T *)p[n], h);
        }
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) {
            if (first + n >= items) break;
            if (raw) lane_store<d>(raw + (int64_t)(first + n) * h.head + lane, x[n], h);
            float rstd = lane_rstd<d>(x[n], h);
#pragma unroll
            for (int k = 0; k < EACH; k++) x[n][k] = head_normed(x[n][k], rstd, key[n] ? of_key[k] : of_query[k]);
            lane_store<d>(p[n], x[n], h);
        }
    }
}

// Grid: blocks of `rows` tokens. Fills partial[2, blocks, d] f32, each block's sums for dq_w, then for dk_w.
template <typename T, typename W, int d>
static __global__ void __launch_bounds__(THREADS, d ? 2 : 1)
    qk_norm_bwd_kernel(T *dqkv, float *partial, const T *raw, const W *q_w, const W *k_w, int T_, int rows, Heads h) {
    constexpr int EACH = LaneOf<d>::EACH;
    SHARED(float, sums, [WARPS][HEAD_MAX]);
    const int lane = threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, row = (int)blockIdx.x * rows;
    const int end = (row + rows < T_ ? row + rows : T_) * h.normed;
    W of_query[EACH], of_key[EACH];
    float dw[2][EACH] = {}; // of queries, of keys
    wait_for_earlier();
    lane_load<d>(of_query, q_w + lane, h), lane_load<d>(of_key, k_w + lane, h);
    for (int first = row * h.normed + warp * AT_ONCE; first < end; first += WARPS * AT_ONCE) {
        T dy[AT_ONCE][EACH], x[AT_ONCE][EACH], *p[AT_ONCE];
        bool key[AT_ONCE];
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) {
            int item = first + n < end ? first + n : first;
            p[n] = dqkv + place_of(item, h, &key[n]);
            lane_load<d>(dy[n], (const T *)p[n], h), lane_load<d>(x[n], raw + (int64_t)item * h.head + lane, h);
        }
#pragma unroll
        for (int n = 0; n < AT_ONCE; n++) {
            if (first + n >= end) break;
            float rstd = lane_rstd<d>(x[n], h), dot = 0;
#pragma unroll
            for (int k = 0; k < EACH; k++)
                dot = fmaf(to_float(dy[n][k]) * to_float(x[n][k]), to_float(key[n] ? of_key[k] : of_query[k]), dot);
            float c = warp_sum(dot) / (float)(d ? d : h.head) * rstd * rstd;
#pragma unroll
            for (int k = 0; k < EACH; k++) {
                float g = to_float(dy[n][k]), v = to_float(x[n][k]), w = to_float(key[n] ? of_key[k] : of_query[k]);
                if (key[n]) dw[1][k] += g * (v * rstd);
                else dw[0][k] += g * (v * rstd);
                dy[n][k] = from_float<T>(rstd * (g * w - v * c));
            }
            lane_store<d>(p[n], dy[n], h);
        }
    }
    for (int which = 0; which < 2; which++) {
        __syncthreads(); // other threads may still be reading the last round's sums
        lane_store<d>(sums[warp] + lane, dw[which], h);
        __syncthreads();
        for (int i = (int)threadIdx.x; i < h.head; i += THREADS) {
            float s = sums[0][i];
            for (int k = 1; k < WARPS; k++) s += sums[k][i];
            partial[((int64_t)which * gridDim.x + blockIdx.x) * h.head + i] = s;
        }
    }
}

void cuda_qk_norm(Device *d, Tensor qkv, Tensor raw, Tensor q_w, Tensor k_w, int n_kv, float eps) {
    Heads h = heads_of(qkv, n_kv, eps);
    int64_t items = qkv.dim[0] * h.normed;
    DISPATCH2(qkv.dtype, T, q_w.dtype, W, {
        auto qk_norm = h.head == 64    ? qk_norm_kernel<T, W, 64>
                       : h.head == 128 ? qk_norm_kernel<T, W, 128>
                                       : qk_norm_kernel<T, W, 0>;
        LAUNCH_EARLY(d, qk_norm, resident_grid(d, qk_norm, THREADS, 0, blocks_for(items, WARPS * AT_ONCE)), THREADS, 0,
                     data_of<T>(qkv), data_of<T>(raw), data_of<W>(q_w), data_of<W>(k_w), (int)items, h);
    });
}

void cuda_qk_norm_bwd(Device *d, Tensor dqkv, Tensor dq_w, Tensor dk_w, Tensor raw, Tensor q_w, Tensor k_w, int n_kv,
                      float eps) {
    Heads h = heads_of(dqkv, n_kv, eps);
    int64_t T_ = dqkv.dim[0], rows = (T_ + MOST_BLOCKS - 1) / MOST_BLOCKS;
    if (rows < LEAST_ROWS) rows = LEAST_ROWS;
    int64_t blocks = (T_ + rows - 1) / rows;
    size_t mark = arena_mark(&d->scratch);
    float *partial =
        (float *)arena_take(&d->scratch, (size_t)(2 * blocks * h.head) * sizeof *partial); // [2, blocks, d]
    DISPATCH2(dqkv.dtype, T, q_w.dtype, W, {
        auto qk_norm_bwd = h.head == 64    ? qk_norm_bwd_kernel<T, W, 64>
                           : h.head == 128 ? qk_norm_bwd_kernel<T, W, 128>
                                           : qk_norm_bwd_kernel<T, W, 0>;
        LAUNCH_EARLY(d, qk_norm_bwd, (unsigned)blocks, THREADS, 0, data_of<T>(dqkv), partial, data_of<T>(raw),
                     data_of<W>(q_w), data_of<W>(k_w), (int)T_, (int)rows, h);
    });
    if (present(dq_w)) cuda_add_column_sums(d, dq_w, partial, blocks, h.head);
    if (present(dk_w)) cuda_add_column_sums(d, dk_w, partial + blocks * h.head, blocks, h.head);
    arena_rewind(&d->scratch, mark);
}
