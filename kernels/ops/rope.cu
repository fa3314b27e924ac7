// rope: adds the bias, applies rotary position embedding (Su et al. 2021), and writes keys and values into the KV
// cache; and backward, with the bias' gradient.
//
//   (x[i], x[i + d/2]) is rotated by the angle pos * inv_freq[i], for the query and key heads
//
// Angles are f32 products as in HF; their sine and cosine are computed in f64 (positions reach 32768, where an f32
// reduction would lose all digits), once for a token and pair, for all its heads.
//
// Memory-bound: qkv read and written, 2 (H + 2K) d elements of a token; with a cache 2 K d more. The floor is those
// bytes over the bandwidth. A thread has the same columns of every token of its block: a group of 16 bytes of the lower
// half of a head, and the same of the upper half. So it finds them once, and keeps their bias, or its gradient, in
// registers. It loads its groups of TURNS tokens, then helps with their angles while they arrive.
//
// Expected on an H200 at H = 14, K = 2, d = 64: 88 % of a copy at 32,768 tokens, backward 80 %. An SM moves a token in
// 260 clocks, of which instructions take about 130; the loads under way are 43 KB an SM, backward 46 KB. The backward
// pass writes 1.2 MB of sums, and one launch more adds them.
#include "memory.cuh"
#include "rotate.cuh"

#define FWD_THREADS 256
#define BWD_THREADS 384
#define TURNS       2    // tokens of a thread whose loads are under way at once
#define MOST_ANGLES 1024 // of a turn, for each buffer of them
#define MOST_BLOCKS 264  // of BWD_THREADS: two for each of an H200's multiprocessors
#define LEAST_ROWS  16   // tokens of such a block

typedef struct {
    RopeTable table;
    int half, heads, rotated; // d / 2, H + 2K, H + K
} Rope;

static Rope rope_of(Tensor qkv, const RopeTable *table, int n_kv) {
    int64_t d = qkv.dim[2];
    if (d > HEAD_MAX) die("rope: heads of size %d; at most %d", (int)d, HEAD_MAX);
    return Rope{*table, (int)(d / 2), (int)qkv.dim[1], (int)qkv.dim[1] - n_kv};
}

// How threads share heads and tokens: a block has `own` heads, a thread a group of `packs` in one of them, so that
// `items` threads have a token; `lanes` tokens lie side by side. All this depends on the shape alone: where rows are
// not aligned, a thread has the same columns, an element at a time.
typedef struct {
    int heads, own, packs, items, lanes;
} Share;

static Share share_of(int heads, int half, int E, int threads) {
    int packs = (half + E - 1) / E, most = threads / packs, blocks = (heads + most - 1) / most;
    int own = (heads + blocks - 1) / blocks, items = own * packs, lanes = threads / items;
    return Share{heads, own, packs, items, lanes * half < MOST_ANGLES / TURNS ? lanes : MOST_ANGLES / TURNS / half};
}
// Threads of a block: one an item and lane, and at least one a pair, for the angles.
static unsigned threads_of(const Share &s, int half) {
    int least = s.lanes * s.items > half ? s.lanes * s.items : half;
    return (unsigned)((least + WARP - 1) / WARP * WARP);
}
static unsigned head_blocks(const Share &s) { return (unsigned)((s.heads + s.own - 1) / s.own); }

// Where a thread is in that: its lane, head and first column in the head's half; and its first row and its pair of the
// angles that the block makes, `at_once` rows together.
struct Place {
    int lane, head, column, row, pair, at_once;
    bool used;
    __device__ __forceinline__ Place(const Share &s, int E, int half) {
        int thread = (int)threadIdx.x, item = thread % s.items;
        lane = thread / s.items, head = (int)blockIdx.y * s.own + item / s.packs, column = item % s.packs * E;
        row = thread / half, pair = thread % half, at_once = (int)blockDim.x / half;
        used = lane < s.lanes && head < s.heads;
    }
};

// Fills angle[rows, half], cosine and sine, for the tokens at pos[rows].
static __device__ __forceinline__ void make_angles(float2 *angle, const Place &p, const Rope &r, const int32_t *pos,
                                                   int rows) {
    for (int row = p.row; row < rows && p.row < p.at_once; row += p.at_once) {
        angle[row * r.half + p.pair] = rope_angle(r.table, pos[row], p.pair);
    }
}

// Rotates x and y, E neighbouring elements of a head's halves, by the angles; back where `back`. left: elements that
// exist. plain: all exist, and the angles are aligned.
template <int E, bool plain, bool back>
static __device__ __forceinline__ void rotate(float x[E], float y[E], const float2 *angle, int left) {
    Group<float, 4> a[E / 2]; // of two pairs
#pragma unroll
    for (int k = 0; k < E / 2; k++)
        a[k] = group_load<4, plain>((const float *)(angle + 2 * k), 2 * left - 4 * k, false);
#pragma unroll
    for (int j = 0; j < E; j++) {
        float cosine = a[j / 2].x[j % 2 * 2], sine = a[j / 2].x[j % 2 * 2 + 1];
        float2 to = rope_rotate(x[j], y[j], cosine, back ? -sine : sine);
        x[j] = to.x, y[j] = to.y;
    }
}

// A block owns `each` tokens in each turn of a loop over its grid; value heads are not rotated.
template <typename T, typename U, bool plain>
static __global__ void __launch_bounds__(FWD_THREADS, plain ? 3 : 1)
    rope_kernel(T *qkv, const U *bias, const int32_t *pos, T *kv, const int32_t *kv_row, Rope r, Share s,
                int64_t tokens, int each, bool whole) {
    constexpr int E = GroupOf<T>::E;
    SHARED_DYNAMIC(float2, angle); // [2, each, half]
    const Place p(s, E, r.half);
    const int d = 2 * r.half, left = r.half - p.column, in_cache = p.head - (2 * r.rotated - r.heads); // past queries
    const int64_t at = (int64_t)p.head * d + p.column;
    wait_for_earlier();
    Group<U, E> bias_low, bias_high;
    if (bias && p.used) {
        bias_low = group_load<E, plain>(bias + at, left, whole);
        bias_high = group_load<E, plain>(bias + at + r.half, left, whole);
    }
    int turn = 0;
    for (int64_t first = (int64_t)blockIdx.x * each; first < tokens; first += (int64_t)gridDim.x * each, turn ^= 1) {
        int rows = (int)(tokens - first < each ? tokens - first : each);
        float2 *angles = angle + turn * each * r.half;
        Group<T, E> low[TURNS], high[TURNS];
        int32_t to[TURNS];
#pragma unroll
        for (int k = 0; k < TURNS; k++) {
            int t = p.lane + k * s.lanes;
            if (!p.used || t >= rows) continue;
            const T *from = qkv + (first + t) * r.heads * d + at;
            low[k] = group_load<E, plain>(from, left, whole);
            high[k] = group_load<E, plain>(from + r.half, left, whole);
            to[k] = kv && in_cache >= 0 ? kv_row[first + t] : -1;
        }
        make_angles(angles, p, r, pos + first, rows);
        __syncthreads(); // the other buffer's readers are done, too, before it is filled again
#pragma unroll
        for (int k = 0; k < TURNS; k++) {
            int t = p.lane + k * s.lanes;
            if (!p.used || t >= rows) continue;
            float x[E], y[E], add[E];
            group_floats<E>(x, low[k]), group_floats<E>(y, high[k]);
            if (bias) {
                group_floats<E>(add, bias_low);
#pragma unroll
                for (int j = 0; j < E; j++) x[j] += add[j];
                group_floats<E>(add, bias_high);
#pragma unroll
                for (int j = 0; j < E; j++) y[j] += add[j];
            }
            if (p.head < r.rotated) rotate<E, plain, false>(x, y, angles + t * r.half + p.column, left);
            group_round<E>(&low[k], x), group_round<E>(&high[k], y);
            T *out = qkv + (first + t) * r.heads * d + at;
            group_store<E, plain>(out, left, whole, low[k]), group_store<E, plain>(out + r.half, left, whole, high[k]);
            if (to[k] < 0) continue;
            out = kv + ((int64_t)to[k] * 2 * (r.heads - r.rotated) + in_cache) * d + p.column;
            group_store<E, plain>(out, left, whole, low[k]), group_store<E, plain>(out + r.half, left, whole, high[k]);
        }
    }
}

// Grid (row blocks, head blocks): a block owns `rows` tokens of its heads. Fills partial[row blocks, (H+2K) d] f32, if
// not NULL: lane k of a column adds tokens k, k + lanes, ..., and the lanes are added in order.
template <typename T, bool plain>
static __global__ void __launch_bounds__(BWD_THREADS, plain ? 2 : 1)
    rope_bwd_kernel(T *dqkv, float *partial, const int32_t *pos, Rope r, Share s, int64_t tokens, int rows,
                    bool whole) {
    constexpr int E = GroupOf<T>::E;
    SHARED_DYNAMIC(float2, angle); // [2, TURNS lanes, half]; then sums[2E, threads] f32
    const Place p(s, E, r.half);
    const int d = 2 * r.half, left = r.half - p.column, each = TURNS * s.lanes;
    const int64_t first = (int64_t)blockIdx.x * rows, at = first * r.heads * d + (int64_t)p.head * d + p.column;
    const int end = (int)(tokens - first < rows ? tokens - first : rows);
    float sum[2][E] = {};
    wait_for_earlier();
    for (int row0 = 0, turn = 0; row0 < end; row0 += each, turn ^= 1) {
        float2 *angles = angle + turn * each * r.half;
        Group<T, E> low[TURNS], high[TURNS];
#pragma unroll
        for (int k = 0; k < TURNS; k++) {
            int t = row0 + p.lane + k * s.lanes;
            if (!p.used || t >= end) continue;
            const T *from = dqkv + at + (int64_t)t * r.heads * d;
            low[k] = group_load<E, plain>(from, left, whole);
            high[k] = group_load<E, plain>(from + r.half, left, whole);
        }
        make_angles(angles, p, r, pos + first + row0, end - row0 < each ? end - row0 : each);
        __syncthreads(); // the other buffer's readers are done, too, before it is filled again
#pragma unroll
        for (int k = 0; k < TURNS; k++) {
            int t = row0 + p.lane + k * s.lanes;
            if (!p.used || t >= end) continue;
            float x[E], y[E];
            group_floats<E>(x, low[k]), group_floats<E>(y, high[k]);
            if (p.head < r.rotated) {
                rotate<E, plain, true>(x, y, angles + (t - row0) * r.half + p.column, left);
                group_round<E>(&low[k], x), group_round<E>(&high[k], y);
                T *out = dqkv + at + (int64_t)t * r.heads * d;
                group_store<E, plain>(out, left, whole, low[k]);
                group_store<E, plain>(out + r.half, left, whole, high[k]);
            }
#pragma unroll
            for (int j = 0; j < E; j++) sum[0][j] += x[j], sum[1][j] += y[j];
        }
    }
    if (!partial) return; // the whole block
    float *sums = (float *)angle;
    const int threads = (int)blockDim.x, own = min(s.own, s.heads - (int)blockIdx.y * s.own);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < 2 * E; e++) sums[e * threads + (int)threadIdx.x] = sum[e / E][e % E];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < own * d; i += threads) { // a column of the block's heads
        int c = i % d % r.half, e = i % d / r.half * E + c % E;
        const float *lane = sums + e * threads + i / d * s.packs + c / E;
        float x = lane[0];
        for (int k = 1; k < s.lanes; k++) x += lane[k * s.items];
        partial[((int64_t)blockIdx.x * r.heads + blockIdx.y * s.own) * d + i] = x;
    }
}

void cuda_rope(Device *d, Tensor qkv, Tensor bias, Tensor pos, const RopeTable *table, int n_kv, Tensor kv,
               Tensor kv_row) {
    Rope r = rope_of(qkv, table, n_kv);
    int64_t tokens = qkv.dim[0];
    DType u = present(bias) ? bias.dtype : qkv.dtype;
    DISPATCH2(qkv.dtype, T, u, U, {
        constexpr int E = GroupOf<T>::E;
        bool whole = in_groups<E>(data_of<T>(qkv), r.half) && in_groups<E>(data_of<T>(kv), r.half) &&
                     in_groups<E>(data_of<U>(bias), r.half);
        auto rope = whole ? rope_kernel<T, U, true> : rope_kernel<T, U, false>;
        // Without bias and cache, values stay as they are.
        Share s = share_of(present(bias) || present(kv) ? r.heads : r.rotated, r.half, E, FWD_THREADS);
        unsigned threads = threads_of(s, r.half);
        // A turn takes fewer tokens where there are too few for one turn of all multiprocessors.
        int each = tokens > (int64_t)cuda_sm_count(d) * 2 * TURNS * s.lanes ? TURNS * s.lanes : s.lanes;
        size_t angles = (size_t)(2 * each * r.half) * sizeof(float2);
        dim3 grid((resident_grid(d, rope, threads, angles, (tokens + each - 1) / each * head_blocks(s)) +
                   head_blocks(s) - 1) /
                      head_blocks(s),
                  head_blocks(s));
        LAUNCH_EARLY(d, rope, grid, threads, angles, data_of<T>(qkv), data_of<U>(bias), i32(pos), data_of<T>(kv),
                     i32(kv_row), r, s, tokens, each, whole);
    });
}

void cuda_rope_bwd(Device *d, Tensor dqkv, Tensor dbias, Tensor pos, const RopeTable *table, int n_kv) {
    Rope r = rope_of(dqkv, table, n_kv);
    int64_t tokens = dqkv.dim[0], width = tensor_width(dqkv), blocks = 0;
    size_t mark = arena_mark(&d->scratch);
    float *partial = NULL; // [blocks, width]
    DISPATCH(dqkv.dtype, T, {
        constexpr int E = GroupOf<T>::E;
        Share s = share_of(present(dbias) ? r.heads : r.rotated, r.half, E, BWD_THREADS);
        unsigned threads = threads_of(s, r.half);
        int64_t most = MOST_BLOCKS * BWD_THREADS / (threads * head_blocks(s)), rows = (tokens + most - 1) / most;
        if (rows < LEAST_ROWS) rows = LEAST_ROWS;
        blocks = (tokens + rows - 1) / rows;
        if (present(dbias)) partial = (float *)arena_take(&d->scratch, (size_t)(blocks * width) * sizeof *partial);
        size_t angles = (size_t)(2 * TURNS * s.lanes * r.half) * sizeof(float2);
        size_t sums = partial ? (size_t)(2 * E) * threads * sizeof(float) : 0;
        bool whole = in_groups<E>(data_of<T>(dqkv), r.half);
        auto rope_bwd = whole ? rope_bwd_kernel<T, true> : rope_bwd_kernel<T, false>;
        LAUNCH_EARLY(d, rope_bwd, dim3((unsigned)blocks, head_blocks(s)), threads, angles > sums ? angles : sums,
                     data_of<T>(dqkv), partial, i32(pos), r, s, tokens, (int)rows, whole);
    });
    if (partial) cuda_add_column_sums(d, dbias, partial, blocks, width);
    arena_rewind(&d->scratch, mark);
}
