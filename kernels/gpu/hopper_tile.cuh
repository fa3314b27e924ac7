// The products of tile.cuh by Hopper's wgmma. The chunks of K and the order in which they are added are the same;
// whether the sum inside a chunk has the same bits depends on the card, which matmul_hopper.cu finds out when the
// device is opened. Where it has, these tiles are used in place of the others.
//
// There are as many blocks as multiprocessors, and each works on many tiles. One thread copies boxes of both operands
// to a ring of stages, as far ahead as the ring allows, beyond the end of a tile too. Two warpgroups multiply, each 64
// tokens by all the weights of the tile (tokens are A, weights B: products commute). They wait for the same boxes but
// not for each other, so one can write its outputs while the other multiplies.
#pragma once
#include "hopper.cuh"
#include "hopper_choice.h"
#include "tile.cuh"
#include <limits.h>

#define BAND      16               // tiles of tokens that neighbouring blocks work on
#define BOX_BYTES (64 * ROW_BYTES) // of 64 rows

// A tile of X tokens by W weights. CHUNKS: K is longer than one chunk, so that registers beside the accumulators hold
// the sum. ACROSS_X, ACROSS_W: the operand is stored with the rows of its matrix along K (hopper.cuh).
template <int W_, int STAGES_, bool CHUNKS_, bool ACROSS_X_ = false, bool ACROSS_W_ = false> struct HopperTile {
    static constexpr int GROUPS = 2, X = HOPPER_X, W = W_, STAGES = STAGES_, THREADS = (GROUPS + 1) * WARPGROUP;
    static constexpr bool CHUNKS = CHUNKS_, ACROSS_X = ACROSS_X_, ACROSS_W = ACROSS_W_;
    static constexpr int SUMS = W / 2;                             // outputs of a thread
    static constexpr int HELD = ACROSS_W ? (W + 63) / 64 * 64 : W; // weights of a stage: whole boxes
    static constexpr int STAGE_BYTES = (X + HELD) * ROW_BYTES;
    static constexpr int SHARED_BYTES = STAGES * (STAGE_BYTES + 2 * (int)sizeof(Mbarrier));
    // Registers a thread of either kind asks for; at first each has 65536 / 384.
    static constexpr int MULTIPLIER = 240, COPIER = 24;

    // Which token (x_of) and weight (w_of) of the tile this thread's sum[j] belongs to.
    static __device__ __forceinline__ int x_of(int j) {
        return (int)threadIdx.x / WARP * 16 + (int)threadIdx.x % WARP / 4 + j / 2 % 2 * 8;
    }
    static __device__ __forceinline__ int w_of(int j) { return j / 4 * 8 + (int)threadIdx.x % 4 * 2 + j % 2; }
};

struct TilePlace {
    int x, w;                     // first token, first weight
    int begin = 0, end = INT_MAX; // steps of BOX_COLUMNS of K, of those that there are
};
// The place of tile `id` of M tokens by N weights, `rows` of them a tile. Tiles of a band of BAND tiles of tokens are
// neighbours, so that what they read is in the second-level cache.
template <typename Tile>
static __device__ __forceinline__ TilePlace hopper_place(int64_t id, int64_t M, int64_t N, int rows = Tile::W) {
    const int64_t x_tiles = (M + Tile::X - 1) / Tile::X, w_tiles = (N + rows - 1) / rows;
    int64_t band = id / (BAND * w_tiles) * BAND, in_band = id - band * w_tiles;
    int64_t width = x_tiles - band < BAND ? x_tiles - band : BAND;
    return {(int)(band + in_band % width) * Tile::X, (int)(in_band / width) * rows};
}

// Copies ROWS rows of an operand at step `step` of K: one box, or where it is across, boxes of 64.
template <int ROWS, bool ACROSS>
static __device__ __forceinline__ void hopper_copy(char *to, const TensorMap *map, int row, int step, Mbarrier *b) {
#pragma unroll
    for (int i = 0; i < (ACROSS ? ROWS / 64 : 1); i++)
        if (ACROSS) tensor_copy(to + i * BOX_BYTES, map, step * BOX_COLUMNS, row + i * 64, b);
        else tensor_copy(to, map, row, step * BOX_COLUMNS, b);
}

// Works on the tiles blockIdx.x, blockIdx.x + gridDim.x, ... below `tiles`: sum = the products of X tokens from
// place(tile).x on and W weights from place(tile).w on over the place's steps of K columns, then done(place, sum) in
// the threads of the two warpgroups (threadIdx.x < 256), which may use only barriers of their own warpgroup. x, w: maps
// with boxes of X and of W rows, of 64 where the operand is across. place gives a TilePlace, or what is one and more.
// With `apart` w's boxes have W/2 rows: a tile's weights are those from place(tile).w on
// and those `apart` rows further. w_first: the first weights may be copied before wait_for_earlier, which this calls.
template <typename Tile, typename Place, typename Done>
static __device__ __forceinline__ void hopper_stream(char *shared, const TensorMap *x, const TensorMap *w,
                                                     int64_t tiles, int K, Place place, Done done, int apart = 0,
                                                     bool w_first = false) {
    constexpr int STAGES = Tile::STAGES, CHUNK_STEPS = K_CHUNK<Bf16> / BOX_COLUMNS;
    Mbarrier *full = (Mbarrier *)(shared + STAGES * Tile::STAGE_BYTES), *empty = full + STAGES;
    const int steps = (K + BOX_COLUMNS - 1) / BOX_COLUMNS, group = (int)threadIdx.x / WARPGROUP;
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            mbarrier_init(full + i, 1);
            mbarrier_init(empty + i, Tile::GROUPS * WARPGROUP / WARP); // one lane of each warp that reads arrives
        }
        mbarrier_init_done();
    }
    __syncthreads();
    int slot = 0, phase = 0; // position in the ring, and the parity of its barriers
    auto next_slot = [&] {
        if (++slot == STAGES) slot = 0, phase ^= 1;
    };
    if (group == Tile::GROUPS) {
        registers_give<Tile::COPIER>();
        if (threadIdx.x % WARPGROUP) return;
        auto copy_w = [&](int into, int row, int step) {
            char *to = shared + into * Tile::STAGE_BYTES + Tile::X * ROW_BYTES;
            mbarrier_expect(full + into, Tile::STAGE_BYTES);
            hopper_copy<Tile::HELD, Tile::ACROSS_W>(to, w, row, step, full + into);
            if (apart) tensor_copy(to + Tile::W / 2 * ROW_BYTES, w, row + apart, step * BOX_COLUMNS, full + into);
        };
        // Of the first tile: as many steps as there are stages, all of which are empty.
        const auto first = place(blockIdx.x);
        int early = !w_first ? 0 : first.end < steps ? first.end - first.begin : steps - first.begin;
        if (early > STAGES) early = STAGES;
#pragma unroll 1
        for (int i = 0; i < early; i++) copy_w(i, first.w, first.begin + i);
        wait_for_earlier();
#pragma unroll 1
        for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            const auto at = place(tile);
            const int end = at.end < steps ? at.end : steps;
#pragma unroll 1
            for (int step = at.begin; step < end; step++) {
                if (--early < 0) {
                    mbarrier_wait(empty + slot, phase ^ 1);
                    copy_w(slot, at.w, step);
                }
                hopper_copy<Tile::X, Tile::ACROSS_X>(shared + slot * Tile::STAGE_BYTES, x, at.x, step, full + slot);
                next_slot();
            }
            early = 0;
        }
        return;
    }
    wait_for_earlier();
    registers_take<Tile::MULTIPLIER>();
    float acc[Tile::SUMS], sum[Tile::CHUNKS ? Tile::SUMS : 1];
#pragma unroll 1
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const auto at = place(tile);
        const int last = at.end < steps ? at.end : steps;
#pragma unroll
        for (int j = 0; Tile::CHUNKS && j < Tile::SUMS; j++) sum[j] = 0;
        int step = at.begin;
        do {
            const int first = step, end = Tile::CHUNKS && step + CHUNK_STEPS < last ? step + CHUNK_STEPS : last;
            int before = 0;   // the stage whose products may still be running
            wgmma_begin(acc); // so that `done` has its registers, or may change it
#pragma unroll 1
            for (; step < end; step++) {
                const char *stage = shared + slot * Tile::STAGE_BYTES;
                mbarrier_wait(full + slot, phase);
                wgmma_fence();
#pragma unroll
                for (int i = 0; i < BOX_COLUMNS / 16; i++)
                    wgmma_across<Tile::W, Tile::ACROSS_X, Tile::ACROSS_W>(
                        acc, stage + group * BOX_BYTES + i * (Tile::ACROSS_X ? 16 * ROW_BYTES : 32),
                        stage + Tile::X * ROW_BYTES + i * (Tile::ACROSS_W ? 16 * ROW_BYTES : 32), BOX_BYTES,
                        step > first || i > 0);
                wgmma_commit();
                wgmma_wait<1>();
                if (step > first && threadIdx.x % WARP == 0) mbarrier_arrive(empty + before);
                before = slot;
                next_slot();
            }
            wgmma_wait<0>();
            wgmma_settle(acc);
            if (threadIdx.x % WARP == 0) mbarrier_arrive(empty + before);
#pragma unroll
            for (int j = 0; j < Tile::SUMS; j++) {
                if (Tile::CHUNKS) sum[j] += acc[j];
                else acc[j] += 0.0f; // a sum starts at 0
            }
        } while (step < last);
        if (Tile::CHUNKS) done(at, sum);
        else done(at, acc);
    }
}

// Transposes four registers across the four lanes of a quad: lane q gets register q of lanes 0, 1, 2, 3.
static __device__ __forceinline__ void quad_transpose(uint32_t v[4]) {
    const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
    uint32_t a = __shfl_xor_sync(FULL, odd ? v[0] : v[1], 1), b = __shfl_xor_sync(FULL, odd ? v[2] : v[3], 1);
    if (odd) v[0] = a, v[2] = b;
    else v[1] = a, v[3] = b;
    a = __shfl_xor_sync(FULL, high ? v[0] : v[2], 2), b = __shfl_xor_sync(FULL, high ? v[1] : v[3], 2);
    if (high) v[0] = a, v[1] = b;
    else v[2] = a, v[3] = b;
}

// Stores a thread's sum[SUMS] at the tile's place in y[M,N], whose rows are `stride` elements, multiples of 16 bytes,
// apart.
template <typename Tile>
static __device__ __forceinline__ void hopper_store(Bf16 *y, TilePlace at, const float *sum, int64_t M, int64_t N,
                                                    int64_t stride) {
    const int q = (int)threadIdx.x % 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t row = at.x + Tile::x_of(2 * h);
#pragma unroll
        for (int c = 0; c < Tile::W / 32; c++) {
            uint32_t v[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float *pair = sum + (c * 4 + j) * 4 + h * 2;
                v[j] = pack_bf16(pair[0], pair[1]);
            }
            quad_transpose(v);
            const int64_t n = at.w + c * 32 + q * 8;
            if (row < M && n < N) *(uint4 *)(y + row * stride + n) = make_uint4(v[0], v[1], v[2], v[3]);
        }
#pragma unroll
        for (int j = Tile::W / 32 * 16 + h * 2; j < Tile::SUMS; j += 4) { // what is left of W
            const int64_t n = at.w + Tile::w_of(j);
            if (row < M && n < N) *(uint32_t *)(y + row * stride + n) = pack_bf16(sum[j], sum[j + 1]);
        }
    }
}
template <typename Tile>
static __device__ __forceinline__ void hopper_store(float *y, TilePlace at, const float *sum, int64_t M, int64_t N,
                                                    int64_t stride) {
#pragma unroll
    for (int j = 0; j < Tile::SUMS; j += 2) {
        const int64_t row = at.x + Tile::x_of(j), n = at.w + Tile::w_of(j);
        if (row < M && n < N) *(float2 *)(y + row * stride + n) = make_float2(sum[j], sum[j + 1]);
    }
}

// Makes the TensorMap of m[rows, K] for boxes of `box` rows. False where the card cannot copy such a matrix by boxes.
bool hopper_map(TensorMap *map, Tensor m, int box);
// The same of m[T, heads, d] for boxes of `box` tokens of one head (tensor_copy_3d): zeros past its end, too.
bool hopper_map_heads(TensorMap *map, Tensor m, int box);
