// matmul, y[M,N] = x[M,K] w[N,K]^T, by Hopper's wgmma, for many tokens; matmul.cu tries this first.
//
// A block takes tiles of 128 tokens by W weights one after another (hopper_tile.cuh), or chunks of K of them, whose
// sums wait in scratch for the last one (hopper_choice.h says which and when). Neighbouring blocks work on a band of
// BAND tiles of tokens, so that what they read is in the second-level cache. Outputs are written from registers: the
// four lanes that share a row first exchange their pairs, so that each writes 16 bytes of bf16.
//
// Floor: 2 M N K FLOP over the tensor cores' rate, and (M K + N K + M N) elements over the bandwidth of memory.
// Measured on an H200 in a test program, M = 8192 (cuBLASLt: 690 TFLOP/s for 8192 cubed, this kernel 668); in
// parentheses the portable kernel, from the profile of a training step on the same card:
//   N, K        9728, 896        896, 4864        1152, 896       896, 896
//   tile        One256           Chunks160        One192          One256
//   us          206 (396)        115 (203)        30 (64)         27 (44)
//   TFLOP/s     694              623              559             480
// Expected at 256 tokens of 0.5B, in a decode graph, us (what the portable kernel, for gate_up one wave of 102 tiles,
// took before): gate_up with swiglu 10 (17.9 and swiglu's 3), down 8 (16). A tile of 160 x 128 x 896 is 6.1 us of
// products at 790 TFLOP/s over 132 SMs, 96 x 128 x 1024 4.2; the first boxes take 1 (of weights nothing, where they are
// copied early), the way of the sums of down through the cache 1.5 (4.9 MB there and back), the launch 1. Clusters of
// two blocks that share the weights' boxes were slower in every shape (262 us for the first).
#include "chunks.cuh"
#include "hopper_check.cuh"
#include "hopper_tile.cuh"
#include "swiglu.cuh"

// What a product writes: y[M,N]; or with swiglu h[M,N/2], and y where it is not NULL.
template <typename U> struct Outputs { U *y, *h; };

// With swiglu a tile's weights are W/2 rows of gate, then the W/2 of up that belong to them: a thread has both, as
// sum[j] and sum[j + W/4]. h is made of them as y would store them.
template <typename Tile, typename U>
static __device__ __forceinline__ void store_gated(Outputs<U> to, TilePlace at, const float *sum, int64_t M,
                                                   int64_t N) {
    typedef HopperTile<Tile::W / 2, Tile::STAGES, Tile::CHUNKS> Half;
    const int64_t F = N / 2;
    float gate[Half::SUMS];
#pragma unroll
    for (int j = 0; j < Half::SUMS; j++)
        gate[j] = gated(to_float(from_float<U>(sum[j])), to_float(from_float<U>(sum[j + Half::SUMS])));
    hopper_store<Half>(to.h, at, gate, M, F, F);
    if (!to.y) return;
    hopper_store<Half>(to.y, at, sum, M, F, N);
    hopper_store<Half>(to.y + F, at, sum + Half::SUMS, M, F, N);
}

// Where the items of a product that is split keep their sums (splits > 1), and count themselves.
struct Split {
    int splits;
    float *partial;    // [tiles][2 warpgroups][splits][SUMS][WARPGROUP]
    unsigned *arrived; // [tiles][2]
};
struct ItemPlace : TilePlace {
    int64_t tile;
    int chunk;
};

template <typename Tile, typename U>
static __global__ void __launch_bounds__(Tile::THREADS, 1)
    matmul_hopper_kernel(Outputs<U> to, const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,
                         int64_t M, int64_t N, int K, Split split, bool w_first) {
    SHARED_BOXES(shared);
    constexpr int CHUNK_STEPS = K_CHUNK<Bf16> / BOX_COLUMNS;
    Mbarrier *meet = (Mbarrier *)(shared + Tile::SHARED_BYTES); // [2]: of each warpgroup
    unsigned *before = (unsigned *)(meet + 2);                  // [2]
    const int rows = to.h ? Tile::W / 2 : Tile::W, group = (int)threadIdx.x / WARPGROUP;
    const int64_t all = to.h ? N / 2 : N;
    const int64_t x_tiles = (M + Tile::X - 1) / Tile::X, w_tiles = (all + rows - 1) / rows;
    const int splits = Tile::CHUNKS ? 1 : split.splits;
    if (threadIdx.x == 0) mbarrier_init(meet, WARPGROUP), mbarrier_init(meet + 1, WARPGROUP);
    int phase = 0;
    hopper_stream<Tile>(
        shared, &x, &w, x_tiles * w_tiles * splits, K,
        [=](int64_t id) {
            ItemPlace at = {};
            at.tile = id / splits;
            (TilePlace &)at = hopper_place<Tile>(at.tile, M, all, rows);
            if (splits > 1) {
                at.chunk = (int)(id - at.tile * splits);
                at.begin = at.chunk * CHUNK_STEPS, at.end = at.begin + CHUNK_STEPS;
            }
            return at;
        },
        [&](ItemPlace at, float *sum) {
            if (splits > 1) {
                auto barrier = [&] {
                    mbarrier_arrive(meet + group);
                    mbarrier_wait(meet + group, phase);
                    phase ^= 1;
                };
                const int64_t half = at.tile * 2 + group;
                if (!add_chunks<Tile::SUMS, WARPGROUP>(sum, split.partial + half * splits * (Tile::SUMS * WARPGROUP),
                                                       at.chunk, splits, split.arrived + half, before + group,
                                                       (int)threadIdx.x % WARPGROUP, barrier))
                    return;
            }
            if (to.h) store_gated<Tile>(to, at, sum, M, N);
            else hopper_store<Tile>(to.y, at, sum, M, N, N);
        },
        to.h ? (int)all : 0, w_first);
}

// ---- the launcher ---------------------------------------------------------------------------------------------------
typedef decltype(&cuTensorMapEncodeTiled) Encode;
static Encode encoder() { // NULL where the driver has none
    static Encode encode; // the same for every device of a process
    if (encode) return encode;
    cudaDriverEntryPointQueryResult found;
    void *function = NULL;
#if CUDART_VERSION >= 12050
    cudaError_t status =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
    cudaError_t status = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
    return status == cudaSuccess && found == cudaDriverEntryPointSuccess ? encode = (Encode)function : NULL;
}
// size, stride, box: from the innermost dimension on; `stride` leaves that out, and counts bytes.
static bool map_of(TensorMap *map, cuuint32_t dimensions, void *data, const cuuint64_t *size, const cuuint64_t *stride,
                   const cuuint32_t *box) {
    const cuuint32_t step[3] = {1, 1, 1};
    Encode encode = encoder();
    return encode && encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, dimensions, data, size, stride, box, step,
                            CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
bool hopper_map(TensorMap *map, Tensor m, int box) {
    const cuuint64_t K = (cuuint64_t)tensor_width(m);
    const cuuint64_t size[2] = {K, (cuuint64_t)m.dim[0]}, stride[1] = {K * sizeof(Bf16)};
    const cuuint32_t boxes[2] = {BOX_COLUMNS, (cuuint32_t)box};
    return map_of(map, 2, m.data, size, stride, boxes);
}
bool hopper_map_heads(TensorMap *map, Tensor m, int box) {
    const cuuint64_t size[3] = {(cuuint64_t)m.dim[2], (cuuint64_t)m.dim[1], (cuuint64_t)m.dim[0]};
    const cuuint64_t stride[2] = {size[0] * sizeof(Bf16), size[0] * size[1] * sizeof(Bf16)};
    const cuuint32_t boxes[3] = {BOX_COLUMNS, 1, (cuuint32_t)box};
    return map_of(map, 3, m.data, size, stride, boxes);
}

// The tiles, named by their weights. A thread's registers hold 128 sums, or with CHUNKS 96 beside as many accumulators.
typedef HopperTile<256, 4, false> One256;
typedef HopperTile<192, 5, false> One192;
typedef HopperTile<160, 6, false> One160;
typedef HopperTile<96, 7, false> One96;
typedef HopperTile<64, 8, false> One64;
typedef HopperTile<192, 5, true> Chunks192;
typedef HopperTile<160, 6, true> Chunks160;
typedef HopperTile<128, 6, true> Chunks128;

template <typename Tile, typename U> static bool run(Device *d, Tensor y, Tensor h, Tensor x, Tensor w, bool split) {
    const int64_t M = x.dim[0], N = w.dim[0], chunks = split ? k_chunks<Bf16>(tensor_width(w)) : 1;
    const int64_t items = hopper_tiles(Tile::W, M, N) * chunks, sms = cuda_sm_count(d);
    TensorMap map_x, map_w;
    if (!hopper_map(&map_x, x, Tile::X) || !hopper_map(&map_w, w, present(h) ? Tile::W / 2 : Tile::W)) return false;
    size_t mark = arena_mark(&d->scratch);
    void *sums = split ? arena_take(&d->scratch, (size_t)hopper_sums(Tile::W, M, N, chunks)) : NULL;
    Outputs<U> to = {data_of<U>(y), data_of<U>(h)};
    Split parts = {(int)chunks, (float *)sums, ((CudaDevice *)d->backend)->arrived};
    LAUNCH_EARLY(d, (matmul_hopper_kernel<Tile, U>), (unsigned)(items < sms ? items : sms), Tile::THREADS,
                 Tile::SHARED_BYTES + 32, to, map_x, map_w, M, N, (int)tensor_width(x), parts,
                 cuda_may_read_early(d, w));
    arena_rewind(&d->scratch, mark);
    return true;
}
template <typename U> static bool run_chosen(Device *d, Tensor y, Tensor h, Tensor x, Tensor w) {
    const int64_t chunks = k_chunks<Bf16>(tensor_width(w)), left = (int64_t)(d->scratch.cap - d->scratch.used);
    HopperChoice c =
        hopper_choose(x.dim[0], w.dim[0], chunks, cuda_sm_count(d), left - (int64_t)ARENA_ALIGN, BLOCK_COUNTERS);
    const bool whole = chunks > 1 && !c.split;
    switch (c.W) {
    case 256: return run<One256, U>(d, y, h, x, w, c.split);
    case 192: return (whole ? run<Chunks192, U> : run<One192, U>)(d, y, h, x, w, c.split);
    case 160: return (whole ? run<Chunks160, U> : run<One160, U>)(d, y, h, x, w, c.split);
    case 128: return run<Chunks128, U>(d, y, h, x, w, false);
    case 96: return run<One96, U>(d, y, h, x, w, c.split);
    case 64: return run<One64, U>(d, y, h, x, w, c.split);
    default: return false;
    }
}

bool hopper_matmul(Device *d, Tensor y, Tensor h, Tensor x, Tensor w) {
    const int64_t M = x.dim[0], N = w.dim[0], K = tensor_width(w), width = present(h) ? N / 2 : N;
    if (!HOPPER_USES(d, matmul) || M <= 64 || !K || width % Pack<Bf16>::N || !aligned_rows(data_of<Bf16>(x), K) ||
        !aligned_rows(data_of<Bf16>(w), K) || (uintptr_t)y.data % 16 || (uintptr_t)h.data % 16 || M > INT32_MAX ||
        N > INT32_MAX)
        return false;
    return (present(h) ? h : y).dtype == BF16 ? run_chosen<Bf16>(d, y, h, x, w) : run_chosen<float>(d, y, h, x, w);
}

// ---- the check at open ----------------------------------------------------------------------------------------------
// Whether this tile gives the portable kernel's bits, for K columns and a shape that has the tile's edges.
template <typename Tile, typename U> static bool alike(Device *d, int64_t K, bool split) {
    const int64_t M = HOPPER_X + 8, N = Tile::W + 40;
    const DType result = sizeof(U) == sizeof(float) ? F32 : BF16;
    size_t mark = arena_mark(&d->scratch);
    Tensor x = hopper_draw(d, M, K, 20, 1), w = hopper_draw(d, N, K, 20, 2);
    Tensor wanted = hopper_take(d, result, M, N), got = hopper_take(d, result, M, N);
    cuda_matmul(d, wanted, x, w); // the portable one: this is not in use yet
    bool same = run<Tile, U>(d, got, NONE, x, w, split) && hopper_equal(d, wanted, got);
    arena_rewind(&d->scratch, mark);
    return same;
}
// The same of matmul_swiglu.
template <typename Tile> static bool gated_alike(Device *d, int64_t K, bool split) {
    const int64_t M = HOPPER_X + 8, N = Tile::W + 48;
    size_t mark = arena_mark(&d->scratch);
    Tensor x = hopper_draw(d, M, K, 2, 3), w = hopper_draw(d, N, K, 2, 4);
    Tensor wanted = hopper_take(d, BF16, M, N / 2), got = hopper_take(d, BF16, M, N / 2);
    cuda_matmul_swiglu(d, wanted, NONE, x, w);
    bool same = run<Tile, Bf16>(d, NONE, got, x, w, split) && hopper_equal(d, wanted, got);
    arena_rewind(&d->scratch, mark);
    return same;
}
template <typename Tile> static bool alike(Device *d, int64_t K, bool split = false) {
    return alike<Tile, float>(d, K, split) && alike<Tile, Bf16>(d, K, split) && gated_alike<Tile>(d, K, split);
}

HopperState hopper_check_matmul(Device *d) {
    HopperState fits =
        hopper_fits(d, (const void *)matmul_hopper_kernel<Chunks160, Bf16>, Chunks160::SHARED_BYTES + 32);
    if (fits != HOPPER_USED) return fits;
    bool same = alike<One256>(d, 1000) && alike<One192>(d, 1000) && alike<One160>(d, 1000) && alike<One96>(d, 1000) &&
                alike<One64>(d, 1000) && alike<One96>(d, 2120, true) && alike<Chunks192>(d, 1096) &&
                alike<Chunks160>(d, 1096) && alike<Chunks128>(d, 2120);
    return same ? HOPPER_USED : HOPPER_DIFFERS;
}
