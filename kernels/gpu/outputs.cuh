// How a block writes a tile of a product (tile.cuh), with swiglu behind it or not: for matmul and norm_matmul.
#pragma once
#include "swiglu.cuh"
#include "tile.cuh"

// What a product writes: y[M,N], and with swiglu h[M,N/2], beside which y may be NULL.
template <typename U> struct Outputs {
    U *y, *h;
    bool aligned; // rows of both, and their halves, are multiples of 16 bytes
};

// Stores the first `left` of a pack.
template <typename U> static __device__ __forceinline__ void store_part(U *to, Pack<U> v, int64_t left, bool aligned) {
    if (aligned) store_pack(to, v);
    else
        for (int e = 0; e < Pack<U>::N && e < left; e++) to[e] = v.x[e];
}

// Writes the tile's outputs through shared memory, so that neighbours in a row of y are written together. first_w: its
// first column; with swiglu that of h, of which it has W/2.
template <typename Tile, bool GATED, typename U>
static __device__ __forceinline__ void store_tile(Outputs<U> to, char *shared, const float *sum, int64_t first_x,
                                                  int64_t first_w, int64_t M, int64_t N) {
    constexpr int PACK = Pack<U>::N, WIDTH = Tile::W + PACK; // the padding spreads rows over the banks
    static_assert(Tile::RESIDENT || Tile::X * WIDTH * sizeof(U) <= Tile::SHARED_BYTES, "");
    static_assert(Tile::W % (2 * PACK) == 0, "");
    U *out = (U *)shared; // [X, WIDTH]
    constexpr int columns = GATED ? Tile::W / 2 : Tile::W, packs = columns / PACK;
    const int64_t width = GATED ? N / 2 : N;
    __syncthreads();
    Tile::each([&](int j, int w, int x) { out[x * WIDTH + w] = from_float<U>(sum[j]); });
    __syncthreads();
    for (int i = (int)threadIdx.x; i < Tile::X * packs; i += Tile::THREADS) {
        int x = i / packs, w = i % packs * PACK;
        int64_t row = first_x + x, column = first_w + w, left = width - column;
        if (row >= M || left <= 0) continue;
        Pack<U> v = load_pack(out + x * WIDTH + w);
        if (!GATED || to.y) store_part(to.y + row * N + column, v, left, to.aligned);
        if (!GATED) continue;
        Pack<U> up = load_pack(out + x * WIDTH + columns + w);
        if (to.y) store_part(to.y + row * N + width + column, up, left, to.aligned);
#pragma unroll
        for (int e = 0; e < PACK; e++) v.x[e] = from_float<U>(gated(to_float(v.x[e]), to_float(up.x[e])));
        store_part(to.h + row * width + column, v, left, to.aligned);
    }
}
