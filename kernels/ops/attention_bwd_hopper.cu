// Backward of attention by Hopper's wgmma in one pass of five products of tiles, for heads of at most 128 columns;
// attention_bwd.cu, which has the formulas, tries this first.
//
// gpu/attention_bwd_hopper.cuh has the pass: a block owns 128 keys of a kv head and goes through the rows that see
// them; dk and dv stay in registers, and each tile of dq is added to sums in scratch, by one block of keys after
// another. Blocks take what they work on by a ticket, the longest first; whoever is waited for has a smaller one, has
// begun, and waits only for smaller ones still: no deadlock, whatever order the card starts blocks in. A group of more
// than four query heads is cut into parts, a block each, whose dk and dv are added in turn as well: two kv heads alone
// would keep too few multiprocessors busy. The bits depend on the sequence and the group alone. Where the sums of dq do
// not fit in scratch, fewer heads are worked on at a time.
//
//   prepare_kernel   lse and delta [H,T], turns = 0, zeros for the tokens of no sequence
//   order_kernel     the tiles of keys, by the number of tiles of rows that see them
//   attention_bwd_hopper_kernel: the above
//   finish_kernel    dq in bf16 out of the sums
//
// Work: 10 H d T (n + 1)/2 FLOP by the formula; with sequences of 512 a quarter more, for tiles on the diagonal. Bytes
// through the second-level cache, for each tile: 32 KiB of q and dy, 32 of dq.
// Prediction for an H200, T = 16384, n = 512 (attention_bwd.cu as predicted there: 0.12 and 0.14 of the limit):
//   a tile of 128 keys, 128 rows, d = 64: 2560 clocks of tensor cores; 1024 of exponentials beside 1300 of issuing, of
//   which 500 lie under dp's product; 400 of barriers: 3750, where d = 128 (64 rows) has half the arithmetic: 3200
//   d = 64, H = 14    a launch of 512 blocks, 36 tiles for the busiest multiprocessor: 71 us; 42 for the other kernels:
//                     330 TFLOP/s, 0.41
//   d = 128, H = 28   scratch holds dq of three kv heads: 2 launches, 144 tiles together: 240 us; 150 for the others:
//                     380 TFLOP/s, 0.48
#include "attention_bwd_hopper.cuh"
#include "hopper_check.cuh"
#include <stdlib.h>

// ---- before ---------------------------------------------------------------------------------------------------------
// Block 128; d / 8 lanes of LANES for each (token, head).
template <int LANES>
static __global__ void prepare_kernel(Bf16 *dqkv, const Bf16 *dy, const Bf16 *y, const float *lse, Pass p) {
    const int64_t thread = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, threads = (int64_t)gridDim.x * blockDim.x;
    const int64_t rows = (int64_t)p.T * p.h.H, each = (rows + threads / LANES - 1) / (threads / LANES);
    const int c = (int)thread % LANES * 8;
    for (int64_t i = thread; i < p.ints; i += threads) p.ticket[i] = 0;
    for (int64_t i = 0; i < each; i++) {
        const int64_t r = i * (threads / LANES) + thread / LANES;
        float sum = 0;
        if (r < rows && c < p.h.d) {
            Pack<Bf16> a = load_pack(dy + r * p.h.d + c), b = load_pack(y + r * p.h.d + c);
#pragma unroll
            for (int e = 0; e < 8; e++) sum = fmaf(to_float(a.x[e]), to_float(b.x[e]), sum);
        }
#pragma unroll
        for (int k = LANES / 2; k; k /= 2) sum += __shfl_xor_sync(FULL, sum, k);
        if (r < rows && c == 0) p.stats[r % p.h.H * p.T + r / p.h.H] = make_float2(-lse[r] * LOG2E, sum);
    }
    const int64_t packs = (int64_t)(p.h.H + 2 * p.h.K) * p.h.d / 8;
    Pack<Bf16> zero = {};
    for (int64_t i = p.seq[p.B] * packs + thread; i < p.T * packs; i += threads) store_pack(dqkv + i * 8, zero);
}

// Block 256: a thread for each tile of keys. Its place is the number of tiles that are longer, or as long and before.
template <int D> static __global__ void order_kernel(Pass p) {
    SHARED_DYNAMIC(int, length); // [key_tiles]
    constexpr int ROWS = Room<D>::ROWS;
    for (int i = (int)threadIdx.x; i < p.key_tiles; i += (int)blockDim.x) {
        int b = 0;
        for (int high = p.B; high - b > 1;) {
            int middle = (b + high) / 2;
            if (p.seq[middle] / KEYS + middle <= i) b = middle;
            else high = middle;
        }
        const int first = (i - p.seq[b] / KEYS - b) * KEYS;
        int tiles = 0;
        if (first < p.seq[b + 1] - p.seq[b])
            for (int s = b; p.sees(s, b); s++)
                tiles += (p.seq[s + 1] - p.seq[s] + ROWS - 1) / ROWS - (s == b ? first / ROWS : 0);
        length[i] = tiles;
    }
    __syncthreads();
    const int own = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (own >= p.key_tiles) return;
    int place = 0;
    for (int i = 0; i < p.key_tiles; i++) place += length[i] > length[own] || (length[i] == length[own] && i < own);
    p.order[place] = own;
}

// ---- after ----------------------------------------------------------------------------------------------------------
// Grid (tiles of rows, heads of the launch), block 256: a thread has of the sums what it had of dq.
template <int D> static __global__ void finish_kernel(Bf16 *dqkv, Pass p) {
    constexpr int ROWS = Room<D>::ROWS;
    const Tile tile = find_tile(p.seq, p.B, 1, ROWS, blockIdx.x);
    const int group = (int)threadIdx.x / WARPGROUP, in_group = (int)threadIdx.x % WARPGROUP;
    const float4 *sums = (const float4 *)(p.dq + ((int64_t)blockIdx.x * gridDim.y + blockIdx.y) * TILE_DQ);
    if (tile.first >= tile.n) return;
    float dq[32];
#pragma unroll
    for (int j = 0; j < 8; j++) {
        float4 x = sums[(group * 8 + j) * 128 + in_group];
        dq[4 * j] = x.x, dq[4 * j + 1] = x.y, dq[4 * j + 2] = x.z, dq[4 * j + 3] = x.w;
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = tile.first + (D == 64 ? group * 64 : 0) + in_group / WARP * 16 + in_group % WARP / 4 + 8 * half;
        Bf16 *to = dqkv + ((int64_t)(tile.start + row) * (p.h.H + 2 * p.h.K) + p.first_head + blockIdx.y) * p.h.d;
#pragma unroll
        for (int c = 0; c < 64; c += 32)
            store_columns(to, row < tile.n, dq + c / 2, half, (D == 64 ? 0 : group * 64) + c, p.h.scale, p.h.d);
    }
}

// ---- the launcher ---------------------------------------------------------------------------------------------------
// Bytes of scratch for the sums of a launch of so many kv heads (0: one part of one): of dq, and of dk and dv.
static size_t sums_bytes(const Pass &p, int kv_heads) {
    const int heads = kv_heads ? kv_heads * p.h.group : (p.h.group + p.parts - 1) / p.parts;
    return (size_t)p.row_tiles * heads * TILE_DQ;
}
template <int D> static size_t parts_bytes(const Pass &p, int kv_heads) {
    return p.parts > 1 ? (size_t)(kv_heads ? kv_heads : 1) * p.key_tiles * KEYS * D * 2 * sizeof(float) : 0;
}

template <int D>
static bool backward(Device *d, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix,
                     Heads h) {
    typedef Room<D> R;
    Pass p = {};
    TensorMap map_qkv, map_dy;
    p.h = h, p.seq = i32(seq), p.prefix = i32(prefix), p.B = (int)seq.dim[0] - 1, p.T = (int)qkv.dim[0];
    p.key_tiles = (int)tiles_most(p.T, p.B, 1, KEYS), p.row_tiles = (int)tiles_most(p.T, p.B, 1, R::ROWS);
    p.parts = (h.group + PART - 1) / PART;
    const int units = h.K * p.parts;
    p.ints = units + p.row_tiles * h.H + p.key_tiles * h.K * 2;
    const size_t stats = (size_t)p.T * h.H * sizeof(float2), order = (size_t)p.key_tiles * sizeof(int),
                 ints = (size_t)p.ints * sizeof(int);
    int kv_heads = h.K; // of a launch
    auto fits = [&] {
        return stats + order + ints + parts_bytes<D>(p, kv_heads) + sums_bytes(p, kv_heads) + 5 * ARENA_ALIGN <=
               d->scratch.cap - d->scratch.used;
    };
    while (kv_heads && !fits()) kv_heads--;
    if (!fits() || order > 32 * 1024 || !hopper_map_heads(&map_qkv, qkv, R::ROWS) ||
        !hopper_map_heads(&map_dy, dy, R::ROWS))
        return false;
    const size_t mark = arena_mark(&d->scratch);
    p.stats = (float2 *)arena_take(&d->scratch, stats);
    p.order = (int *)arena_take(&d->scratch, order);
    p.ticket = (int *)arena_take(&d->scratch, ints);
    p.dq_turn = p.ticket + units, p.dkv_turn = p.dq_turn + p.row_tiles * h.H;
    p.dkv = (float4 *)arena_take(&d->scratch, parts_bytes<D>(p, kv_heads));
    p.dq = (char *)arena_take(&d->scratch, sums_bytes(p, kv_heads));
    LAUNCH(d, prepare_kernel<D / 8>, grid_for(d, (int64_t)p.T * h.H, 128 / (D / 8)), 128, 0, data_of<Bf16>(dqkv),
           data_of<Bf16>(dy), data_of<Bf16>(y), f32(lse), p);
    LAUNCH(d, order_kernel<D>, blocks_for(p.key_tiles, 256), 256, order, p);
    for (p.units = kv_heads ? kv_heads * p.parts : 1; p.first < units; p.first += p.units, p.ticket++) {
        if (p.units > units - p.first) p.units = units - p.first;
        p.first_head = p.part_begins(p.first), p.n_heads = p.part_begins(p.first + p.units) - p.first_head;
        LAUNCH(d, attention_bwd_hopper_kernel<D>, (unsigned)(p.key_tiles * p.units), THREADS, R::BYTES,
               data_of<Bf16>(dqkv), map_qkv, map_dy, p);
        LAUNCH(d, finish_kernel<D>, dim3((unsigned)p.row_tiles, (unsigned)p.n_heads), 2 * WARPGROUP, 0,
               data_of<Bf16>(dqkv), p);
    }
    arena_rewind(&d->scratch, mark);
    return true;
}

bool hopper_attention_bwd(Device *d, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv, Tensor seq,
                          Tensor prefix, int n_kv) {
    const Heads h = heads_of(qkv.dim[1], n_kv, qkv.dim[2]);
    if (!HOPPER_USES(d, attention_bwd) || qkv.dtype != BF16 || h.d > 128 || seq.dim[0] < 2 || qkv.dim[0] > INT32_MAX ||
        !aligned_rows(data_of<Bf16>(qkv), h.d) || !aligned_rows(data_of<Bf16>(dy), h.d) ||
        !aligned_rows(data_of<Bf16>(y), h.d) || !aligned_rows(data_of<Bf16>(dqkv), h.d))
        return false;
    return h.d <= 64 ? backward<64>(d, dqkv, dy, y, lse, qkv, seq, prefix, h)
                     : backward<128>(d, dqkv, dy, y, lse, qkv, seq, prefix, h);
}

// ---- the check at open ----------------------------------------------------------------------------------------------
// The norm of the difference between two tensors of bf16, over that of the first; waits for the device.
static double distance(Device *d, Tensor a, Tensor b) {
    const int64_t n = tensor_numel(a);
    uint16_t *host = (uint16_t *)xcalloc((size_t)n, 2 * sizeof *host);
    d->copy(d, host, a.data, tensor_bytes(a));
    d->copy(d, host + n, b.data, tensor_bytes(b));
    double apart = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        double x = bf16_to_f32(host[i]), y = bf16_to_f32(host[n + i]);
        apart += (x - y) * (x - y), size += x * x;
    }
    free(host);
    return sqrt(apart / size);
}
// Whether heads of size D have the portable kernel's gradients, but for rounding: a prefix of two tiles of keys, and a
// group of two parts.
template <int D> static bool alike(Device *d) {
    const int32_t seq[] = {0, 130, 140}, prefix[] = {-1, 0};
    const int64_t T = 141, H = 5, K = 1;
    const size_t mark = arena_mark(&d->scratch);
    auto heads = [&](Tensor x, int64_t n) { return tensor3(x.data, x.dtype, T, n, D); };
    Tensor qkv = heads(hopper_draw(d, T, (H + 2 * K) * D, 1, 1), H + 2 * K);
    Tensor dy = heads(hopper_draw(d, T, H * D, 1, 2), H), y = heads(hopper_take(d, BF16, T, H * D), H);
    Tensor wanted = heads(hopper_take(d, BF16, T, (H + 2 * K) * D), H + 2 * K);
    Tensor got = heads(hopper_take(d, BF16, T, (H + 2 * K) * D), H + 2 * K), lse = hopper_take(d, F32, T, H);
    Tensor starts = tensor1(arena_take(&d->scratch, sizeof seq), I32, 3);
    Tensor from = tensor1(arena_take(&d->scratch, sizeof prefix), I32, 2);
    d->copy(d, starts.data, seq, sizeof seq);
    d->copy(d, from.data, prefix, sizeof prefix);
    cuda_attention(d, y, lse, qkv, starts, from, K);
    cuda_attention_bwd(d, wanted, dy, y, lse, qkv, starts, from, K); // the portable one: this is not in use yet
    const bool made = backward<D>(d, got, dy, y, lse, qkv, starts, from, heads_of(H + 2 * K, K, D));
    const bool same = made && distance(d, wanted, got) < 0x1p-6; // false for NaN, too
    arena_rewind(&d->scratch, mark);
    return same && !d->error[0];
}

HopperState hopper_check_attention_bwd(Device *d) {
    HopperState fits = hopper_fits(d, (const void *)attention_bwd_hopper_kernel<128>,
                                   Room<128>::BYTES > Room<64>::BYTES ? Room<128>::BYTES : Room<64>::BYTES);
    if (fits != HOPPER_USED) return fits;
    return alike<64>(d) && alike<128>(d) ? HOPPER_USED : HOPPER_DIFFERS;
}
