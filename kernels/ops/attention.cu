// Causal grouped-query attention over packed sequences, forward (attention.cuh; Dao et al. 2022). Backward: attention_bwd.cu.
//
//   y[t,h] = sum over j <= t of p_j v_j[h / group] / sum p_j,   lse[t,h] = log sum e^(s_j),   s_j = q[t,h] k_j / sqrt(d)
//
// The rows of a sequence of n tokens and a kv head are its (position, query head of the group) pairs, n * group of them,
// positions first; a prefix's keys (ops.h) come before its own. A block owns a tile of 64 rows (f32: 16) and walks their
// keys once, in chunks of 64: all query heads of a group share what is loaded, and few keys beyond the diagonal are
// computed in vain. Where d > 128 it owns 128 of the
// columns of y (registers), and scores are made once for each 128.
// For bf16, K and V have one buffer each: the next keys arrive while values are weighed, the values while scores are made.
//
// Work: 4 H d T (n + 1)/2 FLOP by the formula, half as much again for p's two parts; bytes: qkv and y once, the rest from
// L2. At n = 512 the floor is the tensor cores' (H d n flop for every 2 H d bytes of y).
#include "attention.cuh"

// Rows that belong to no sequence give 0. All blocks take part, this one being number `block` of `blocks`.
template <typename T>
static __device__ void clear_rest(T *y, float *lse, int64_t T_end, int64_t T_all, int64_t width, int H, int64_t block,
                                  int64_t blocks) {
    for (int64_t t = T_end + block; t < T_all; t += blocks) {
        for (int64_t i = (int)threadIdx.x; i < width; i += blockDim.x) y[t * width + i] = from_float<T>(0.0f);
        for (int i = (int)threadIdx.x; i < H; i += (int)blockDim.x) lse[t * H + i] = 0;
    }
}

// grid (tiles_most, K), block TILE_THREADS; warp w has rows 16 M w .. 16 M w + 16 M - 1 of the tile.
template <int D, int COLUMNS, int M>
static __global__ void __launch_bounds__(TILE_THREADS, 2)
    attention_kernel(Bf16 *y, float *lse, const Bf16 *qkv, const int32_t *seq, const int32_t *prefix, int B, int64_t T,
                     Heads h) {
    constexpr int ROWS = 64 * M;
    int column0 = (int)blockIdx.z * COLUMNS;
    SHARED_DYNAMIC(Bf16, q);                                  // [ROWS, PITCH]
    Bf16 *k = q + ROWS * PITCH<D>, *v = k + CHUNK * PITCH<D>; // [CHUNK, PITCH] each
    int thread = (int)threadIdx.x, lane = thread % WARP, kv = (int)blockIdx.y;
    clear_rest(y, lse, seq[B], T, (int64_t)h.H * h.d, h.H, (int64_t)blockIdx.x * h.K + kv, (int64_t)gridDim.x * h.K);
    // The longest tiles of a sequence, its last, come first.
    Tile tile = find_tile(seq, B, h.group, ROWS, (int64_t)gridDim.x - 1 - blockIdx.x);
    int64_t stride = (int64_t)(h.H + 2 * h.K) * h.d;
    int rows = min(tile.n * h.group - tile.first, ROWS);
    if (rows <= 0) return; // the whole block
    Places at(seq, prefix, tile.b);
    auto token_of = [&](int row) { return (tile.first + row) / h.group; }; // of the sequence's own
    auto sees_of = [&](int row) { return at.before + token_of(row) + 1; }; // keys
    auto head_of = [&](int row) { return kv * h.group + (tile.first + row) % h.group; };
    int keys = sees_of(rows - 1);
    const Bf16 *base = qkv + tile.start * stride, *keys_at = qkv + (int64_t)(h.H + kv) * h.d;
    auto load_chunk = [&](Bf16 *to, int first, const Bf16 *from) {
        load_rows<D>(to, CHUNK, keys - first, h, thread, TILE_THREADS,
                     [&](int j) { return from + at.token(first + j) * stride; });
        cp_async_commit();
    };

    int own = thread / WARP * 16 * M; // the warp's first row
    int first_sees = sees_of(min(own, rows - 1)), last_sees = sees_of(min(own + 16 * M, rows) - 1), sees[M][2];
    float o[M][COLUMNS / 8][4], m[M][2], l[M][2];
#pragma unroll
    for (int i = 0; i < M * 2; i++) {
        sees[i / 2][i % 2] = sees_of(min(own + i * 8 + lane / 4, rows - 1));
        m[i / 2][i % 2] = -INFINITY, l[i / 2][i % 2] = 0;
    }
#pragma unroll
    for (int i = 0; i < M * COLUMNS / 2; i++) o[i / (COLUMNS / 2)][i / 4 % (COLUMNS / 8)][i % 4] = 0;

    load_rows<D>(q, ROWS, rows, h, thread, TILE_THREADS,
                 [&](int r) { return base + token_of(r) * stride + (int64_t)head_of(r) * h.d; });
    load_chunk(k, 0, keys_at);
    for (int first = 0; first < keys; first += CHUNK) {
        bool mine = own < rows && first < last_sees, whole = first + CHUNK <= first_sees;
        float s[M][8][4];
        ChunkRows<M> p;
        int n[M][2];
        cp_async_wait<0>();
        __syncthreads(); // the keys are here, the old values no longer needed
        load_chunk(v, first, keys_at + (int64_t)h.K * h.d);
        if (mine) dot_rows<D, M, 8>(s, q + own * PITCH<D>, k);
        cp_async_wait<0>();
        __syncthreads(); // the values are here, the keys no longer needed
        if (first + CHUNK < keys) load_chunk(k, first + CHUNK, keys_at);
        if (!mine) continue;
        Scales scales[M][2];
#pragma unroll
        for (int i = 0; i < M * 2; i++) n[i / 2][i % 2] = sees[i / 2][i % 2] - first;
        softmax_chunk<M>(&p, s, n, whole, h.scale2);
#pragma unroll
        for (int i = 0; i < M * 2; i++)
            scales[i / 2][i % 2] =
                merge(&m[i / 2][i % 2], &l[i / 2][i % 2], p.m[i / 2][i % 2], p.l[i / 2][i % 2], h.scale2);
        weigh_values<D, COLUMNS, M>(p, v + column0, n, whole, [&](int j, const float c[M][2][4]) {
#pragma unroll
            for (int i = 0; i < M * 8; i++) {
                float *x = &o[i / 8][2 * j + i / 4 % 2][i % 4];
                *x = merged(*x, c[i / 8][i / 4 % 2][i % 4], scales[i / 8][i / 2 % 2]);
            }
        });
    }

#pragma unroll
    for (int i = 0; i < M * 2; i++) {
        int row = own + i * 8 + lane / 4;
        if (row >= rows) continue;
        int64_t out = (int64_t)(tile.start + token_of(row)) * h.H + head_of(row);
        float inverse = 1.0f / l[i / 2][i % 2];
        if (lane % 4 == 0 && !column0) lse[out] = row_lse(m[i / 2][i % 2], l[i / 2][i % 2], h.scale);
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; j++) {
            const float *x = &o[i / 2][j][i % 2 * 2];
            store_two(y + out * h.d, column0 + j * 8 + lane % 4 * 2, x[0] * inverse, x[1] * inverse, h);
        }
    }
}

// grid (tiles_most, K), block F32_THREADS
template <int D>
static __global__ void __launch_bounds__(F32_THREADS, 2)
    attention_f32_kernel(float *y, float *lse, const float *qkv, const int32_t *seq, const int32_t *prefix, int B,
                         int64_t T, Heads h) {
    SHARED_DYNAMIC(float, room);
    int kv = (int)blockIdx.y;
    clear_rest(y, lse, seq[B], T, (int64_t)h.H * h.d, h.H, (int64_t)blockIdx.x * h.K + kv, (int64_t)gridDim.x * h.K);
    Tile tile = find_tile(seq, B, h.group, F32_ROWS, (int64_t)gridDim.x - 1 - blockIdx.x);
    int64_t stride = (int64_t)(h.H + 2 * h.K) * h.d;
    int rows = min(tile.n * h.group - tile.first, F32_ROWS);
    if (rows <= 0) return; // the whole block
    Places at(seq, prefix, tile.b);
    auto token_of = [&](int row) { return (tile.first + row) / h.group; }; // of the sequence's own
    auto sees_of = [&](int row) { return at.before + token_of(row) + 1; }; // keys
    auto head_of = [&](int row) { return kv * h.group + (tile.first + row) % h.group; };
    auto out_of = [&](int row) { return (int64_t)(tile.start + token_of(row)) * h.H + head_of(row); };
    const float *base = qkv + tile.start * stride, *keys_at = qkv + (int64_t)(h.H + kv) * h.d;
    attend_f32<D>(
        room, h, rows, sees_of(rows - 1),
        [&](int r) { return base + token_of(r) * stride + (int64_t)head_of(r) * h.d; }, sees_of,
        [&](int j) { return keys_at + at.token(j) * stride; },
        [&](int j) { return keys_at + (int64_t)h.K * h.d + at.token(j) * stride; },
        [&](int r, int c, float x) { y[out_of(r) * h.d + c] = x; }, [&](int r, float x) { lse[out_of(r)] = x; });
}

template <int D>
static void attention_bf16(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, Heads h) {
    constexpr int M = 1, COLUMNS = D < 128 ? D : 128;
    int64_t T = qkv.dim[0], B = seq.dim[0] - 1;
    h.packs = aligned_rows(data_of<Bf16>(qkv), h.d) && aligned_rows(data_of<Bf16>(y), h.d);
    LAUNCH(d, (attention_kernel<D, COLUMNS, M>), dim3(tiles_most(T, B, h.group, 64 * M), h.K, D / COLUMNS),
           TILE_THREADS, (64 * M + 2 * CHUNK) * PITCH<D> * sizeof(Bf16), data_of<Bf16>(y), f32(lse), data_of<Bf16>(qkv),
           i32(seq), i32(prefix), (int)B, T, h);
}
template <int D>
static void attention_f32(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, Heads h) {
    int64_t T = qkv.dim[0], B = seq.dim[0] - 1;
    LAUNCH(d, attention_f32_kernel<D>, dim3(tiles_most(T, B, h.group, F32_ROWS), h.K), F32_THREADS, f32_shared<D>(),
           f32(y), f32(lse), f32(qkv), i32(seq), i32(prefix), (int)B, T, h);
}

void cuda_attention(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv) {
    Heads h = heads_of(qkv.dim[1], n_kv, qkv.dim[2]);
    if (qkv.dtype == F32) DISPATCH_HEAD(h.d, D, attention_f32<D>(d, y, lse, qkv, seq, prefix, h));
    else DISPATCH_HEAD(h.d, D, attention_bf16<D>(d, y, lse, qkv, seq, prefix, h));
}
