// matmul: y[M,N] = x[M,K] w[N,K]^T;  matmul_swiglu: h[M,N/2] = silu(g) u, where g and u are the halves of y's rows
//
// A block owns a tile of W weights by X tokens (tile.cuh says how it multiplies them, and why a row's bits do not
// depend on the rows beside it). Either it takes all of K, chunk after chunk; or, where there are fewer tiles than the
// card needs, each block takes one chunk of one tile and stores its sums in scratch, and the block of a tile that
// finishes last adds the chunks up in ascending order. Both ways do the same additions, so the choice may depend on the
// shape.
//
// With swiglu a tile's rows of weights are W/2 of gate and the W/2 of up that belong to them. Its outputs, rounded as y
// stores them, wait in shared memory anyway to be written in whole rows: there h is made of them, by the function that
// the op swiglu uses. y itself is written only where it is asked for: decode does without 2 M N elements of traffic and
// a launch (at 256 tokens of 0.5B 10 of 30 MB).
//
// Floor: (M K + N K + M N) elements to move over the bandwidth of memory; 2 M N K FLOP over the tensor cores' rate.
// Registers a thread on sm_80, sm_90a, sm_120 (make check-cuda; none spills), and what is expected:
//   Mma8, 16, 32    56-64, 64-80, 104-126. Few tokens: the time is that of reading w once. A block has 4 or 5 stages of
//                   8 KiB of w under way, an SM about 4 blocks: more than latency x bandwidth asks for.
//   Mma*Narrow      64-80, 80, 122-128. 16 rows of w in a block, where N is so small that even chunks leave SMs idle.
//   Mma64           128-165; 3 blocks an SM. Where there are at most two blocks, or one, for an SM, the shared memory
//                   of the others gives a longer pipeline (Mma64Two, Mma64One); where there is less than one for every
//                   other SM, tiles are a quarter as large (Mma32Square).
//   Mma80           254; two blocks an SM: where tiles of 128 x 128 need a second, nearly empty wave.
//   Mma128          203-236; one block of 8 warps an SM, 96 KiB of stages. 128 bytes of K copy 32 KiB and read 96 KiB
//                   of shared memory for 1 M multiply-adds.
//   Mma256          252-254; the same warps, twice the products each: 48 KiB copied and 128 KiB read for 2 M, a third
//                   less each. The accumulators fill the registers, so either K is one chunk (144 KiB), or the sum over
//                   chunks is kept in shared memory (Mma256Chunks, 224 KiB).
// Measured on an H200 for 0.5B, us at 8, 64, 256, 1,024 tokens (mma.sync; at 256 the tensor cores are the limit):
//   qkv 4.1, 4.8, 6.7, 11.8   o 4.0, 4.1, 5.7, 8.9   gate_up 7.7, 9.8, 17.9, 62   down 6.7, 10.0, 16, 45
// In a graph whose weights are constant (decode) a block copies its first STAGES - 1 steps of w before it waits for the
// kernels before it: all of 0.5B's qkv and o for up to 32 tokens, 15 of 16 steps of down's chunks, 5 of 14 of gate_up.
// Expected of it: 0.8 us a product, the way of the first bytes; 75 us of a step's 900 at 8 tokens, 40 at 256.
// f32 (no TF32): fmaf chains, bound by the f32 rate: 16 loads of shared memory for 256 fmaf of a thread.
#include "chunks.cuh"
#include "cuda.cuh"
#include "matmul_swiglu.h"
#include "outputs.cuh"

// Tiles of weights in a band. The blocks of a band run at about the same time, so that a wave of blocks reads few rows
// of either operand.
#define BAND 8

// Grid: tiles x splits, where splits is 1 or the number of chunks. GATED: with swiglu. Not asked at run time, as a
// plain product's rows, all one after another, are found with fewer instructions. Its launch bounds keep the compiler
// from aiming at more blocks an SM than shared memory allows: it would spill registers.
template <typename Tile, bool ALIGNED, bool GATED, typename U>
static __global__ void __launch_bounds__(Tile::THREADS, GATED ? 1 : 0)
    matmul_kernel(Outputs<U> to, const typename Tile::T *x, const typename Tile::T *w, int64_t M, int64_t N, int K,
                  float *partial, unsigned *arrived, bool w_first) {
    SHARED_DYNAMIC(char, shared);
    SHARED(unsigned, before, [1]);
    constexpr int rows = GATED ? Tile::W / 2 : Tile::W; // of weights that are neighbours
    const int64_t all = GATED ? N / 2 : N;              // of them
    int64_t w_tiles = (all + rows - 1) / rows, x_tiles = (M + Tile::X - 1) / Tile::X, id = blockIdx.x;
    int64_t band = id / (BAND * x_tiles) * BAND, in_band = id - band * x_tiles;
    int64_t width = w_tiles - band < BAND ? w_tiles - band : BAND;
    int64_t first_w = (band + in_band % width) * rows, first_x = in_band / width * Tile::X;
    bool split = gridDim.y > 1;
    constexpr int CHUNK = K_CHUNK<typename Tile::T>;
    int begin = split ? (int)blockIdx.y * CHUNK : 0, end = split && begin + CHUNK < K ? begin + CHUNK : K;
    tile_stream<Tile, ALIGNED>(
        shared, w,
        [=](int64_t i) {
            const bool up = GATED && i >= rows;
            const int64_t row = first_w + (up ? i - rows : i);
            return row < all ? w + (up ? all + row : row) * K : NULL;
        },
        1, [=](int64_t i) { return first_x + i < M ? x + (first_x + i) * K : NULL; }, begin, end,
        [&](int, float *sum) {
            float *of_tile = partial + id * gridDim.y * (Tile::SUMS * Tile::THREADS);
            if (split &&
                !add_chunks<Tile::SUMS, Tile::THREADS>(sum, of_tile, (int)blockIdx.y, (int)gridDim.y, arrived + id,
                                                       before, (int)threadIdx.x, [] { __syncthreads(); }))
                return;
            store_tile<Tile, GATED>(to, shared, sum, first_x, first_w, M, N);
        },
        w_first, [] { wait_for_earlier(); });
}

// The tiles for each storage type, named by how many tokens they have. Every supported card has the 96 KiB of shared
// memory that most need at most; those that need more are chosen only where the card has it.
typedef MmaTile<128, 256, 2, 4, 3, ONE_CHUNK> Mma256;
typedef MmaTile<128, 256, 2, 4, 2, IN_SHARED> Mma256Chunks;
typedef MmaTile<128, 128, 2, 4, 3> Mma128;
typedef MmaTile<80, 128, 1, 4, 4> Mma80;
typedef MmaTile<64, 64, 2, 2, 4> Mma64;
typedef MmaTile<64, 64, 2, 2, 6> Mma64Two;
typedef MmaTile<64, 64, 2, 2, 8> Mma64One;
typedef MmaTile<32, 32, 2, 2, 10> Mma32Square;
typedef MmaTile<64, 32, 4, 1, 5> Mma32;
typedef MmaTile<64, 16, 4, 1, 6> Mma16;
typedef MmaTile<64, 8, 4, 1, 6> Mma8;
// For where even chunks give too few blocks: 16 rows of weights and one warp in a block, with a whole chunk under way
// at once.
typedef MmaTile<16, 32, 1, 1, 16> Mma32Narrow;
typedef MmaTile<16, 16, 1, 1, 16> Mma16Narrow;
typedef MmaTile<16, 8, 1, 1, 16> Mma8Narrow;
typedef FmaTile<128, 128, 8, 8, 3> Fma128;
typedef FmaTile<64, 64, 8, 4, 3> Fma64;
typedef FmaTile<64, 8, 4, 1, 4> Fma8;

static int64_t tiles_of(int64_t W, int64_t X, int64_t M, int64_t N) { return ((N + W - 1) / W) * ((M + X - 1) / X); }

// A product as the two ops ask for it: y or h may be absent.
typedef struct {
    Tensor y, h, x, w;
} Product;

template <typename Tile, bool ALIGNED, typename U> static void run(Device *d, Product p) {
    int64_t M = p.x.dim[0], N = p.w.dim[0], K = tensor_width(p.w), tiles = tiles_of(Tile::W, Tile::X, M, N);
    int64_t chunks = k_chunks<typename Tile::T>(K), enough = (int64_t)cuda_sm_count(d) * (Tile::THREADS > 128 ? 1 : 2);
    int64_t width = present(p.h) ? N / 2 : N;
    size_t mark = arena_mark(&d->scratch);
    size_t bytes = (size_t)(tiles * chunks) * Tile::SUMS * Tile::THREADS * sizeof(float);
    bool split = chunks > 1 && tiles < enough && tiles <= BLOCK_COUNTERS && chunks <= MAX_GRID &&
                 bytes + ARENA_ALIGN <= d->scratch.cap - d->scratch.used;
    float *partial = split ? (float *)arena_take(&d->scratch, bytes) : NULL;
    Outputs<U> to = {data_of<U>(p.y), data_of<U>(p.h), false};
    to.aligned = aligned_rows(to.y, width) && aligned_rows(to.h, width);
    auto matmul = present(p.h) ? matmul_kernel<Tile, ALIGNED, true, U> : matmul_kernel<Tile, ALIGNED, false, U>;
    LAUNCH_EARLY(d, matmul, dim3((unsigned)tiles, split ? (unsigned)chunks : 1), Tile::THREADS, Tile::SHARED_BYTES, to,
                 data_of<typename Tile::T>(p.x), data_of<typename Tile::T>(p.w), M, N, (int)K, partial,
                 ((CudaDevice *)d->backend)->arrived, cuda_may_read_early(d, p.w));
    arena_rewind(&d->scratch, mark);
}

// Chooses the tile by the shape and the card; every choice gives the same bits.
static void run_bf16(Device *d, Product p) {
    int64_t M = p.x.dim[0], N = p.w.dim[0], chunks = k_chunks<Bf16>(tensor_width(p.w)), sms = cuda_sm_count(d);
    bool narrow = tiles_of(64, M, M, N) * chunks < sms;
    bool large = M > 128 && tiles_of(128, 256, M, N) >= sms;
    size_t room = ((CudaDevice *)d->backend)->shared;
    if (M <= 8) (narrow ? run<Mma8Narrow, true, Bf16> : run<Mma8, true, Bf16>)(d, p);
    else if (M <= 16) (narrow ? run<Mma16Narrow, true, Bf16> : run<Mma16, true, Bf16>)(d, p);
    else if (M <= 32) (narrow ? run<Mma32Narrow, true, Bf16> : run<Mma32, true, Bf16>)(d, p);
    else if (large && chunks == 1 && Mma256::SHARED_BYTES < room) run<Mma256, true, Bf16>(d, p);
    else if (large && chunks > 1 && Mma256Chunks::SHARED_BYTES < room) run<Mma256Chunks, true, Bf16>(d, p);
    else if (M > 64 && tiles_of(128, 128, M, N) * chunks >= sms)
        (chunks == 1 && tiles_of(128, 128, M, N) > sms && tiles_of(80, 128, M, N) <= 2 * sms &&
                 Mma80::SHARED_BYTES < room
             ? run<Mma80, true, Bf16>
             : run<Mma128, true, Bf16>)(d, p);
    else {
        int64_t blocks = tiles_of(64, 64, M, N) * chunks;
        if (2 * blocks < sms) run<Mma32Square, true, Bf16>(d, p);
        else if (blocks <= sms && Mma64One::SHARED_BYTES < room) run<Mma64One, true, Bf16>(d, p);
        else if (blocks <= 2 * sms && Mma64Two::SHARED_BYTES < room) run<Mma64Two, true, Bf16>(d, p);
        else run<Mma64, true, Bf16>(d, p);
    }
}
static void run_f32(Device *d, Product p) {
    int64_t M = p.x.dim[0], N = p.w.dim[0], chunks = k_chunks<float>(tensor_width(p.w)), sms = cuda_sm_count(d);
    if (M <= 16) run<Fma8, true, float>(d, p);
    else if (M > 64 && tiles_of(128, 128, M, N) * chunks >= sms) run<Fma128, true, float>(d, p);
    else run<Fma64, true, float>(d, p);
}

static void multiply(Device *d, const char *op, Product p) {
    int64_t M = p.x.dim[0], N = p.w.dim[0], K = tensor_width(p.w);
    DType stored = present(p.h) ? p.h.dtype : p.y.dtype;
    if (p.x.dtype != p.w.dtype) die("%s: x is %s but w is %s", op, dtype_name(p.x.dtype), dtype_name(p.w.dtype));
    if (!M || !N) return;
    if (p.x.dtype == BF16) {
        if (hopper_matmul(d, p.y, p.h, p.x, p.w)) return;
        bool aligned = aligned_rows(data_of<Bf16>(p.x), K) && aligned_rows(data_of<Bf16>(p.w), K);
        if (aligned && stored == BF16) run_bf16(d, p);
        else if (aligned) run<Mma64, true, float>(d, p);
        else DISPATCH(stored, U, run<Mma64, false, U>(d, p));
    } else if (p.x.dtype == F32) {
        bool aligned = aligned_rows(data_of<float>(p.x), K) && aligned_rows(data_of<float>(p.w), K);
        if (aligned && stored == F32) run_f32(d, p);
        else if (aligned) run<Fma64, true, Bf16>(d, p);
        else DISPATCH(stored, U, run<Fma64, false, U>(d, p));
    } else die("%s: storage is f32 or bf16, not %s", op, dtype_name(p.x.dtype));
}

void cuda_matmul(Device *d, Tensor y, Tensor x, Tensor w) {
    if (d->products == PRODUCTS_LIBRARY) cuda_product(d, y, false, x, false, w, true);
    else multiply(d, "matmul", {y, NONE, x, w});
}
void cuda_matmul_swiglu(Device *d, Tensor h, Tensor gu, Tensor x, Tensor w) {
    if (d->products == PRODUCTS_LIBRARY) matmul_swiglu_parts(d, h, gu, x, w, cuda_matmul, cuda_swiglu);
    else multiply(d, "matmul_swiglu", {gu, h, x, w});
}
