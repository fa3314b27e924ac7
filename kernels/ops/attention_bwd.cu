// Backward of attention.cu (Dao et al. 2022; Dao 2023). With p_ij = e^(s_ij - lse_i), and sums over the pairs in which
// row i sees key j:
//
//   delta_i = sum_c dy_ic y_ic         ds_ij = p_ij (dy_i v_j - delta_i)
//   dv_j = sum_i p_ij dy_i             dk_j = scale sum_i ds_ij q_i             dq_i = scale sum_j ds_ij k_j
//
// Rows i are (position, query head) pairs of a sequence and kv head, as in attention.cu. One block makes the whole of a
// sum, in one order, whatever else is in the batch; the price is to compute p and ds twice (7 products of tiles for the
// formula's 5):
//   delta_kernel   a warp for each (token, head), into scratch
//   dq_kernel      a block owns 64 rows and goes through their keys, ascending
//   dkv_kernel     a block owns 64 keys of a kv head and goes through the rows that see them, ascending by position,
//                  then by query head of the group, whose sum is so made in registers; for a shared prefix first its
//                  own rows, then those of each sequence that shares it
// Where d > 128 (shared memory and registers) tiles are 32 by 32, and a block of dkv_kernel owns 128 of the d columns.
// bf16: on a Hopper card attention_bwd_hopper.cu does it in one pass, for d <= 128. p and ds are rounded to bf16 for
// their products, as dy and the gradients themselves are; sums are f32, by mma.
//
// Work: 14 H d T (n + 1)/2 FLOP as done, 10 by the formula; bytes: qkv, dy, y, dqkv once, the rest from L2. The floor
// is the tensor cores'. Measured on an H200, a training step of 0.5B with 16 x 512 tokens: two buffers, two groups of
// warps (SPLIT) and over_group for divisions, here and in attention.cu, made it 2.6 % faster.
#include "attention.cuh"
#include "cuda.cuh"

// delta[rows] = sum over d of dy[rows,d] y[rows,d]
template <typename T> static __global__ void delta_kernel(float *delta, const T *dy, const T *y, int64_t rows, int d) {
    int warps = TILE_THREADS / WARP, lane = (int)threadIdx.x % WARP;
    for (int64_t r = (int64_t)blockIdx.x * warps + threadIdx.x / WARP; r < rows; r += (int64_t)gridDim.x * warps) {
        float sum = 0;
        for (int c = lane; c < d; c += WARP) sum = fmaf(to_float(dy[r * d + c]), to_float(y[r * d + c]), sum);
        sum = warp_sum(sum);
        if (lane == 0) delta[r] = sum;
    }
}

// The rows of one sequence and kv head.
struct Rows {
    Places places;
    int kv;
    Heads h;
    // A row's token, counted from the sequence's own first; how many keys the row sees; its query head.
    __device__ __forceinline__ int token(int row) const { return over_group(h, row); }
    __device__ __forceinline__ int sees(int row) const { return places.before + token(row) + 1; }
    __device__ __forceinline__ int head(int row) const { return kv * h.group + row - token(row) * h.group; }
    // The row's place in [T, H].
    __device__ __forceinline__ int64_t at(int row) const {
        return (int64_t)(places.start + token(row)) * h.H + head(row);
    }
    // Where head x of the sequence's token t begins in [T, H + 2K, d].
    __device__ __forceinline__ int64_t in_qkv(int t, int x) const {
        return ((int64_t)(places.start + t) * (h.H + 2 * h.K) + x) * h.d;
    }
    // in_qkv for the token at a position, which may be one of the prefix's.
    __device__ __forceinline__ int64_t key_in_qkv(int pos, int x) const {
        return ((int64_t)places.token(pos) * (h.H + 2 * h.K) + x) * h.d;
    }
};

// Whether the rows of sequence b see the keys of sequence `of`.
static __device__ __forceinline__ bool sees_keys(int b, int of, const int32_t *prefix, int B) {
    return b == of || (prefix && b < B && prefix[b] == of);
}

// c[16, 8 N] += a[16, 16 K] b[16 K, 8 N]: c and a as fragments, b in shared memory.
template <int D, int N, int K>
static __device__ __forceinline__ void add_products(float c[N][4], const uint32_t a[K][4], const Bf16 *b) {
    int lane = (int)threadIdx.x % WARP;
    b += lane % 16 * PITCH<D> + lane / 16 * 8;
#pragma unroll
    for (int n = 0; n < N; n += 2)
#pragma unroll
        for (int k = 0; k < K; k++) {
            uint32_t y[4];
            ldmatrix_x4_trans(y, b + k * 16 * PITCH<D> + n * 8);
            mma_bf16(c[n], a[k], y);
            mma_bf16(c[n + 1], a[k], y + 2);
        }
}
template <int N> static __device__ __forceinline__ void clear(float c[N][4]) {
#pragma unroll
    for (int i = 0; i < 4 * N; i++) c[i / 4][i % 4] = 0;
}
// Sets to 0 the gradients of tokens from `from` on, which belong to no sequence.
template <typename T>
static __device__ void clear_rest(T *dqkv, int64_t from, int64_t T_all, int64_t width, int64_t block, int64_t blocks) {
    for (int64_t t = from + block; t < T_all; t += blocks)
        for (int64_t i = (int)threadIdx.x; i < width; i += blockDim.x) dqkv[t * width + i] = from_float<T>(0.0f);
}

// How many rows, or keys, a tile has: 16 for each warp. BUFFERS, below, is how many tiles of the streamed side shared
// memory holds; with two, the next is loaded while one is used.
template <int D> constexpr int TILE = D <= 128 ? 64 : 32;
template <int D, int BUFFERS> constexpr size_t dq_shared() {
    return (2 + 2 * BUFFERS) * TILE<D> * PITCH<D> * sizeof(Bf16);
}

// Computes dq of a tile of queries. Grid (tiles_most, K), block 2 TILE.
template <int D, int BUFFERS>
static __global__ void __launch_bounds__(2 * TILE<D>)
    dq_kernel(Bf16 *dqkv, const Bf16 *dy, const float *lse, const float *delta, const Bf16 *qkv, const int32_t *seq,
              const int32_t *prefix, int B, int64_t T, Heads h) {
    constexpr int ROWS = TILE<D>, THREADS = 2 * ROWS;
    SHARED_DYNAMIC(Bf16, q); // [ROWS, PITCH], and as much for dy; then [BUFFERS, keys and values, ROWS, PITCH]
    Bf16 *g = q + ROWS * PITCH<D>, *kv_room = g + ROWS * PITCH<D>;
    int thread = (int)threadIdx.x, lane = thread % WARP, own = thread / WARP * 16;
    clear_rest(dqkv, seq[B], T, (int64_t)(h.H + 2 * h.K) * h.d, (int64_t)blockIdx.x * h.K + blockIdx.y,
               (int64_t)gridDim.x * h.K);
    Tile tile = find_tile(seq, B, h.group, ROWS, (int64_t)gridDim.x - 1 - blockIdx.x);
    int rows = min(tile.n * h.group - tile.first, ROWS);
    if (rows <= 0) return; // the whole block
    Rows r = {Places(seq, prefix, tile.b), (int)blockIdx.y, h};
    int keys = r.sees(tile.first + rows - 1), last_sees = r.sees(tile.first + min(own + 16, rows) - 1);
    float dq[D / 8][4], less[2], row_delta[2];
    uint32_t xq[KEEPS<D> ? D / 16 : 1][4], xg[KEEPS<D> ? D / 16 : 1][4]; // the warp's rows of q and dy
    int sees[2];
    clear<D / 8>(dq);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = tile.first + min(own + i * 8 + lane / 4, rows - 1);
        sees[i] = r.sees(row);
        less[i] = -lse[r.at(row)] * LOG2E;
        row_delta[i] = delta[r.at(row)];
    }
    auto room_of = [&](int first) { return kv_room + first / ROWS % BUFFERS * 2 * ROWS * PITCH<D>; };
    auto load_keys = [&](int first) {
        Bf16 *to = room_of(first);
        load_rows<D>(to, ROWS, keys - first, h, thread, THREADS,
                     [&](int j) { return qkv + r.key_in_qkv(first + j, h.H + r.kv); });
        load_rows<D>(to + ROWS * PITCH<D>, ROWS, keys - first, h, thread, THREADS,
                     [&](int j) { return qkv + r.key_in_qkv(first + j, h.H + h.K + r.kv); });
        cp_async_commit();
    };
    load_rows<D>(q, ROWS, rows, h, thread, THREADS,
                 [&](int i) { return qkv + r.in_qkv(r.token(tile.first + i), r.head(tile.first + i)); });
    load_rows<D>(g, ROWS, rows, h, thread, THREADS, [&](int i) { return dy + r.at(tile.first + i) * h.d; });
    load_keys(0);
    for (int first = 0; first < keys; first += ROWS) {
        cp_async_wait<0>();
        __syncthreads(); // these keys are here, those before no longer needed
        if (BUFFERS == 2 && first + ROWS < keys) load_keys(first + ROWS);
        const Bf16 *k = room_of(first), *v = k + ROWS * PITCH<D>;
        if constexpr (KEEPS<D>)
            if (!first) {
                keep_rows<D>(xq, q + own * PITCH<D>);
                keep_rows<D>(xg, g + own * PITCH<D>);
            }
#pragma unroll 1
        for (int from = 0; from < ROWS && own < rows && first + from < last_sees; from += 32) { // of the keys
            float s[1][4][4], ds[1][4][4];
            uint32_t a[2][4];
            if constexpr (KEEPS<D>) {
                dot_kept<D, 4>(s[0], xq, k + from * PITCH<D>);
                dot_kept<D, 4>(ds[0], xg, v + from * PITCH<D>);
            } else {
                dot_rows<D, 1, 4>(s, q + own * PITCH<D>, k + from * PITCH<D>);
                dot_rows<D, 1, 4>(ds, g + own * PITCH<D>, v + from * PITCH<D>);
            }
#pragma unroll
            for (int i = 0; i < 16; i++) {
                int key = first + from + i / 4 * 8 + lane % 4 * 2 + i % 2, half = i / 2 % 2;
                float p = exp2_approx(fmaf(s[0][i / 4][i % 4], h.scale2, less[half]));
                float x = p * (ds[0][i / 4][i % 4] - row_delta[half]);
                ds[0][i / 4][i % 4] = key < sees[half] ? x : 0;
            }
            round_fragment<4>(a[0], ds[0], 0);
            round_fragment<4>(a[1], ds[0], 1);
            add_products<D, D / 8, 2>(dq, a, k + from * PITCH<D>);
        }
        if (BUFFERS == 1 && first + ROWS < keys) {
            __syncthreads();
            load_keys(first + ROWS);
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = own + i * 8 + lane / 4;
        if (row >= rows) continue;
        Bf16 *out = dqkv + r.in_qkv(r.token(tile.first + row), r.head(tile.first + row));
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            store_two(out, j * 8 + lane % 4 * 2, dq[j][2 * i] * h.scale, dq[j][2 * i + 1] * h.scale, h);
    }
}

// dkv_kernel has few blocks (one for each tile of keys and kv head), each with many rows to go through. So SPLIT groups
// of warps share a block's rows, a tile of TILE rows for each group in a round, and at the end the first group adds up
// what all have, in the order of the groups.

// Bytes that a round loads: q and dy [SPLIT TILE, PITCH] each, then -lse log2(e), delta and how many keys each row
// sees.
template <int D, int SPLIT> constexpr int ROUND_BYTES = SPLIT *TILE<D> *(2 * PITCH<D> * (int)sizeof(Bf16) + 12);
template <int D, int COLUMNS, int BUFFERS, int SPLIT> constexpr size_t dkv_shared() {
    size_t rounds = 2 * TILE<D> * PITCH<D> * sizeof(Bf16) + BUFFERS * ROUND_BYTES<D, SPLIT>,
           sums = (SPLIT - 1) * TILE<D> * COLUMNS * 2 * sizeof(float);
    return rounds > sums ? rounds : sums;
}

// Computes dk and dv of a tile of keys. Grid (tiles_most of keys, K, D / COLUMNS), block SPLIT 2 TILE.
template <int D, int COLUMNS, int BUFFERS, int SPLIT>
static __global__ void __launch_bounds__(SPLIT * 2 * TILE<D>)
    dkv_kernel(Bf16 *dqkv, const Bf16 *dy, const float *lse, const float *delta, const Bf16 *qkv, const int32_t *seq,
               const int32_t *prefix, int B, Heads h) {
    constexpr int KEYS = TILE<D>, THREADS = SPLIT * 2 * KEYS, ROUND = SPLIT * KEYS;
    constexpr bool KEEP = D <= 64; // dk and dv leave no registers for more
    SHARED_DYNAMIC(Bf16, k);       // [KEYS, PITCH], and as much for v; then the rounds
    Bf16 *v = k + KEYS * PITCH<D>;
    char *rounds = (char *)(v + KEYS * PITCH<D>);
    int thread = (int)threadIdx.x, lane = thread % WARP, own = thread / WARP * 16 % KEYS,
        part0 = thread / (2 * KEYS) * KEYS;
    int column0 = (int)blockIdx.z * COLUMNS;
    // A sequence's first keys are seen by the most rows, and are started first.
    Tile tile = find_tile(seq, B, 1, KEYS, blockIdx.x);
    int key0 = tile.first, keys = min(tile.n - key0, KEYS);
    if (keys <= 0) return; // the whole block
    Rows owner = {Places(seq, prefix, tile.b), (int)blockIdx.y, h};
    int pos0 = owner.places.before + key0;
    float dk[COLUMNS / 8][4], dv[COLUMNS / 8][4];
    uint32_t xk[KEEP ? D / 16 : 1][4], xv[KEEP ? D / 16 : 1][4]; // the warp's keys and values
    clear<COLUMNS / 8>(dk);
    clear<COLUMNS / 8>(dv);
    load_rows<D>(k, KEYS, keys, h, thread, THREADS,
                 [&](int j) { return qkv + owner.in_qkv(key0 + j, h.H + owner.kv); });
    load_rows<D>(v, KEYS, keys, h, thread, THREADS,
                 [&](int j) { return qkv + owner.in_qkv(key0 + j, h.H + h.K + owner.kv); });
    // The rounds go through the rows of all sequences that see these keys: b and first are where the next round begins,
    // `loaded` how many have been loaded. load_round returns false where there is none left.
    int b = tile.b, first = key0 * h.group, loaded = 0;
    auto load_round = [&] {
        while (sees_keys(b, tile.b, prefix, B) && first >= (seq[b + 1] - seq[b]) * h.group) b++, first = 0;
        if (!sees_keys(b, tile.b, prefix, B)) return false;
        Rows r = {Places(seq, prefix, b), (int)blockIdx.y, h};
        int rows = min((seq[b + 1] - seq[b]) * h.group - first, ROUND);
        Bf16 *q = (Bf16 *)(rounds + loaded % BUFFERS * ROUND_BYTES<D, SPLIT>), *g = q + ROUND * PITCH<D>;
        float *less = (float *)(g + ROUND * PITCH<D>), *row_delta = less + ROUND;
        int *sees = (int *)(row_delta + ROUND);
        load_rows<D>(q, ROUND, rows, h, thread, THREADS,
                     [&](int i) { return qkv + r.in_qkv(r.token(first + i), r.head(first + i)); });
        load_rows<D>(g, ROUND, rows, h, thread, THREADS, [&](int i) { return dy + r.at(first + i) * h.d; });
        cp_async_commit();
        if (thread < ROUND) {
            int row = first + min(thread, rows - 1);
            less[thread] = -lse[r.at(row)] * LOG2E;
            row_delta[thread] = delta[r.at(row)];
            sees[thread] = thread < rows ? r.sees(row) : 0;
        }
        first += ROUND, loaded++;
        return true;
    };
    bool there = load_round();
    for (int round = 0; there; round++) {
        cp_async_wait<0>();
        __syncthreads(); // these rows are here, those before no longer needed
        if (BUFFERS == 2) there = load_round();
        const Bf16 *q = (const Bf16 *)(rounds + round % BUFFERS * ROUND_BYTES<D, SPLIT>)+part0 * PITCH<D>,
                   *g = q + ROUND * PITCH<D>;
        const float *less = (const float *)(rounds + round % BUFFERS * ROUND_BYTES<D, SPLIT>)+ROUND * PITCH<D> + part0,
                    *row_delta = less + ROUND;
        const int *sees = (const int *)(row_delta + ROUND);
        if constexpr (KEEP)
            if (!round) {
                keep_rows<D>(xk, k + own * PITCH<D>);
                keep_rows<D>(xv, v + own * PITCH<D>);
            }
            // Rows past the end see no keys, and are the last: where the first of 32 sees none, none does.
#pragma unroll 1
        for (int from = 0; from < KEYS && own < keys && sees[from]; from += 32) {
            float p[1][4][4], ds[1][4][4];
            uint32_t a[2][4];
            if constexpr (KEEP) {
                dot_kept<D, 4>(p[0], xk, q + from * PITCH<D>);
                dot_kept<D, 4>(ds[0], xv, g + from * PITCH<D>);
            } else {
                dot_rows<D, 1, 4>(p, k + own * PITCH<D>, q + from * PITCH<D>);
                dot_rows<D, 1, 4>(ds, v + own * PITCH<D>, g + from * PITCH<D>);
            }
#pragma unroll
            for (int i = 0; i < 16; i++) {
                int row = from + i / 4 * 8 + lane % 4 * 2 + i % 2, key = pos0 + own + i / 2 % 2 * 8 + lane / 4;
                float x = exp2_approx(fmaf(p[0][i / 4][i % 4], h.scale2, less[row]));
                float y = x * (ds[0][i / 4][i % 4] - row_delta[row]);
                p[0][i / 4][i % 4] = key < sees[row] ? x : 0;
                ds[0][i / 4][i % 4] = key < sees[row] ? y : 0;
            }
            round_fragment<4>(a[0], p[0], 0);
            round_fragment<4>(a[1], p[0], 1);
            add_products<D, COLUMNS / 8, 2>(dv, a, g + from * PITCH<D> + column0);
            round_fragment<4>(a[0], ds[0], 0);
            round_fragment<4>(a[1], ds[0], 1);
            add_products<D, COLUMNS / 8, 2>(dk, a, q + from * PITCH<D> + column0);
        }
        if (BUFFERS == 1) {
            __syncthreads();
            there = load_round();
        }
    }
    if (SPLIT > 1) {              // the first group adds the others' sums
        float *sums = (float *)k; // [SPLIT - 1, dk and dv, COLUMNS / 2, 2 KEYS]: a thread's numbers are 2 KEYS apart
        int in_group = thread % (2 * KEYS), group = thread / (2 * KEYS);
        __syncthreads();
        for (int i = 0; group > 0 && i < COLUMNS / 2; i++) {
            sums[((group - 1) * COLUMNS + i) * 2 * KEYS + in_group] = dk[i / 4][i % 4];
            sums[((group - 1) * COLUMNS + COLUMNS / 2 + i) * 2 * KEYS + in_group] = dv[i / 4][i % 4];
        }
        __syncthreads();
        if (group > 0) return;
        for (int s = 0; s < SPLIT - 1; s++)
#pragma unroll
            for (int i = 0; i < COLUMNS / 2; i++) {
                dk[i / 4][i % 4] += sums[(s * COLUMNS + i) * 2 * KEYS + in_group];
                dv[i / 4][i % 4] += sums[(s * COLUMNS + COLUMNS / 2 + i) * 2 * KEYS + in_group];
            }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int key = own + i * 8 + lane / 4;
        if (key >= keys) continue;
        Bf16 *dk_out = dqkv + owner.in_qkv(key0 + key, h.H + owner.kv), *dv_out = dk_out + (int64_t)h.K * h.d;
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; j++) {
            int column = column0 + j * 8 + lane % 4 * 2;
            store_two(dk_out, column, dk[j][2 * i] * h.scale, dk[j][2 * i + 1] * h.scale, h);
            store_two(dv_out, column, dv[j][2 * i], dv[j][2 * i + 1], h);
        }
    }
}

// f32: a block owns 16 rows (or 16 keys) and goes through keys (or rows), STREAM at a time. x and y are q and dy of a
// row, or k and v of a key: either way s = x x' and dp = y y', and the owner's sums are of ds x' and, for keys, of p
// y'.
template <int D> constexpr int STREAM = 4096 / D;
template <int D> constexpr size_t backward_f32_shared() {
    return sizeof(float) * (2 * (F32_ROWS + STREAM<D>)*F32_PITCH<D> + 2 * F32_ROWS * STREAM<D>);
}

// dq or, with KEYS, dk and dv in f32. Grid (tiles_most, K), block F32_THREADS.
template <int D, bool KEYS>
static __global__ void __launch_bounds__(F32_THREADS, 2)
    backward_f32_kernel(float *dqkv, const float *dy, const float *lse, const float *delta, const float *qkv,
                        const int32_t *seq, const int32_t *prefix, int B, int64_t T, Heads h) {
    constexpr int EACH = D / F32_ROWS, STEP = F32_THREADS / D; // a thread owns one column of EACH sums, STEP apart
    SHARED_DYNAMIC(float, x0);                                 // [F32_ROWS, F32_PITCH] each, the owner's
    float *y0 = x0 + F32_ROWS * F32_PITCH<D>;
    float *x1 = y0 + F32_ROWS * F32_PITCH<D>, *y1 = x1 + STREAM<D> * F32_PITCH<D>; // [STREAM, F32_PITCH]
    float *p = y1 + STREAM<D> * F32_PITCH<D>, *ds = p + F32_ROWS * STREAM<D>;      // [F32_ROWS, STREAM]
    int thread = (int)threadIdx.x, column = thread % D, item = thread / D;
    if (!KEYS)
        clear_rest(dqkv, seq[B], T, (int64_t)(h.H + 2 * h.K) * h.d, (int64_t)blockIdx.x * h.K + blockIdx.y,
                   (int64_t)gridDim.x * h.K);
    Tile tile = find_tile(seq, B, KEYS ? 1 : h.group, F32_ROWS, blockIdx.x);
    int first0 = tile.first, own = min((KEYS ? tile.n : tile.n * h.group) - first0, F32_ROWS);
    if (own <= 0) return; // the whole block
    Rows r = {Places(seq, prefix, tile.b), (int)blockIdx.y, h};
    auto row_x = [&](const Rows &q, int row) { return qkv + q.in_qkv(q.token(row), q.head(row)); };
    auto row_y = [&](const Rows &q, int row) { return dy + q.at(row) * h.d; };
    auto key_x = [&](int pos) { return qkv + r.key_in_qkv(pos, h.H + r.kv); };
    auto key_y = [&](int pos) { return qkv + r.key_in_qkv(pos, h.H + h.K + r.kv); };
    int pos0 = r.places.before + first0; // of the first key owned
    load_rows_f32<D>(x0, F32_ROWS, own, h.d, [&](int i) { return KEYS ? key_x(pos0 + i) : row_x(r, first0 + i); });
    load_rows_f32<D>(y0, F32_ROWS, own, h.d, [&](int i) { return KEYS ? key_y(pos0 + i) : row_y(r, first0 + i); });
    float sum_x[EACH], sum_y[EACH];
    for (int i = 0; i < EACH; i++) sum_x[i] = sum_y[i] = 0;
    for (int b = tile.b; b == tile.b || (KEYS && sees_keys(b, tile.b, prefix, B)); b++) {
        Rows q = {Places(seq, prefix, b), (int)blockIdx.y, h}; // the rows gone through (KEYS), or owned
        int begin = KEYS && b == tile.b ? first0 * h.group : 0;
        int end = KEYS ? (seq[b + 1] - seq[b]) * h.group : r.sees(first0 + own - 1);
        for (int first = begin; first < end; first += STREAM<D>) {
            int n = min(end - first, STREAM<D>);
            __syncthreads();
            load_rows_f32<D>(x1, STREAM<D>, n, h.d,
                             [&](int i) { return KEYS ? row_x(q, first + i) : key_x(first + i); });
            load_rows_f32<D>(y1, STREAM<D>, n, h.d,
                             [&](int i) { return KEYS ? row_y(q, first + i) : key_y(first + i); });
            __syncthreads();
            for (int i = thread; i < F32_ROWS * STREAM<D>; i += F32_THREADS) {
                int x = i / STREAM<D>, y = i % STREAM<D>;
                int row = KEYS ? first + y : first0 + x, pos = KEYS ? pos0 + x : first + y;
                p[i] = ds[i] = 0;
                if (x >= own || y >= n || pos >= q.sees(row)) continue;
                p[i] = exp2f(dot_f32(x0 + x * F32_PITCH<D>, x1 + y * F32_PITCH<D>, h.d) * h.scale2 -
                             lse[q.at(row)] * LOG2E);
                ds[i] = p[i] * (dot_f32(y0 + x * F32_PITCH<D>, y1 + y * F32_PITCH<D>, h.d) - delta[q.at(row)]);
            }
            __syncthreads();
            for (int j = 0; j < n && column < h.d; j++) {
                float x = x1[j * F32_PITCH<D> + column], y = y1[j * F32_PITCH<D> + column];
#pragma unroll
                for (int i = 0; i < EACH; i++) {
                    int at = (item + i * STEP) * STREAM<D> + j;
                    sum_x[i] = fmaf(ds[at], x, sum_x[i]);
                    if (KEYS) sum_y[i] = fmaf(p[at], y, sum_y[i]);
                }
            }
        }
    }
    for (int i = 0; i < EACH; i++) {
        int a = item + i * STEP;
        if (a >= own || column >= h.d) continue;
        int64_t out = KEYS ? r.in_qkv(first0 + a, h.H + r.kv) : r.in_qkv(r.token(first0 + a), r.head(first0 + a));
        dqkv[out + column] = sum_x[i] * h.scale;
        if (KEYS) dqkv[out + (int64_t)h.K * h.d + column] = sum_y[i];
    }
}

template <int D, int BUFFERS, int SPLIT>
static void backward_bf16(Device *d, Tensor dqkv, Tensor dy, Tensor lse, float *delta, Tensor qkv, Tensor seq,
                          Tensor prefix, Heads h) {
    constexpr int COLUMNS = D < 128 ? D : 128;
    int64_t T = qkv.dim[0], B = seq.dim[0] - 1;
    h.packs = aligned_rows(data_of<Bf16>(qkv), h.d) && aligned_rows(data_of<Bf16>(dy), h.d) &&
              aligned_rows(data_of<Bf16>(dqkv), h.d);
    LAUNCH(d, (dq_kernel<D, BUFFERS>), dim3(tiles_most(T, B, h.group, TILE<D>), h.K), 2 * TILE<D>,
           (dq_shared<D, BUFFERS>()), data_of<Bf16>(dqkv), data_of<Bf16>(dy), f32(lse), delta, data_of<Bf16>(qkv),
           i32(seq), i32(prefix), (int)B, T, h);
    LAUNCH(d, (dkv_kernel<D, COLUMNS, BUFFERS, SPLIT>), dim3(tiles_most(T, B, 1, TILE<D>), h.K, D / COLUMNS),
           SPLIT * 2 * TILE<D>, (dkv_shared<D, COLUMNS, BUFFERS, SPLIT>()), data_of<Bf16>(dqkv), data_of<Bf16>(dy),
           f32(lse), delta, data_of<Bf16>(qkv), i32(seq), i32(prefix), (int)B, h);
}
// Chooses BUFFERS and SPLIT by the head size and the shared memory that this card gives a block: 96 KiB on every card,
// 227 on those for servers.
template <int D>
static void backward_bf16_here(Device *d, Tensor dqkv, Tensor dy, Tensor lse, float *delta, Tensor qkv, Tensor seq,
                               Tensor prefix, Heads h) {
    constexpr bool ALWAYS = D <= 64, NEVER = D > 128;
    if constexpr (!NEVER)
        if (ALWAYS || ((CudaDevice *)d->backend)->shared > (dkv_shared<D, D, 2, 2>()))
            return backward_bf16<D, 2, 2>(d, dqkv, dy, lse, delta, qkv, seq, prefix, h);
    if constexpr (!ALWAYS) backward_bf16<D, 1, 1>(d, dqkv, dy, lse, delta, qkv, seq, prefix, h);
}
template <int D>
static void backward_f32(Device *d, Tensor dqkv, Tensor dy, Tensor lse, float *delta, Tensor qkv, Tensor seq,
                         Tensor prefix, Heads h) {
    int64_t T = qkv.dim[0], B = seq.dim[0] - 1;
    size_t shared = backward_f32_shared<D>();
    LAUNCH(d, (backward_f32_kernel<D, false>), dim3(tiles_most(T, B, h.group, F32_ROWS), h.K), F32_THREADS, shared,
           f32(dqkv), f32(dy), f32(lse), delta, f32(qkv), i32(seq), i32(prefix), (int)B, T, h);
    LAUNCH(d, (backward_f32_kernel<D, true>), dim3(tiles_most(T, B, 1, F32_ROWS), h.K), F32_THREADS, shared, f32(dqkv),
           f32(dy), f32(lse), delta, f32(qkv), i32(seq), i32(prefix), (int)B, T, h);
}

void cuda_attention_bwd(Device *d, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix,
                        int n_kv) {
    Heads h = heads_of(qkv.dim[1], n_kv, qkv.dim[2]);
    int64_t rows = qkv.dim[0] * h.H;
    heads_check(h, qkv.dim[0]);
    if (hopper_attention_bwd(d, dqkv, dy, y, lse, qkv, seq, prefix, n_kv)) return;
    size_t mark = arena_mark(&d->scratch);
    float *delta = (float *)arena_take(&d->scratch, (size_t)rows * sizeof *delta); // [T,H]
    DISPATCH(y.dtype, T,
             LAUNCH(d, delta_kernel<T>, grid_for(d, rows, TILE_THREADS / WARP), TILE_THREADS, 0, delta, data_of<T>(dy),
                    data_of<T>(y), rows, h.d));
    if (qkv.dtype == F32) DISPATCH_HEAD(h.d, D, backward_f32<D>(d, dqkv, dy, lse, delta, qkv, seq, prefix, h));
    else DISPATCH_HEAD(h.d, D, backward_bf16_here<D>(d, dqkv, dy, lse, delta, qkv, seq, prefix, h));
    arena_rewind(&d->scratch, mark);
}
