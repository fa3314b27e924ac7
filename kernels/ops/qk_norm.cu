// qk_norm: RMSNorm of each query and key head (Qwen3), before RoPE:
//
//   y[d] = x * rstd * w        rstd = 1 / sqrt(mean(x^2) + eps)
//
// w[d] is q_w for the H query heads of a token, k_w for its K key heads. Backward, with g = dy * w:
//
//   dx = rstd * (g - x * rstd^2 * mean(g * x))        dw += the sum over tokens and their heads of dy * x * rstd
//
// A warp owns a head, and a lane every 32nd element of it, at most 8, in registers. Memory-bound: forward reads and
// writes (H + K) d elements of a token, and writes them once more where `raw` is kept; backward reads dy and x, and
// writes dx.
//
// In the backward pass a block takes R tokens, R = ceil(T / 1024) but at least 8, and its warps take their heads in
// turn. Each lane sums its elements of dw; a block adds the sums of its warps in order, cuda_add_column_sums those of
// the blocks.
#include "memory.cuh"

#define THREADS     256
#define WARPS       (THREADS / WARP)
#define EACH        (HEAD_MAX / WARP) // elements of a head that a lane has, at most
#define MOST_BLOCKS 1024              // of the backward pass
#define LEAST_ROWS  8                 // tokens of such a block

typedef struct {
    int head, heads, queries, normed; // d, H + 2K, H, H + K
    float eps;
} Heads;

static Heads heads_of(Tensor qkv, int n_kv, float eps) {
    int head = (int)qkv.dim[2], heads = (int)qkv.dim[1];
    if (head > HEAD_MAX) die("qk_norm: heads of size %d; at most %d", head, HEAD_MAX);
    return Heads{head, heads, heads - 2 * n_kv, heads - n_kv, eps};
}

// Loads a lane's elements of a head, 0 beyond its end; lane_store stores them.
template <typename T> static __device__ __forceinline__ void lane_load(float x[EACH], const T *p, int head) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < EACH; k++) x[k] = lane + k * WARP < head ? to_float(p[lane + k * WARP]) : 0.0f;
}
template <typename T> static __device__ __forceinline__ void lane_store(T *p, const float x[EACH], int head) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < EACH; k++)
        if (lane + k * WARP < head) p[lane + k * WARP] = from_float<T>(x[k]);
}

static __device__ __forceinline__ float head_rstd(const float x[EACH], Heads h) {
    float squares = 0;
#pragma unroll
    for (int k = 0; k < EACH; k++) squares = fmaf(x[k], x[k], squares);
    return 1.0f / sqrtf(warp_sum(squares) / (float)h.head + h.eps);
}

template <typename T, typename W>
static __global__ void __launch_bounds__(THREADS)
    qk_norm_kernel(T *qkv, T *raw, const W *q_w, const W *k_w, int64_t items, Heads h) {
    wait_for_earlier();
    int64_t item = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP; // (token, head)
    if (item >= items) return;
    int64_t t = item / h.normed, head = item % h.normed;
    T *p = qkv + (t * h.heads + head) * h.head;
    float x[EACH], w[EACH];
    lane_load(x, p, h.head);
    lane_load(w, head < h.queries ? q_w : k_w, h.head);
    if (raw) lane_store(raw + item * h.head, x, h.head);
    float rstd = head_rstd(x, h);
#pragma unroll
    for (int k = 0; k < EACH; k++) x[k] = x[k] * rstd * w[k];
    lane_store(p, x, h.head);
}

// Grid: blocks of `rows` tokens. Fills partial[2, blocks, d] f32, each block's sums for dq_w, then for dk_w.
template <typename T, typename W>
static __global__ void __launch_bounds__(THREADS)
    qk_norm_bwd_kernel(T *dqkv, float *partial, const T *raw, const W *q_w, const W *k_w, int64_t T_, int64_t rows,
                       Heads h) {
    SHARED(float, sums, [WARPS][HEAD_MAX]);
    int warp = (int)threadIdx.x / WARP;
    int64_t first = blockIdx.x * rows, end = first + rows < T_ ? first + rows : T_;
    float dw[2][EACH] = {}; // of queries, of keys
    for (int64_t item = first * h.normed + warp; item < end * h.normed; item += WARPS) {
        int64_t t = item / h.normed, head = item % h.normed;
        bool key = head >= h.queries;
        T *p = dqkv + (t * h.heads + head) * h.head;
        float dy[EACH], x[EACH], w[EACH], dot = 0;
        lane_load(dy, p, h.head), lane_load(x, raw + item * h.head, h.head);
        lane_load(w, key ? k_w : q_w, h.head);
        float rstd = head_rstd(x, h);
#pragma unroll
        for (int k = 0; k < EACH; k++) dot = fmaf(dy[k] * x[k], w[k], dot);
        float c = warp_sum(dot) / (float)h.head * rstd * rstd;
#pragma unroll
        for (int k = 0; k < EACH; k++) {
            float part_of_dw = dy[k] * (x[k] * rstd);
            dw[0][k] += key ? 0.0f : part_of_dw, dw[1][k] += key ? part_of_dw : 0.0f;
            dy[k] = rstd * (dy[k] * w[k] - x[k] * c);
        }
        lane_store(p, dy, h.head);
    }
    for (int which = 0; which < 2; which++) {
        __syncthreads(); // other threads may still be reading the last round's sums
        lane_store(sums[warp], dw[which], h.head);
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
    DISPATCH2(qkv.dtype, T, q_w.dtype, W,
              LAUNCH_EARLY(d, (qk_norm_kernel<T, W>), blocks_for(items, WARPS), THREADS, 0, data_of<T>(qkv),
                           data_of<T>(raw), data_of<W>(q_w), data_of<W>(k_w), items, h));
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
    DISPATCH2(dqkv.dtype, T, q_w.dtype, W,
              LAUNCH(d, (qk_norm_bwd_kernel<T, W>), (unsigned)blocks, THREADS, 0, data_of<T>(dqkv), partial,
                     data_of<T>(raw), data_of<W>(q_w), data_of<W>(k_w), T_, rows, h));
    if (present(dq_w)) cuda_add_column_sums(d, dq_w, partial, blocks, h.head);
    if (present(dk_w)) cuda_add_column_sums(d, dk_w, partial + blocks * h.head, blocks, h.head);
    arena_rewind(&d->scratch, mark);
}
