// norm_matmul: y = n w^T, with n the RMSNorm of x + delta; and h = silu(g) u of y's halves. For as few tokens as decode
// has: there a kernel of its own for the norm is all launch and latency, twice a layer.
//
// A block has one tile of W weights and up to 32 tokens. It norms them into shared memory, one, two or four rows a
// warp, where tensor cores read them as tile.cuh's stages would hold them. The blocks of the same tokens share the
// writing of the sum. The norm is that of rmsnorm, the product that of matmul, to the bit (row_norm.cuh, tile.cuh). The
// first weights are on the way while the block norms; in a graph whose weights are constant, while it waits for the
// kernels before it.
//
// Floor: w once over the bandwidth of memory. Of 0.5B a block reads 2 x 16 x 896 elements of the stream too, from the
// second-level cache: 57 KB beside the 115 KB of its tile of gate_up, in the time that those take anyway.
// Expected on an H200, beside a norm and a product: the norm's node, 1.5 to 2 us from the last block of the kernel
// before it to the first of the product, becomes what a block needs from the product's first read of its tokens to the
// norm in shared memory: 0.4 us up to 8 tokens (320 instructions a row, one row a warp; the norm's weights come after
// the rows), 0.5 up to 16, 0.8 up to 32. So at 8 tokens the 48 nodes of 0.5B save 50 to 75 of a step's 900 us.
// With more tokens each tile of weights has a block for every 32 of them, all at once, and reads its weights from the
// second-level cache as often. qkv of 0.5B at 64 tokens: 72 blocks of 114 KB take 1 us for those and 0.8 for the norm;
// at 256, 144 blocks of 172 KB, two on some SMs, 3.1 and 1.2. With 2 for launch and first bytes 3.8 and 6.3 us, where
// the norm takes 1.75 and the product was measured at 4.8 and 6.7: 50 us less a step of 1,200 to 1,350.
//
// Where it stops, and rmsnorm and the product stay apart:
//   More tiles than run at once: a second wave would cost more than the node. gate_up of 0.5B from 33 tokens on, 304
//   blocks, of 1.5B from 9, 280; qkv of 1.5B from 129, of 7B from 9. Two other ways, expected to save 0.5 to 1 us a
//   node, are left for a card to judge: clusters whose blocks norm a share of the rows each and read the others'; and a
//   last block of o or down that norms what all have written, alone, which takes about the node's own time.
//   More than 256 tokens: then mma.sync loses more to wgmma than the node takes.
// Registers allow three blocks an SM up to 8 tokens, else two (make check-cuda; none spills).
#include "norm_matmul.h"
#include "cuda.cuh"
#include "outputs.cuh"
#include "row_norm.cuh"

// Tiles by their tokens. Of 64 weights where those are gate and up; else of 32, as what is left of a layer has few,
// while each SM has one. Eight warps norm, and as many of them multiply as there are mma tiles.
template <int W, int X, int W_WARPS, int X_WARPS>
using Resident = MmaTile<W, X, W_WARPS, X_WARPS, W == 64 ? 6 : 10, IN_REGISTERS, true, 8 - W_WARPS * X_WARPS>;
typedef Resident<64, 8, 4, 1> Wide8;
typedef Resident<64, 16, 4, 2> Wide16;
typedef Resident<64, 32, 4, 2> Wide32;
typedef Resident<32, 8, 2, 1> Narrow8;
typedef Resident<32, 16, 2, 2> Narrow16;
typedef Resident<32, 32, 2, 4> Narrow32;

#define MOST_TOKENS 256

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

// Norms the tokens from `first` on into `to`, which MmaTile calls its resident tokens; the blocks that do, of all tiles
// of weights, share the writing of the sum. A warp takes rows `warp`, warp + WARPS, ...,
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

template <typename Tile, bool GATED>
static __global__ void __launch_bounds__(Tile::THREADS, Tile::X == 8 ? 3 : 2)
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

// False, and nothing done, where not all blocks would run at once.
template <typename Tile, bool GATED> static bool run(Device *d, Tensor y, Tensor h, Norm n, Tensor w) {
    const int64_t N = w.dim[0], K = tensor_width(w), width = GATED ? N / 2 : N, rows = GATED ? Tile::W / 2 : Tile::W;
    const int64_t M = n.x.dim[0], w_tiles = (width + rows - 1) / rows, x_tiles = (M + Tile::X - 1) / Tile::X;
    const int64_t shared = Tile::SHARED_BYTES + token_bytes<Tile>(K) + OUT_BYTES<Tile>;
    auto kernel = norm_matmul_kernel<Tile, GATED>;
    if (shared > (int64_t)((CudaDevice *)d->backend)->shared) return false;
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
    const int64_t narrow = (N + Narrow32::W - 1) / Narrow32::W * ((M + Narrow32::X - 1) / Narrow32::X);
    return M <= 32 || narrow <= cuda_sm_count(d) ? run<Narrow32, false> : run<Wide32, false>;
}

void cuda_norm_matmul(Device *d, Tensor y, Tensor h, Norm n, Tensor w) {
    const int64_t M = n.x.dim[0], N = w.dim[0], K = tensor_width(w);
    auto half = [](Tensor t) { return !present(t) || t.dtype == BF16; };
    auto packs = [=](Tensor t) { return half(t) && aligned_rows(data_of<Bf16>(t), K); };
    if (d->products != PRODUCTS_LIBRARY && M && N && M <= MOST_TOKENS && K <= STRIPS * WARP * Pack<Bf16>::N &&
        packs(n.x) && packs(n.delta) && packs(n.sum) && packs(n.w) && packs(w) && half(y) && half(h) &&
        choose(d, present(h), M, N)(d, y, h, n, w))
        return;
    norm_matmul_parts(d, y, h, n, w);
}
