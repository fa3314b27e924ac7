// Backward of attention by Hopper's wgmma in one pass of five products of tiles, for heads of at most 128 columns;
// attention_bwd.cu, which has the formulas, tries this first.
//
// A block owns 128 keys of a kv head, 64 for each of two warpgroups, and goes through the rows that see them in tiles
// of ROWS positions of one query head: 128 for heads of 64 columns, 64 for larger ones. Keys are on the side of 64, so
// that p and ds come out of the products that make them as the operands of those for dv and dk, in registers:
//
//   s = k q^T, dp = v dy^T     p = 2^(s scale2 - lse log2(e)), ds = p (dp - delta)     dv += p dy, dk += ds q
//
// ds also goes to shared memory, where both warpgroups read it across for the tile's dq = ds^T k over all 128 keys. The
// third warpgroup brings boxes of q and dy, lse and delta, and adds dq to the sums in scratch by bulk copies, which are
// added in the second-level cache. The orders are fixed: a tile of dq is added to by the keys' blocks in ascending
// order, the shared prefix's first, each waiting for its turn (turn_wait). So that this takes no time, all go through
// the rows of a sequence from the last to the first: a block is a tile or two behind the one before it.
// Blocks take what they work on by a ticket, the longest first; whoever is waited for has a smaller one, has begun, and
// waits only for smaller ones still: no deadlock, whatever order the card starts blocks in.
// A group of more than four query heads is cut into parts, a block each, whose dk and dv are added in turn as well: two
// kv heads alone would keep too few multiprocessors busy. The bits depend on the sequence and the group alone.
// Where the sums of dq do not fit in scratch, fewer heads are worked on at a time.
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
//   d = 64, H = 14    2 launches of 256 blocks, 19 tiles long: 81 us; 42 for the other kernels: 300 TFLOP/s, 0.38
//   d = 128, H = 28   scratch holds one part at a time: 8 launches of 128 blocks, the longest 32 tiles: 410 us; 160 for
//                     the others: 260 TFLOP/s, 0.33; with T = 8192 three parts fit, and it should be 0.42
#include "attention.cuh"
#include "hopper_check.cuh"
#include "hopper_tile.cuh"
#include <stdlib.h>

#define KEYS    128 // of a block
#define STAGES  2   // tiles of rows in shared memory
#define THREADS (3 * WARPGROUP)
#define TILE_DQ (32 << 10) // bytes of a tile's sums
#define PART    4          // query heads of a part of a group, at most

// What a block works on; in shared memory, because the warps that bring and add have few registers.
struct Work {
    int number, unit, kv, head0, head1; // the tile of keys; the part, its kv head, its query heads head0 .. head1 - 1
    int owner, start, first, keys;      // the keys' sequence, its first token, the first of the keys, how many
};

template <int D> struct Room { // offsets in shared memory
    static constexpr int ROWS = D == 64 ? 128 : 64, BOXES = D / BOX_COLUMNS;
    static constexpr int KEY_BOX = KEYS * ROW_BYTES, ROW_BOX = ROWS * ROW_BYTES, STAGE = 2 * BOXES * ROW_BOX;
    static constexpr bool EARLY = D > 64;          // whether there are registers to begin dv before ds is made
    static constexpr int DS = ROWS / 64 * KEY_BOX; // bytes of a tile's ds: boxes of 64 rows, across
    static constexpr int K = 0, V = BOXES * KEY_BOX, Q = 2 * V, DS_AT = Q + STAGES * STAGE, DQ = DS_AT + 2 * DS,
                         STATS = DQ + TILE_DQ, BARRIERS = STATS + STAGES * 2 * ROWS * (int)sizeof(float),
                         WORK = BARRIERS + (2 * STAGES + 3) * (int)sizeof(Mbarrier), BYTES = WORK + (int)sizeof(Work);
};

// What all kernels of a call know.
struct Pass {
    float2 *stats; // [H,T]: -lse log2(e), delta
    char *dq;      // [tiles of rows, heads of the launch, TILE_DQ]: sums as the warpgroups' registers have them
    float4 *dkv;   // [kv heads of the launch, tiles of keys, 2 warpgroups, D / 4, 128], likewise
    int *order;    // [tiles of keys]: the longest first
    int *ticket;   // [1] for each launch
    int *dq_turn;  // [tiles of rows, H]: blocks that have added to it
    int *dkv_turn; // [tiles of keys, K, 2]: parts that have
    const int32_t *seq, *prefix;
    int B, T, key_tiles, row_tiles, ints; // ints: of the three above
    Heads h;
    int parts;               // of a group
    int first, units;        // of the launch: its parts, counted over all kv heads
    int first_head, n_heads; // their query heads
    __host__ __device__ __forceinline__ int part_begins(int unit) const { // its first query head
        return unit / parts * h.group + unit % parts * h.group / parts;
    }
    __device__ __forceinline__ bool sees(int b, int of) const {
        return b == of || (prefix && b < B && prefix[b] == of);
    }
};

// The rows that see the keys of a tile, tile by tile: of the keys' own sequence, then of those that go on from it; in
// each the last first; of a tile's heads the first first.
template <int D> struct Steps {
    static constexpr int ROWS = Room<D>::ROWS;
    const Pass &p;
    const Work &w;
    int b, start, n, tile, head; // the sequence (-1: no more), its first token, its tokens
    __device__ __forceinline__ Steps(const Pass &p, const Work &w) : p(p), w(w), b(w.owner) { enter(); }
    __device__ __forceinline__ bool there() const { return b >= 0; }
    __device__ __forceinline__ void enter() { // sequence b, or the next one that has rows
        for (; p.sees(b, w.owner); b++) {
            start = p.seq[b], n = p.seq[b + 1] - start, tile = (n + ROWS - 1) / ROWS - 1, head = w.head0;
            if (tile >= least()) return;
        }
        b = -1;
    }
    __device__ __forceinline__ void next() {
        if (++head < w.head1) return;
        head = w.head0;
        if (--tile >= least()) return;
        b++;
        enter();
    }
    __device__ __forceinline__ int least() const { return b == w.owner ? w.first / ROWS : 0; }
    __device__ __forceinline__ int row_tile() const { return start / ROWS + b + tile; } // as find_tile numbers them
};

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

// ---- the pass -------------------------------------------------------------------------------------------------------
// Sets the rows from `live` on of boxes to 0, by both warpgroups. The caller waits for all of them.
template <int ROWS> static __device__ __forceinline__ void clear_rows(char *boxes, int count, int live) {
    for (int i = (int)threadIdx.x; i < count * ROWS * ROW_PACKS; i += 2 * WARPGROUP)
        if (i / ROW_PACKS % ROWS >= live) *(uint4 *)(boxes + i * 16) = make_uint4(0, 0, 0, 0);
}
static __device__ __forceinline__ void both_groups() {
    shared_for_wgmma();
    group_sync(1, 2 * WARPGROUP);
}

// x[64,8 N] as accumulators rounded to bf16: fragments of A, 16 columns each.
template <int R> static __device__ __forceinline__ void fragments(uint32_t (&a)[R / 8][4], const float (&x)[R]) {
#pragma unroll
    for (int i = 0; i < R / 2; i++) a[i / 4][i % 4] = pack_bf16(x[2 * i], x[2 * i + 1]);
}

// Adds the sums of the parts before, and keeps them for the part after. False where there is one.
template <int D>
static __device__ bool add_parts(const Pass &p, const Work &w, int group, float (&dk)[D / 2], float (&dv)[D / 2]) {
    const int part = w.unit % p.parts, in_group = (int)threadIdx.x % WARPGROUP;
    int *turn = p.dkv_turn + ((int64_t)w.number * p.h.K + w.kv) * 2 + group;
    float4 *kept = p.dkv + (((int64_t)(w.kv - p.first / p.parts) * p.key_tiles + w.number) * 2 + group) * (D / 4) * 128;
    if (part > 0) {
        if (in_group == 0) turn_wait(turn, part);
        group_sync(2 + group, WARPGROUP);
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            float4 a = __ldcg(kept + j * 128 + in_group), b = __ldcg(kept + (D / 8 + j) * 128 + in_group);
            dk[4 * j] += a.x, dk[4 * j + 1] += a.y, dk[4 * j + 2] += a.z, dk[4 * j + 3] += a.w;
            dv[4 * j] += b.x, dv[4 * j + 1] += b.y, dv[4 * j + 2] += b.z, dv[4 * j + 3] += b.w;
        }
    }
    if (part == p.parts - 1) return true;
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
        kept[j * 128 + in_group] = make_float4(dk[4 * j], dk[4 * j + 1], dk[4 * j + 2], dk[4 * j + 3]);
        kept[(D / 8 + j) * 128 + in_group] = make_float4(dv[4 * j], dv[4 * j + 1], dv[4 * j + 2], dv[4 * j + 3]);
    }
    __threadfence();
    group_sync(2 + group, WARPGROUP);
    if (in_group == 0) turn_pass(turn, part + 1);
    return false;
}

// Stores a row's columns 32 c + 0 .. 31 of x[64,..], times scale, for row l / 4 + 8 half of the warp's 16; all four
// lanes of a row call it.
static __device__ __forceinline__ void store_columns(Bf16 *row, bool live, const float *x, int half, int column,
                                                     float scale, int d) {
    uint32_t v[4];
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] = pack_bf16(x[4 * j + 2 * half] * scale, x[4 * j + 2 * half + 1] * scale);
    quad_transpose(v);
    column += (int)threadIdx.x % 4 * 8;
    if (live && column < d) *(uint4 *)(row + column) = make_uint4(v[0], v[1], v[2], v[3]);
}

// Brings keys and values, then the boxes of q and dy; one thread.
template <int D>
static __device__ __forceinline__ void bring_boxes(char *shared, const TensorMap *qkv, const TensorMap *dy,
                                                   const Pass &p, const Work &w) {
    typedef Room<D> R;
    Mbarrier *full = (Mbarrier *)(shared + R::BARRIERS), *empty = full + STAGES, *keys = empty + STAGES;
    mbarrier_expect(keys, 2 * R::BOXES * R::KEY_BOX);
    for (int i = 0; i < 2 * R::BOXES; i++)
        for (int r = 0; r < KEYS; r += R::ROWS)
            tensor_copy_3d(shared + i * R::KEY_BOX + r * ROW_BYTES, qkv, w.start + w.first + r,
                           p.h.H + i / R::BOXES * p.h.K + w.kv, i % R::BOXES * BOX_COLUMNS, keys);
    int slot = 0, phase = 0;
    for (Steps<D> step(p, w); step.there(); step.next()) {
        char *stage = shared + R::Q + slot * R::STAGE;
        mbarrier_wait(empty + slot, phase ^ 1);
        mbarrier_expect(full + slot, R::STAGE);
        for (int i = 0; i < 2 * R::BOXES; i++)
            tensor_copy_3d(stage + i * R::ROW_BOX, i < R::BOXES ? qkv : dy, step.start + step.tile * R::ROWS, step.head,
                           i % R::BOXES * BOX_COLUMNS, full + slot);
        if (++slot == STAGES) slot = 0, phase ^= 1;
    }
}
// Brings the rows' lse and delta; 64 threads, of which this one is number `thread`.
template <int D>
static __device__ __forceinline__ void bring_stats(char *shared, const Pass &p, const Work &w, int thread) {
    typedef Room<D> R;
    Mbarrier *full = (Mbarrier *)(shared + R::BARRIERS), *empty = full + STAGES;
    int slot = 0, phase = 0;
    for (Steps<D> step(p, w); step.there(); step.next()) {
        float *less = (float *)(shared + R::STATS) + slot * 2 * R::ROWS, *delta = less + R::ROWS;
        mbarrier_wait(empty + slot, phase ^ 1);
#pragma unroll
        for (int r = thread; r < R::ROWS; r += 64) {
            const int row = step.tile * R::ROWS + r;
            float2 x = make_float2(-INFINITY, 0); // p = 0
            if (row < step.n) x = p.stats[(int64_t)step.head * p.T + step.start + row];
            less[r] = x.x, delta[r] = x.y;
        }
        mbarrier_arrive(full + slot);
        if (++slot == STAGES) slot = 0, phase ^= 1;
    }
}

// Adds each tile's dq to its sums, in turn; one thread.
template <int D> static __device__ __forceinline__ void add_dq(char *shared, const Pass &p, const Work &w) {
    typedef Room<D> R;
    Mbarrier *full = (Mbarrier *)(shared + R::BARRIERS) + 2 * STAGES + 1, *empty = full + 1;
    int phase = 0;
    for (Steps<D> step(p, w); step.there(); step.next(), phase ^= 1) {
        int prefix = p.prefix ? p.prefix[step.b] : -1, before = 0; // blocks that add before this one
        if (step.b != w.owner) prefix = -1;
        if (prefix >= 0) before = (p.seq[prefix + 1] - p.seq[prefix] + KEYS - 1) / KEYS;
        before += w.first / KEYS;
        int *turn = p.dq_turn + (int64_t)step.row_tile() * p.h.H + step.head;
        char *sums = p.dq + ((int64_t)step.row_tile() * p.n_heads + step.head - p.first_head) * TILE_DQ;
        if (before) turn_wait(turn, before);
        mbarrier_wait(full, phase);
        if (before) bulk_add((float *)sums, shared + R::DQ, TILE_DQ);
        else bulk_store(sums, shared + R::DQ, TILE_DQ);
        bulk_commit();
        bulk_wait_read();
        mbarrier_arrive(empty);
        bulk_wait();
        turn_pass(turn, before + 1);
    }
}

template <int D>
static __device__ __forceinline__ void multiply(char *shared, Bf16 *dqkv, const Pass &p, const Work &w) {
    typedef Room<D> R;
    constexpr int ROWS = R::ROWS;
    Mbarrier *full = (Mbarrier *)(shared + R::BARRIERS), *empty = full + STAGES, *keys_here = empty + STAGES,
             *dq_full = keys_here + 1, *dq_empty = dq_full + 1;
    const int group = (int)threadIdx.x / WARPGROUP, in_group = (int)threadIdx.x % WARPGROUP, lane = in_group % WARP,
              q4 = lane % 4;
    const int key = group * 64 + in_group / WARP * 16 + lane / 4; // this thread's rows of s are it and the 8th after it
    const int keys = w.keys;
    char *k = shared + R::K, *v = shared + R::V;
    float dk[D / 2], dv[D / 2];
#pragma unroll
    for (int i = 0; i < D / 2; i++) dk[i] = dv[i] = 0;
    mbarrier_wait(keys_here, 0);
    if (keys < KEYS) {
        clear_rows<KEYS>(k, 2 * R::BOXES, keys);
        both_groups();
    }
    int slot = 0, phase = 0, turn = 0;
#pragma unroll 1
    for (Steps<D> step(p, w); step.there(); step.next(), turn ^= 1) {
        char *q = shared + R::Q + slot * R::STAGE, *g = q + R::BOXES * R::ROW_BOX,
             *shared_ds = shared + R::DS_AT + turn * R::DS;
        const float *less = (const float *)(shared + R::STATS) + slot * 2 * ROWS + 2 * q4, *delta = less + ROWS;
        const int row = step.tile * ROWS;
        float s[ROWS / 2], ds[ROWS / 2];
        mbarrier_wait(full + slot, phase);
        if (step.n - row < ROWS) { // the rest of the boxes belongs to others
            clear_rows<ROWS>(q, 2 * R::BOXES, step.n - row);
            both_groups();
        }
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < D / 16; i++)
            wgmma<ROWS>(s, k + i / 4 * R::KEY_BOX + group * 64 * ROW_BYTES + i % 4 * 32,
                        q + i / 4 * R::ROW_BOX + i % 4 * 32, i > 0);
        wgmma_commit();
#pragma unroll
        for (int i = 0; i < D / 16; i++)
            wgmma<ROWS>(ds, v + i / 4 * R::KEY_BOX + group * 64 * ROW_BYTES + i % 4 * 32,
                        g + i / 4 * R::ROW_BOX + i % 4 * 32, i > 0);
        wgmma_commit();
        // Column c of s sees the keys of the block below limit + c rise.
        const bool own = step.b == w.owner, masked = own ? row < w.first + KEYS : keys < KEYS;
        const int rise = own, limit = own ? row + 1 - w.first : keys;
        auto sees = [&](int i) { return key + i / 2 % 2 * 8 < limit + (i / 4 * 8 + 2 * q4 + i % 2) * rise; };
        wgmma_wait<1>();
        wgmma_settle(s);
#pragma unroll
        for (int i = 0; i < ROWS / 2; i += 4) {
            const float2 x = *(const float2 *)(less + i * 2);
#pragma unroll
            for (int e = 0; e < 4; e++) s[i + e] = exp2_approx(fmaf(s[i + e], p.h.scale2, e % 2 ? x.y : x.x));
        }
        if (masked)
#pragma unroll
            for (int i = 0; i < ROWS / 2; i++) s[i] = sees(i) ? s[i] : 0;
        uint32_t a[ROWS / 16][4], b[ROWS / 16][4];
        auto add_dv = [&] {
            fragments(a, s);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < ROWS / 16; i++) wgmma_kept<D, true>(dv, a[i], g + i * 16 * ROW_BYTES, R::ROW_BOX, true);
            wgmma_commit();
        };
        if (R::EARLY) add_dv();
        wgmma_wait<R::EARLY>();
        wgmma_settle(ds);
#pragma unroll
        for (int i = 0; i < ROWS / 2; i += 4) {
            const float2 x = *(const float2 *)(delta + i * 2);
#pragma unroll
            for (int e = 0; e < 4; e++) ds[i + e] = s[i + e] * (ds[i + e] - (e % 2 ? x.y : x.x));
        }
        if (masked)
#pragma unroll
            for (int i = 0; i < ROWS / 2; i++) ds[i] = sees(i) ? ds[i] : 0;
        fragments(b, ds);
#pragma unroll
        for (int i = 0; i < ROWS / 4; i++) { // columns i / 2 * 8 + 2 q4, + 1, of row key + i % 2 * 8
            const int at = key + i % 2 * 8;
            *(uint32_t *)(shared_ds + i / 16 * R::KEY_BOX + at * ROW_BYTES + (i / 2 % 8 ^ at % 8) * 16 + q4 * 4) =
                b[i / 4][i % 4];
        }
        if (!R::EARLY) add_dv();
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < ROWS / 16; i++) wgmma_kept<D, true>(dk, b[i], q + i * 16 * ROW_BYTES, R::ROW_BOX, true);
        wgmma_commit();
        both_groups();
        float dq[32]; // 64 rows: those of the warpgroup, or of its 64 columns all
        const char *rows_ds = D == 64 ? shared_ds + group * R::KEY_BOX : shared_ds,
                   *columns_k = D == 64 ? k : k + group * R::KEY_BOX;
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < KEYS / 16; i++)
            wgmma_across<64, true, true>(dq, rows_ds + i * 16 * ROW_BYTES, columns_k + i * 16 * ROW_BYTES, R::KEY_BOX,
                                         i > 0);
        wgmma_commit();
        wgmma_wait<1>();
        wgmma_settle(dk);
        wgmma_settle(dv);
        if (lane == 0) mbarrier_arrive(empty + slot);
        if (++slot == STAGES) slot = 0, phase ^= 1;
        mbarrier_wait(dq_empty, turn ^ 1);
        wgmma_wait<0>();
        wgmma_settle(dq);
        float4 *to = (float4 *)(shared + R::DQ) + group * 8 * 128 + in_group;
#pragma unroll
        for (int j = 0; j < 8; j++) to[j * 128] = make_float4(dq[4 * j], dq[4 * j + 1], dq[4 * j + 2], dq[4 * j + 3]);
        shared_for_wgmma();
        __syncwarp();
        if (lane == 0) mbarrier_arrive(dq_full);
    }
    if (p.parts > 1 && !add_parts<D>(p, w, group, dk, dv)) return;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int mine = key + 8 * half;
        Bf16 *to = dqkv + ((int64_t)(w.start + w.first + mine) * (p.h.H + 2 * p.h.K) + p.h.H + w.kv) * p.h.d;
#pragma unroll
        for (int c = 0; c < D; c += 32) {
            store_columns(to, mine < keys, dk + c / 2, half, c, p.h.scale, p.h.d);
            store_columns(to + (int64_t)p.h.K * p.h.d, mine < keys, dv + c / 2, half, c, 1, p.h.d);
        }
    }
}

// Grid: tiles of keys times the launch's parts. Two warpgroups multiply; of the third one brings boxes, one
// adds dq, and two bring lse and delta.
template <int D>
static __global__ void __launch_bounds__(THREADS, 1)
    attention_bwd_hopper_kernel(Bf16 *dqkv, const __grid_constant__ TensorMap qkv, const __grid_constant__ TensorMap dy,
                                const __grid_constant__ Pass p) {
    typedef Room<D> R;
    SHARED_BOXES(shared);
    Mbarrier *barrier = (Mbarrier *)(shared + R::BARRIERS);
    Work *w = (Work *)(shared + R::WORK);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(barrier + i, 1 + 2 * WARP); // full: the copies, and the stores of lse and delta
            mbarrier_init(barrier + STAGES + i, 2 * WARPGROUP / WARP); // empty
        }
        mbarrier_init(barrier + 2 * STAGES, 1);                        // keys and values are here
        mbarrier_init(barrier + 2 * STAGES + 1, 2 * WARPGROUP / WARP); // a tile's dq is made
        mbarrier_init(barrier + 2 * STAGES + 2, 1);                    // and read
        mbarrier_init_done();
    }
    if (threadIdx.x < WARP) {
        const int ticket = __shfl_sync(FULL, threadIdx.x ? 0 : atomicAdd(p.ticket, 1), 0);
        const int number = p.order[ticket / p.units], unit = p.first + ticket % p.units;
        const Tile tile = find_tile(p.seq, p.B, 1, KEYS, number);
        if (threadIdx.x == 0)
            *w = {number, unit,       unit / p.parts, p.part_begins(unit),           p.part_begins(unit + 1),
                  tile.b, tile.start, tile.first,     min(tile.n - tile.first, KEYS)};
    }
    __syncthreads();
    if (w->keys <= 0) return; // the whole block
    if (threadIdx.x >= 2 * WARPGROUP) {
        registers_give<24>();
        const int thread = (int)threadIdx.x - 2 * WARPGROUP;
        if (thread == 0) bring_boxes<D>(shared, &qkv, &dy, p, *w);
        if (thread == WARP) add_dq<D>(shared, p, *w);
        if (thread >= 2 * WARP) bring_stats<D>(shared, p, *w, thread - 2 * WARP);
        return;
    }
    registers_take<240>();
    multiply<D>(shared, dqkv, p, *w);
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
