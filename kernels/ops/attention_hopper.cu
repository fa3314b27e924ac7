// attention, forward, in bf16 by Hopper's wgmma, for heads of up to 128; attention.cu tries this first, and says what
// is computed. The order of every sum is that of attention.cuh, so that decode.cu's bits are these where wgmma sums 16
// products as mma does, which is found out when the device is opened. (A chunk's sum begins without an addend: were it
// -0 where mma's is +0, merging would not show it, but in a row whose sum so far is -0 too.)
//
// There are as many blocks as multiprocessors. Three warpgroups (two where heads are larger than 64) attend, each for
// 64 rows of a tile; one warp of a fourth finds tiles and brings chunks of keys and values to a ring of 4 stages,
// beyond the end of a tile too: as boxes, or piece by piece where the shared prefix ends within the chunk. Tiles are
// drawn from a counter, because theirs differ in length. A box goes on beyond a sequence's end into what follows: those
// keys are masked, and values that are not finite are kept out as in weigh_values.
//
// A warpgroup does scores, softmax and values of a chunk one after another; what keeps the tensor cores busy meanwhile
// are the others, which wait for the same chunks but not for each other. For 64 rows and a chunk, clocks of an SM:
//                     tensor cores     exponentials (16 a clock)     instructions a scheduler issues
//   d = 64            128 + 256        256                           421
//   d = 128           256 + 512        256                           513
// the second product being by p's two parts. So in a round of all warpgroups issue slots bind for d = 64 (1,263 of
// about 1,450 expected), the tensor cores for d = 128 (1,536 of about 1,800). A tile of few chunks costs as much again
// as one more: queries, the search, outputs. From L2 come 16 KiB a round, 12 bytes a clock.
// Expected on an H200, 16 x 512 tokens: 27 us a layer of 0.5B (280 TFLOP/s by the formula, 81 us measured for the
// portable kernel), 80 us of 7B (376 TFLOP/s).
// Registers a thread: 160 of those who attend, 232 for d = 128; none spills. What is only done for values that are not
// finite keeps its sums in local memory.
#include "attention.cuh"
#include "hopper_check.cuh"
#include "hopper_tile.cuh"

// What a block works on: items of one sequence and kv head.
struct Work {
    Places at;
    int kv, first, rows; // the tile's first item and how many it has; 0: there is no more work
    __device__ __forceinline__ int token(const Heads &h, int row) const { return over_group(h, first + row); }
    __device__ __forceinline__ int head(const Heads &h, int row) const {
        return kv * h.group + first + row - token(h, row) * h.group;
    }
    __device__ __forceinline__ int sees(const Heads &h, int row) const { return at.before + token(h, row) + 1; }
};

// Shared memory: the ring of stages, each the keys and then the values of a chunk as boxes; every warp's 16 queries;
// the work that has been announced; barriers.
template <int D> struct Room {
    static constexpr int GROUPS = D <= 64 ? 3 : 2, ROWS = GROUPS * 64, THREADS = (GROUPS + 1) * WARPGROUP;
    static constexpr int ATTENDS = D <= 64 ? 160 : 232, BRINGS = D <= 64 ? 32 : 40; // registers a thread, of 65536
    static constexpr int STAGES = 4, WORKS = 4;
    static constexpr int BOX = CHUNK * ROW_BYTES, HALF = D / BOX_COLUMNS * BOX; // bytes
    char stage[STAGES][2][HALF];
    Bf16 queries[2][ROWS / 16][16 * PITCH<D>]; // of this work and of the next
    Work work[WORKS];
    Mbarrier full[STAGES], empty[STAGES], told[WORKS], taken[WORKS];
};
// A place in a ring, and the parity of its barriers.
template <int SLOTS> struct Ring {
    unsigned turn = 0;
    __device__ __forceinline__ int slot() const { return (int)(turn % SLOTS); }
    __device__ __forceinline__ int phase() const { return (int)(turn / SLOTS % 2); }
};
// Where a half of a stage has 8 columns from `column` on of its row r.
static __device__ __forceinline__ char *pack_in_boxes(char *half, int r, int column) {
    return half + column / BOX_COLUMNS * (CHUNK * ROW_BYTES) + r * ROW_BYTES +
           ((column % BOX_COLUMNS / 8) ^ (r % 8)) * 16;
}

// ---- the warp that brings keys and values ---------------------------------------------------------------------------
// Copies the chunk in which the shared prefix ends, whose tokens lie in two places of the pack. By a whole warp.
template <int D>
static __device__ __forceinline__ void copy_seam(char (*stage)[Room<D>::HALF], const Bf16 *qkv, const Heads &h,
                                                 const Work &w, int chunk, int keys) {
    constexpr int PACKS = D / 8;
    const int64_t stride = (int64_t)(h.H + 2 * h.K) * h.d;
#pragma unroll 1
    for (int i = (int)threadIdx.x % WARP; i < 2 * CHUNK * PACKS; i += WARP) {
        const int half = i / (CHUNK * PACKS), r = i / PACKS % CHUNK, column = i % PACKS * 8;
        const bool valid = chunk + r < keys && column < h.d;
        const Bf16 *from = qkv + w.at.token(valid ? chunk + r : 0) * stride + (int64_t)(h.H + half * h.K + w.kv) * h.d;
        cp_async_16(pack_in_boxes(stage[half], r, column), from + (valid ? column : 0), valid);
    }
    cp_async_commit();
    cp_async_wait<0>();
    shared_for_wgmma();
    __syncwarp();
}

// next: how many tiles blocks have begun, and how many blocks are done; both 0 between launches.
template <int D>
static __device__ __forceinline__ void bring(Room<D> *room, const TensorMap *map, const Bf16 *qkv, const int32_t *seq,
                                             const int32_t *prefix, int B, unsigned tiles, unsigned *next,
                                             const Heads &h) {
    typedef Room<D> R;
    const int lane = (int)threadIdx.x % WARP;
    Ring<R::STAGES> ring;
    Ring<R::WORKS> works;
    unsigned number = blockIdx.x; // the next tile's; the first is given, others are drawn
    // Announces the next work; false where there is none.
    auto tell = [&] {
        Work w = {Places(seq, NULL, 0), 0, 0, 0};
        while (number < tiles && !w.rows) {
            const unsigned drawn = lane == 0 ? gridDim.x + atomicAdd(next, 1u) : 0; // comes while this one is found
            // A sequence's last tiles have the most keys, and are started first.
            Tile tile = find_tile(seq, B, h.group, R::ROWS, (tiles - 1 - number) / (unsigned)h.K);
            const int rows = min(tile.n * h.group - tile.first, R::ROWS);
            if (rows > 0) w = {Places(seq, prefix, tile.b), (int)(number % (unsigned)h.K), tile.first, rows};
            number = __shfl_sync(FULL, drawn, 0);
        }
        mbarrier_wait(room->taken + works.slot(), works.phase() ^ 1);
        __syncwarp(); // none is left waiting for a phase that is long over
        if (lane == 0) room->work[works.slot()] = w;
        __syncwarp();
        if (lane == 0) mbarrier_arrive(room->told + works.slot());
        works.turn++;
        return w.rows > 0;
    };
    bool more = tell();
    for (int slot = 0; more; slot = slot + 1 == R::WORKS ? 0 : slot + 1) {
        more = tell(); // before its keys can be brought, so that its queries can be
        const Work w = room->work[slot];
        const int keys = w.sees(h, w.rows - 1);
#pragma unroll 1
        for (int chunk = 0; chunk < keys; chunk += CHUNK) {
            Mbarrier *full = room->full + ring.slot();
            char(*stage)[R::HALF] = room->stage[ring.slot()];
            mbarrier_wait(room->empty + ring.slot(), ring.phase() ^ 1);
            __syncwarp();
            if (chunk < w.at.before && w.at.before < chunk + CHUNK) {
                copy_seam<D>(stage, qkv, h, w, chunk, keys);
                if (lane == 0) mbarrier_arrive(full);
            } else if (lane == 0) {
                mbarrier_expect(full, 2 * R::HALF);
                for (int half = 0; half < 2; half++)
                    for (int c = 0; c < D; c += BOX_COLUMNS)
                        tensor_copy_3d(pack_in_boxes(stage[half], 0, c), map, w.at.token(chunk),
                                       h.H + half * h.K + w.kv, c, full);
            }
            ring.turn++;
        }
    }
    if (lane != 0) return;
    __threadfence();
    if (atomicAdd(next + 1, 1u) == gridDim.x - 1) next[0] = next[1] = 0;
}

// ---- the warpgroups that attend -------------------------------------------------------------------------------------
// Merges a chunk's sums c, of p and the boxes `values`, into o. Where a row of the warp does not see all keys, and a
// sum is not finite, they are computed again as weigh_values does. Those are kept in memory meanwhile: it is rare, and
// else would take registers from what is not.
template <int D>
static __device__ __forceinline__ void merge_values(float (&o)[D / 2], const float (&c)[D / 2], const Scales scales[2],
                                                    const ChunkRows<1> &p, char *values, const int n[2], bool whole) {
    bool odd = false;
    if (!whole)
#pragma unroll
        for (int i = 0; i < D / 2; i++) odd |= !(fabsf(c[i]) <= FLT_MAX);
    if (whole || !__ballot_sync(FULL, odd)) {
#pragma unroll
        for (int i = 0; i < D / 2; i++) o[i] = merged(o[i], c[i], scales[i / 2 % 2]);
        return;
    }
    float sum[D / 16][8], part[D / 16][2][4];
#pragma unroll
    for (int i = 0; i < D / 2; i++) sum[i / 8][i % 8] = o[i], part[i / 8][i / 4 % 2][i % 4] = c[i];
#pragma unroll 1
    for (int j = 0; j < D / 16; j++) {
        const int lane = (int)threadIdx.x % WARP;
        weigh_seen(
            part[j], p.high[0], p.low[0],
            [&](int k) { return pack_in_boxes(values, k * 16 + lane % 16, j * 16 + lane / 16 * 8); }, n);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[j][i] = merged(sum[j][i], part[j][i / 4][i % 4], scales[i / 2 % 2]);
    }
#pragma unroll
    for (int i = 0; i < D / 2; i++) o[i] = sum[i / 8][i % 8];
}

template <int D>
static __device__ __forceinline__ void store_rows(Bf16 *y, float *lse, const float (&o)[D / 2], const float m[2],
                                                  const float l[2], const Work &w, int own, const Heads &h) {
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = own + i * 8 + lane / 4;
        const int64_t out = (int64_t)(w.at.start + w.token(h, row)) * h.H + w.head(h, row);
        const float inverse = 1.0f / l[i];
        if (row < w.rows && lane % 4 == 0) lse[out] = row_lse(m[i], l[i], h.scale);
#pragma unroll
        for (int c = 0; c < D / 32; c++) {
            uint32_t v[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float *two = o + (c * 4 + j) * 4 + i * 2;
                v[j] = pack_bf16(two[0] * inverse, two[1] * inverse);
            }
            quad_transpose(v);
            const int column = c * 32 + lane % 4 * 8;
            if (row < w.rows && column < h.d) *(uint4 *)(y + out * h.d + column) = make_uint4(v[0], v[1], v[2], v[3]);
        }
    }
}

template <int D>
static __device__ __forceinline__ void attend(Room<D> *room, Bf16 *y, float *lse, const Bf16 *qkv, const Heads &h) {
    typedef Room<D> R;
    const int lane = (int)threadIdx.x % WARP, own = (int)threadIdx.x / WARP * 16; // the warp's first row
    const int group = own / 64 * 64;                                              // its warpgroup's
    const int64_t stride = (int64_t)(h.H + 2 * h.K) * h.d;
    Ring<R::STAGES> ring;
    Ring<R::WORKS> works;
    // Waits for the work of `works` and begins to copy its queries.
    auto begin = [&] {
        mbarrier_wait(room->told + works.slot(), works.phase());
        const Work &w = room->work[works.slot()];
        if (!w.rows) return;
        // A lane copies half of a row.
        const int r = lane / 2, half = lane % 2 * (D / 2), row = min(own + r, w.rows - 1);
        const Bf16 *from = qkv + (w.at.start + w.token(h, row)) * stride + (int64_t)w.head(h, row) * h.d;
        Bf16 *to = room->queries[works.turn % 2][own / 16] + r * PITCH<D> + half;
#pragma unroll
        for (int i = 0; i < D / 2; i += 8) {
            const bool valid = own + r < w.rows && half + i < h.d;
            cp_async_16(to + i, from + (valid ? half + i : 0), valid);
        }
        cp_async_commit();
    };
    begin();
    for (;;) {
        const int own_work = works.slot();
        const Work &w = room->work[own_work];
        const int last = w.rows - 1;
        if (last < 0) return;
        const int group_sees = group <= last ? w.sees(h, min(group + 63, last)) : 0; // keys
        const int sees[2] = {w.sees(h, min(own + lane / 4, last)), w.sees(h, min(own + 8 + lane / 4, last))};
        float o[D / 2], m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < D / 2; i++) o[i] = 0;
        const Bf16 *queries = room->queries[works.turn % 2][own / 16];
        cp_async_wait<0>();
        __syncwarp();
        works.turn++;
        begin();
        int chunk = 0;
#pragma unroll 1
        for (; chunk < group_sees; chunk += CHUNK) {
            const int slot = __shfl_sync(FULL, ring.slot(), 0); // so the compiler knows that all lanes have the same
            char *k = room->stage[slot][0], *v = room->stage[slot][1];
            const int n[1][2] = {{sees[0] - chunk, sees[1] - chunk}};
            const bool whole = !__ballot_sync(FULL, n[0][0] < CHUNK); // of two rows the second sees more
            float s[32], c[D / 2];
            uint32_t x[D / 16][4]; // loaded every time: else they would take the registers of c
            keep_rows<D>(x, queries);
            mbarrier_wait(room->full + slot, ring.phase());
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < D / 16; i++) wgmma_kept<64, false>(s, x[i], k + i / 4 * R::BOX + i % 4 * 32, 0, i > 0);
            wgmma_commit();
            wgmma_wait<0>();
            wgmma_settle(s);
            ChunkRows<1> p;
            softmax_chunk<1>(&p, (float(*)[8][4])s, n, whole, h.scale2);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < 4; i++) {
                wgmma_kept<D, true>(c, p.high[0][i], v + i * 16 * ROW_BYTES, R::BOX, i > 0);
                wgmma_kept<D, true>(c, p.low[0][i], v + i * 16 * ROW_BYTES, R::BOX, true);
            }
            wgmma_commit();
            Scales scales[2];
#pragma unroll
            for (int i = 0; i < 2; i++) scales[i] = merge(&m[i], &l[i], p.m[0][i], p.l[0][i], h.scale2);
            wgmma_wait<0>();
            wgmma_settle(c);
            merge_values<D>(o, c, scales, p, v, n[0], whole);
            __syncwarp();
            if (lane == 0) mbarrier_arrive(room->empty + slot);
            ring.turn++;
        }
        for (; chunk < w.sees(h, last); chunk += CHUNK) { // what only later warpgroups see
            mbarrier_wait(room->full + ring.slot(), ring.phase());
            __syncwarp();
            if (lane == 0) mbarrier_arrive(room->empty + ring.slot());
            ring.turn++;
        }
        store_rows<D>(y, lse, o, m, l, w, own, h);
        __syncwarp();
        if (lane == 0) mbarrier_arrive(room->taken + own_work);
    }
}

// grid: at most as many blocks as multiprocessors, block Room<D>::THREADS
template <int D>
static __global__ void __launch_bounds__(Room<D>::THREADS, 1)
    attention_hopper_kernel(Bf16 *y, float *lse, const __grid_constant__ TensorMap map, const Bf16 *qkv,
                            const int32_t *seq, const int32_t *prefix, int B, int64_t T, unsigned tiles, unsigned *next,
                            Heads h) {
    typedef Room<D> R;
    SHARED_BOXES(shared);
    R *room = (R *)shared;
    if (threadIdx.x == 0) {
        for (int i = 0; i < R::STAGES; i++) {
            mbarrier_init(room->full + i, 1);
            mbarrier_init(room->empty + i, R::ROWS / 16); // one lane of each warp that attends
        }
        for (int i = 0; i < R::WORKS; i++) {
            mbarrier_init(room->told + i, 1);
            mbarrier_init(room->taken + i, R::ROWS / 16);
        }
        mbarrier_init_done();
    }
    clear_rest(y, lse, seq[B], T, (int64_t)h.H * h.d, h.H, blockIdx.x, gridDim.x);
    __syncthreads();
    if (threadIdx.x / WARPGROUP == R::GROUPS) {
        registers_give<R::BRINGS>();
        if (threadIdx.x / WARP == R::GROUPS * 4) bring<D>(room, &map, qkv, seq, prefix, B, tiles, next, h);
    } else {
        registers_take<R::ATTENDS>();
        attend<D>(room, y, lse, qkv, h);
    }
}

// ---- the launcher ---------------------------------------------------------------------------------------------------
template <int D> static bool run(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, Heads h) {
    const int64_t T = qkv.dim[0], B = seq.dim[0] - 1, sms = cuda_sm_count(d);
    const int64_t tiles = (int64_t)tiles_most(T, B, h.group, Room<D>::ROWS) * h.K;
    TensorMap map;
    if (tiles > INT32_MAX || !hopper_map_heads(&map, qkv, CHUNK)) return false;
    LAUNCH(d, attention_hopper_kernel<D>, (unsigned)(tiles < sms ? tiles : sms), Room<D>::THREADS, sizeof(Room<D>),
           data_of<Bf16>(y), f32(lse), map, data_of<Bf16>(qkv), i32(seq), i32(prefix), (int)B, T, (unsigned)tiles,
           ((CudaDevice *)d->backend)->arrived, h);
    return true;
}
static bool run_best(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv) {
    Heads h = heads_of(qkv.dim[1], n_kv, qkv.dim[2]);
    if (!qkv.dim[0] || h.d > 128 || !aligned_rows(data_of<Bf16>(qkv), h.d) || !aligned_rows(data_of<Bf16>(y), h.d))
        return false;
    return h.d <= 64 ? run<64>(d, y, lse, qkv, seq, prefix, h) : run<128>(d, y, lse, qkv, seq, prefix, h);
}
bool hopper_attention(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv) {
    return HOPPER_USES(d, attention) && run_best(d, y, lse, qkv, seq, prefix, n_kv);
}

// ---- the check at open ----------------------------------------------------------------------------------------------
// Whether heads of size hd have the portable kernel's bits: sequences of more than a tile and of less than a chunk, two
// that go on from the first, which ends within a chunk.
static bool alike(Device *d, int group, int n_kv, int64_t hd) {
    enum { B = 5, T = 220 };
    static const int32_t of[2 * B + 1] = {0, 70, 150, 185, 186, T - 5, -1, 0, 0, -1, -1}; // seq, then prefix
    const int64_t heads = (group + 2) * n_kv, H = group * n_kv;
    size_t mark = arena_mark(&d->scratch);
    Tensor qkv = hopper_draw(d, T, heads * hd, 3, 3), places = hopper_take(d, I32, 1, 2 * B + 1);
    Tensor wanted = hopper_take(d, BF16, T, H * hd), got = hopper_take(d, BF16, T, H * hd);
    Tensor lse_wanted = hopper_take(d, F32, T, H), lse_got = hopper_take(d, F32, T, H);
    d->copy(d, places.data, of, sizeof of);
    Tensor seq = tensor1(i32(places), I32, B + 1), prefix = tensor1(i32(places) + B + 1, I32, B);
    qkv = tensor3(qkv.data, BF16, T, heads, hd);
    cuda_attention(d, wanted, lse_wanted, qkv, seq, prefix, n_kv); // the portable one: this is not in use yet
    bool same = run_best(d, got, lse_got, qkv, seq, prefix, n_kv) && hopper_equal(d, wanted, got) &&
                hopper_equal(d, lse_wanted, lse_got);
    arena_rewind(&d->scratch, mark);
    return same;
}

HopperState hopper_check_attention(Device *d) {
    HopperState fits = hopper_fits(d, (const void *)attention_hopper_kernel<128>, sizeof(Room<128>));
    if (fits != HOPPER_USED) return fits;
    return alike(d, 7, 1, 64) && alike(d, 2, 2, 128) ? HOPPER_USED : HOPPER_DIFFERS;
}
