// The pass of attention_bwd_hopper.cu: five products of tiles for s, dp, dv, dk and dq.
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
#pragma once
#include "attention.cuh"
#include "hopper_tile.cuh"

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
