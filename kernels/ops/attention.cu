// Causal grouped-query attention over packed sequences, forward (attention.cuh; Dao et al. 2022); backward is in
// attention_bwd.cu, and the kernel for Hopper's own instructions in attention_hopper.cu.
//
//   y[t,h] = sum over j <= t of p_j v_j[h / group] / sum p_j,  lse[t,h] = log sum e^(s_j),  s_j = q[t,h] k_j / sqrt(d)
//
// The rows of a sequence of n tokens and a kv head are its (position, query head of the group) pairs, n * group of
// them, ordered by position; the keys of a shared prefix (ops.h) come before its own. A block owns a tile of 64 rows
// (f32: 16) and goes through their keys once, in chunks of 64: all query heads of a group share what is loaded, and few
// keys beyond the diagonal are computed in vain. Where d > 128 registers allow a block only 128 of the columns of y,
// and the scores are computed again for each 128. In bf16 the next chunk is loaded while one is used, and a warp keeps
// its queries in registers.
//
// Work: 4 H d T (n + 1)/2 FLOP by the formula, half as much again for p's two parts; bytes: qkv and y once, the rest
// from L2. At n = 512 the floor is the tensor cores' (H d n flop for every 2 H d bytes of y). Measured on an H200
// (0.5B, 16 x 512 tokens): 81 us a layer, where about 30 would be what mma.sync gives.
#include "attention.cuh"
#include "cuda.cuh"

// How many chunks of keys and values shared memory holds: two, so that the next is loaded while one is used; one for
// large heads.
template <int D> constexpr int BUFFERS = D <= 128 ? 2 : 1;
template <int D> constexpr size_t attention_shared() { return (64 + 2 * BUFFERS<D> * CHUNK) * PITCH<D> * sizeof(Bf16); }

// grid (tiles_most, K, D / COLUMNS), block TILE_THREADS; warp w has rows 16 w .. 16 w + 15 of the tile.
template <int D, int COLUMNS>
static __global__ void __launch_bounds__(TILE_THREADS, 2)
    attention_kernel(Bf16 *y, float *lse, const Bf16 *qkv, const int32_t *seq, const int32_t *prefix, int B, int64_t T,
                     Heads h) {
    constexpr int ROWS = 64;
    int column0 = (int)blockIdx.z * COLUMNS;
    SHARED_DYNAMIC(Bf16, q);             // [ROWS, PITCH]
    Bf16 *kv_room = q + ROWS * PITCH<D>; // [BUFFERS, keys then values, CHUNK, PITCH]
    int thread = (int)threadIdx.x, lane = thread % WARP, kv = (int)blockIdx.y;
    clear_rest(y, lse, seq[B], T, (int64_t)h.H * h.d, h.H, (int64_t)blockIdx.x * h.K + kv, (int64_t)gridDim.x * h.K);
    // A sequence's last tiles have the most keys, and are started first.
    Tile tile = find_tile(seq, B, h.group, ROWS, (int64_t)gridDim.x - 1 - blockIdx.x);
    int64_t stride = (int64_t)(h.H + 2 * h.K) * h.d;
    int rows = min(tile.n * h.group - tile.first, ROWS);
    if (rows <= 0) return; // the whole block
    Places at(seq, prefix, tile.b);
    auto token_of = [&](int row) { return over_group(h, tile.first + row); }; // of the sequence's own
    auto sees_of = [&](int row) { return at.before + token_of(row) + 1; };    // keys
    auto head_of = [&](int row) { return kv * h.group + tile.first + row - token_of(row) * h.group; };
    int keys = sees_of(rows - 1);
    const Bf16 *base = qkv + tile.start * stride, *keys_at = qkv + (int64_t)(h.H + kv) * h.d;
    auto room_of = [&](int first) { return kv_room + first / CHUNK % BUFFERS<D> * 2 * CHUNK * PITCH<D>; };
    auto load_chunk = [&](int first) {
        Bf16 *to = room_of(first);
        auto key = [&](int j) { return keys_at + at.token(first + j) * stride; };
        load_rows<D>(to, CHUNK, keys - first, h, thread, TILE_THREADS, key);
        load_rows<D>(to + CHUNK * PITCH<D>, CHUNK, keys - first, h, thread, TILE_THREADS,
                     [&](int j) { return key(j) + (int64_t)h.K * h.d; });
        cp_async_commit();
    };

    int own = thread / WARP * 16; // the warp's first row
    int first_sees = sees_of(min(own, rows - 1)), last_sees = sees_of(min(own + 16, rows) - 1), sees[2];
    float o[COLUMNS / 8][4], m[2], l[2];
    uint32_t x[KEEPS<D> ? D / 16 : 1][4]; // the warp's queries
#pragma unroll
    for (int i = 0; i < 2; i++) {
        sees[i] = sees_of(min(own + i * 8 + lane / 4, rows - 1));
        m[i] = -INFINITY, l[i] = 0;
    }
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) o[i / 4][i % 4] = 0;

    load_rows<D>(q, ROWS, rows, h, thread, TILE_THREADS,
                 [&](int r) { return base + token_of(r) * stride + (int64_t)head_of(r) * h.d; });
    load_chunk(0);
    for (int first = 0; first < keys; first += CHUNK) {
        bool mine = own < rows && first < last_sees, whole = first + CHUNK <= first_sees;
        cp_async_wait<0>();
        __syncthreads(); // this chunk is here, the one before no longer needed
        if (BUFFERS<D> == 2 && first + CHUNK < keys) load_chunk(first + CHUNK);
        const Bf16 *k = room_of(first), *v = k + CHUNK * PITCH<D>;
        if (mine) {
            float s[1][8][4];
            ChunkRows<1> p;
            int n[1][2];
            Scales scales[2];
            if constexpr (KEEPS<D>) {
                if (!first) keep_rows<D>(x, q + own * PITCH<D>);
                dot_kept<D, 8>(s[0], x, k);
            } else {
                dot_rows<D, 1, 8>(s, q + own * PITCH<D>, k);
            }
#pragma unroll
            for (int i = 0; i < 2; i++) n[0][i] = sees[i] - first;
            softmax_chunk<1>(&p, s, n, whole, h.scale2);
#pragma unroll
            for (int i = 0; i < 2; i++) scales[i] = merge(&m[i], &l[i], p.m[0][i], p.l[0][i], h.scale2);
            weigh_values<D, COLUMNS, 1>(p, v + column0, n, whole, [&](int j, const float c[1][2][4]) {
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    float *to = &o[2 * j + i / 4][i % 4];
                    *to = merged(*to, c[0][i / 4][i % 4], scales[i / 2 % 2]);
                }
            });
        }
        if (BUFFERS<D> == 1 && first + CHUNK < keys) {
            __syncthreads();
            load_chunk(first + CHUNK);
        }
    }

#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = own + i * 8 + lane / 4;
        if (row >= rows) continue;
        int64_t out = (int64_t)(tile.start + token_of(row)) * h.H + head_of(row);
        float inverse = 1.0f / l[i];
        if (lane % 4 == 0 && !column0) lse[out] = row_lse(m[i], l[i], h.scale);
#pragma unroll
        for (int j = 0; j < COLUMNS / 8; j++) {
            const float *two = &o[j][i * 2];
            store_two(y + out * h.d, column0 + j * 8 + lane % 4 * 2, two[0] * inverse, two[1] * inverse, h);
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
    auto token_of = [&](int row) { return over_group(h, tile.first + row); }; // of the sequence's own
    auto sees_of = [&](int row) { return at.before + token_of(row) + 1; };    // keys
    auto head_of = [&](int row) { return kv * h.group + tile.first + row - token_of(row) * h.group; };
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
    constexpr int COLUMNS = D < 128 ? D : 128;
    int64_t T = qkv.dim[0], B = seq.dim[0] - 1;
    h.packs = aligned_rows(data_of<Bf16>(qkv), h.d) && aligned_rows(data_of<Bf16>(y), h.d);
    LAUNCH(d, (attention_kernel<D, COLUMNS>), dim3(tiles_most(T, B, h.group, 64), h.K, D / COLUMNS), TILE_THREADS,
           attention_shared<D>(), data_of<Bf16>(y), f32(lse), data_of<Bf16>(qkv), i32(seq), i32(prefix), (int)B, T, h);
}
template <int D>
static void attention_f32(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, Heads h) {
    int64_t T = qkv.dim[0], B = seq.dim[0] - 1;
    LAUNCH(d, attention_f32_kernel<D>, dim3(tiles_most(T, B, h.group, F32_ROWS), h.K), F32_THREADS, f32_shared<D>(),
           f32(y), f32(lse), f32(qkv), i32(seq), i32(prefix), (int)B, T, h);
}

void cuda_attention(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv) {
    Heads h = heads_of(qkv.dim[1], n_kv, qkv.dim[2]);
    heads_check(h, qkv.dim[0]);
    if (qkv.dtype == F32) DISPATCH_HEAD(h.d, D, attention_f32<D>(d, y, lse, qkv, seq, prefix, h));
    else if (!hopper_attention(d, y, lse, qkv, seq, prefix, n_kv))
        DISPATCH_HEAD(h.d, D, attention_bf16<D>(d, y, lse, qkv, seq, prefix, h));
}
