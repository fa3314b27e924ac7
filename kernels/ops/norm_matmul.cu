// norm_matmul: y = n w^T, with n the RMSNorm of x + delta; and h = silu(g) u of y's halves. For as few tokens as decode
// has: there a kernel of its own for the norm is all launch and latency, twice a layer.
//
// A block has one tile of W weights and up to 32 tokens. It norms them into shared memory, one, two or four rows a
// warp, where tensor cores read them as tile.cuh's stages would hold them. The blocks of the same tokens share the
// writing of the sum. The norm is that of rmsnorm, the product that of matmul, to the bit (row_norm.cuh, tile.cuh). The
// first weights are on the way while the block norms; in a graph whose weights are constant, while it waits for the
// kernels before it.
//
// Floor: w once over the bandwidth of memory.
// Expected on an H200, beside a norm and a product: the norm's node, 1.5 to 2 us from the last block of the kernel
// before it to the first of the product, becomes the norm in each block. A row of 0.5B is 320 instructions of a warp,
// of which an SM issues four a clock: 0.36 us for 8 rows, 0.73 for 16, 1.5 for 32, and twice that where an SM has two
// blocks, as some have of gate_up's 152. So 24 layers of 0.5B save 55 of a step's 900 us at 8 tokens, 30 at 16.
// With more tokens each tile of weights has a block for every 32 of them and reads its weights from the second-level
// cache as often. qkv of 0.5B at 64 tokens: 72 blocks read 57 KB of weights, most of them early, and 115 of x and
// delta, 1 us, beside the 1.5 us of norm: with launch, first bytes and products 4.5 us. The two kernels take 1.75 and
// 4.0 (measured 4.8, less 0.8 for early weights): 30 us less a step of 1,200. At 256, 96 blocks of 287 KB take 5 us of
// the second-level cache's bandwidth (5.5 TB/s), 7.0 in all, where the two take 1.75 and 5.9: 15 less of 1,350.
//
// Where it stops, and rmsnorm and the product stay apart:
//   More than NORMED elements for the busiest SM: 1.9 us of norm, what the node takes. So of 0.5B gate_up comes here up
//   to 16 tokens and qkv up to MOST_TOKENS; of 1.5B gate_up up to 8 and qkv up to 16; of 7B neither.
//   More tiles than run at once: a second wave would cost more than the node.
//   More than MOST_TOKENS: mma.sync loses more to wgmma than the node takes.
//   More shared memory than the card has: with 99 KiB 0.5B's tiles of 32 tokens and 64 or 96 weights.
// Clusters whose blocks norm a share of the rows each and read the others' would not issue them again and again:
// expected to save 0.5 to 1 us a node where this stops, and left for a card to judge.
// Registers allow three blocks an SM up to 8 tokens, one of 96 weights, else two (make check-cuda; none spills).
#include "norm_matmul.h"
#include "cuda.cuh"
#include "outputs.cuh"
#include "row_norm.cuh"

// Tiles by their tokens. Of 64 weights where those are gate and up; else of as few as give each SM one tile. Eight
// warps norm, and as many of them multiply as there are mma tiles.
template <int W, int X, int W_WARPS, int X_WARPS>
using Resident = MmaTile<W, X, W_WARPS, X_WARPS,
                         W == 32   ? 10
                         : W == 64 ? 6
                                   : 4,
                         IN_REGISTERS, true, 8 - W_WARPS * X_WARPS>;
typedef Resident<64, 8, 4, 1> Wide8;
typedef Resident<64, 16, 4, 2> Wide16;
typedef Resident<64, 32, 4, 2> Wide32;
typedef Resident<32, 8, 2, 1> Narrow8;
typedef Resident<32, 16, 2, 2> Narrow16;
typedef Resident<32, 32, 2, 4> Narrow32;
typedef Resident<96, 32, 2, 4> Widest32;

#define MOST_TOKENS 256
#define NORMED      36864 // elements of the stream
static_assert(NORMED / Narrow8::X <= STRIPS * WARP * Pack<Bf16>::N, "norm_rows adds a strip at a time");

// Bytes of shared memory behind the stages: the tokens of K columns, and a tile on its way out.
template <typename Tile> constexpr int OUT_BYTES = Tile::X *(Tile::W + Pack<Bf16>::N) * (int)sizeof(Bf16);
template <typename Tile> static __host__ __device__ int64_t token_bytes(int64_t K) {
    constexpr int STEP = ROW_BYTES / (int)sizeof(Bf16);
    return (K + STEP - 1) / STEP * (Tile::X * ROW_BYTES);
}

typedef struct {
    Bf16 *sum; // NULL without delta
    const Bf16 *x, *delta, *w;
    int M, K;
    float eps;
} NormRows; // what norm_rows reads, and the sum

// Norms the tokens from `first` on into `to`, which MmaTile calls its resident tokens. All blocks of these tokens, one
// for each tile of weights, share the writing of the sum. A warp takes rows `warp`, warp + WARPS, ...,
// all at once, as their loads must be under way together.
template <typename Tile> static __device__ __forceinline__ void norm_rows(char *to, NormRows in, int first) {
    constexpr int E = Pack<Bf16>::N, WARPS = Tile::THREADS / WARP, ROWS = Tile::X / WARPS;
    constexpr int AT_ONCE = ROWS == 1 ? 4 : 8 / ROWS; // strips
    typedef Group<Bf16, E> G;
    static_assert(Tile::X % WARPS == 0 && E == GroupOf<Bf16, Bf16>::E, "");
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int left = in.M - first;
    const int end = (int)(token_bytes<Tile>(in.K) / (Tile::X * 16)); // packs of a row, those of zeros included
    auto place = [&](int r, int pack) {
        return (G *)(to + (pack / ROW_PACKS * Tile::X + r) * ROW_BYTES + (pack % ROW_PACKS ^ r % ROW_PACKS) * 16);
    };
    auto load = [&](const Bf16 *p, int pack, bool there) {
        return there && pack * E < in.K ? *(const G *)(p + pack * E) : G{};
    };
    float squares[ROWS] = {};
#pragma unroll 1
    for (int base = 0; base < end; base += AT_ONCE * WARP) {
        G v[AT_ONCE][ROWS], add[AT_ONCE][ROWS];
#pragma unroll
        for (int s = 0; s < AT_ONCE; s++)
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const int r = warp + i * WARPS, pack = base + s * WARP + lane;
                const int64_t row = (int64_t)(first + r) * in.K;
                v[s][i] = load(in.x + row, pack, r < left);
                if (in.delta) add[s][i] = load(in.delta + row, pack, r < left);
            }
#pragma unroll
        for (int s = 0; s < AT_ONCE; s++)
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const int r = warp + i * WARPS, pack = base + s * WARP + lane;
                if (in.delta) {
                    v[s][i] = group_sum<E>(v[s][i], add[s][i]);
                    if (r < left && pack * E < in.K && r % gridDim.x == blockIdx.x)
                        *(G *)(in.sum + (int64_t)(first + r) * in.K + pack * E) = v[s][i];
                }
                if (pack < end) *place(r, pack) = v[s][i];
                squares[i] += warp_sum(group_squares<E>(0, v[s][i])); // a strip: no row has more than STRIPS
            }
    }
    float rstd[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) rstd[i] = row_rstd(squares[i], in.K, in.eps);
#pragma unroll 1
    for (int base = 0; base < end; base += AT_ONCE * WARP) {
        G scale[AT_ONCE]; // not loaded earlier: that would take registers from the rows
#pragma unroll
        for (int s = 0; s < AT_ONCE; s++) scale[s] = load(in.w, base + s * WARP + lane, true);
#pragma unroll
        for (int s = 0; s < AT_ONCE; s++)
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const int r = warp + i * WARPS, pack = base + s * WARP + lane;
                if (pack * E < in.K && r < left) *place(r, pack) = group_normed<E>(*place(r, pack), rstd[i], scale[s]);
            }
    }
}

// Blocks of an SM that registers must suffice for.
template <typename Tile> constexpr int BLOCKS = Tile::X == 8 ? 3 : Tile::W == 96 ? 1 : 2;
template <typename Tile, bool GATED>
static __global__ void __launch_bounds__(Tile::THREADS, BLOCKS<Tile>)
    norm_matmul_kernel(Outputs<Bf16> to, NormRows in, const Bf16 *w, int64_t N, bool w_first) {
    SHARED_DYNAMIC(char, shared);
    constexpr int rows = GATED ? Tile::W / 2 : Tile::W; // of weights that are neighbours
    const int64_t all = GATED ? N / 2 : N;              // of them
    const int64_t first_w = (int64_t)blockIdx.x * rows;
    const int first_x = (int)blockIdx.y * Tile::X;
    char *tokens = shared + Tile::SHARED_BYTES;
    tile_stream<Tile, true>(
        shared, w,
        [=](int64_t i) {
            const bool up = GATED && i >= rows;
            const int64_t row = first_w + (up ? i - rows : i);
            return row < all ? w + (up ? all + row : row) * in.K : NULL;
        },
        1, [](int64_t) { return (const Bf16 *)NULL; }, 0, in.K,
        [&](int, float *sum) {
            store_tile<Tile, GATED>(to, tokens + token_bytes<Tile>(in.K), sum, first_x, first_w, in.M, N);
        },
        w_first, [] { wait_for_earlier(); }, [=] { norm_rows<Tile>(tokens, in, first_x); });
}

// False, and nothing done, where a norm of its own is better.
template <typename Tile, bool GATED> static bool run(Device *d, Tensor y, Tensor h, Norm n, Tensor w) {
    const int64_t N = w.dim[0], K = tensor_width(w), width = GATED ? N / 2 : N, rows = GATED ? Tile::W / 2 : Tile::W;
    const int64_t M = n.x.dim[0], w_tiles = (width + rows - 1) / rows, x_tiles = (M + Tile::X - 1) / Tile::X;
    const int64_t shared = Tile::SHARED_BYTES + token_bytes<Tile>(K) + OUT_BYTES<Tile>, sms = cuda_sm_count(d);
    auto kernel = norm_matmul_kernel<Tile, GATED>;
    if (shared > (int64_t)((CudaDevice *)d->backend)->shared) return false;
    if ((w_tiles * x_tiles + sms - 1) / sms * Tile::X * K > NORMED) return false;
    if (resident_grid(d, kernel, Tile::THREADS, (size_t)shared, w_tiles * x_tiles) < w_tiles * x_tiles) return false;
    Outputs<Bf16> to = {data_of<Bf16>(y), data_of<Bf16>(h), false};
    to.aligned = aligned_rows(to.y, width) && aligned_rows(to.h, width);
    NormRows in = {present(n.delta) ? data_of<Bf16>(n.sum) : NULL,
                   data_of<Bf16>(n.x),
                   data_of<Bf16>(n.delta),
                   data_of<Bf16>(n.w),
                   (int)M,
                   (int)K,
                   n.eps};
    LAUNCH_EARLY(d, kernel, dim3((unsigned)w_tiles, (unsigned)x_tiles), Tile::THREADS, (size_t)shared, to, in,
                 data_of<Bf16>(w), N, cuda_may_read_early(d, w));
    return true;
}

typedef bool Run(Device *d, Tensor y, Tensor h, Norm n, Tensor w);
static Run *choose(Device *d, bool gated, int64_t M, int64_t N) {
    if (gated) return M <= 8 ? run<Wide8, true> : M <= 16 ? run<Wide16, true> : run<Wide32, true>;
    if (M <= 8) return run<Narrow8, false>;
    if (M <= 16) return run<Narrow16, false>;
    auto tiles = [=](int64_t W) { return (N + W - 1) / W * ((M + Narrow32::X - 1) / Narrow32::X); };
    const int64_t sms = cuda_sm_count(d);
    return tiles(32) <= sms ? run<Narrow32, false> : tiles(64) <= sms ? run<Wide32, false> : run<Widest32, false>;
}

void cuda_norm_matmul(Device *d, Tensor y, Tensor h, Norm n, Tensor w) {
    const int64_t M = n.x.dim[0], N = w.dim[0], K = tensor_width(w);
    auto half = [](Tensor t) { return !present(t) || t.dtype == BF16; };
    auto packs = [=](Tensor t) { return half(t) && aligned_rows(data_of<Bf16>(t), K); };
    if (d->products != PRODUCTS_LIBRARY && M && N && M <= MOST_TOKENS && packs(n.x) && packs(n.delta) && packs(n.sum) &&
        packs(n.w) && packs(w) && half(y) && half(h) && choose(d, present(h), M, N)(d, y, h, n, w))
        return;
    norm_matmul_parts(d, y, h, n, w);
}
