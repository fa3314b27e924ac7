// Products for gradients by Hopper's wgmma, c[M,N] (or +=) = a[M,K] b[K,N]; matmul_bwd.cu asks here first. Of a product
// y[T,n] = x[T,k] w[n,k]^T they are dx = dy w, where M = T, N = k and the sum goes over K = n, and dw += dy^T x, where
// M = n, N = k and it goes over the tokens. Nothing is copied into another order: wgmma reads b, and for dw a too, as
// they lie, in boxes of 64 rows along the sum (hopper.cuh).
//
// The bits of a gradient may depend on the shape, so there are no chunks: registers hold the whole sum of a tile of 128
// rows by W columns (hopper_tile.cuh). Blocks take whole tiles as long as there is one for each of them. Those left
// over are too few for the card, so their sums are cut into `parts`: each block writes the part's sums to scratch, and
// whichever warp of a tile comes last adds its 16 rows of all parts in ascending order. How a shape is cut depends on
// it and on the number of multiprocessors alone, so every run gives the same bytes. What is added to c is read by each
// thread in two batches; of the 128 steps of a sum over 8,192 tokens that takes 2 or 3.
//
// Floor: 2 M N K FLOP. Expected on an H200 from what the forward kernel took there: .77 us for 64 terms of a full tile
// on every multiprocessor (715 TFLOP/s), 5 us to start and end, 1.2 us a part to write or to add. cuBLASLt as measured
// there; us for 8,192 tokens of the 0.5B model, in parentheses the rate in TFLOP/s:
//                 dx: qkv    o          gate_up    down        dw: qkv    o          gate_up    down
//   here          29 (579)   24 (553)   212 (673)  110 (650)   33 (517)   32 (416)   213 (671)  114 (625)
//   cuBLASLt      29 (584)   23 (576)   222 (644)  124 (575)   30 (565)   27 (485)   244 (585)  119 (598)
// So a product is made here where the estimate is above cuBLASLt's usual rate (RATE). `build/bench products` measures
// both on every shape, and says on a card whether that is the right place to change over.
#include "hopper_check.cuh"
#include "hopper_tile.cuh"

#define RATE       79 // %: cuBLASLt's 600 TFLOP/s of the 760 of tiles that had no 16 columns of overhead
#define MOST_PARTS 8
// In the unit of an estimate, a column of a tile during a step; a step of W columns takes W + 16 of it.
#define START     (6 * (256 + 16)) // of the kernel, and the end of its last tiles
#define PART_COST 1.5              // steps' time: to write or to add a part

// How the tiles of a product go to the blocks: the first `whole` of them one after another, the rest in parts.
typedef struct {
    int width;          // W of the tiles, 0: none
    int64_t whole;      // tiles
    int parts;          // of each other one
    double cost, floor; // estimated, and without anything lost
} Cut;

struct PartPlace : TilePlace {
    int64_t rest; // which of the tiles in parts, or < 0
    int part;
};

// Stores a warp's sums of one part in partial[parts][SUMS][256]. Returns whether it is the last to do so of this tile's
// warps with these rows; then `all` is the sum of all parts. *arrived counts them; it is 0 before and after.
template <typename Tile>
static __device__ __forceinline__ bool add_parts(float *all, const float *sum, float *partial, int part, int parts,
                                                 unsigned *arrived) {
    constexpr int EACH = Tile::GROUPS * WARPGROUP;
    float *mine = partial + (int64_t)part * Tile::SUMS * EACH + threadIdx.x;
#pragma unroll
    for (int j = 0; j < Tile::SUMS; j++) __stcg(mine + j * EACH, sum[j]);
    __threadfence();
    __syncwarp();
    unsigned before = 0;
    if (threadIdx.x % WARP == 0) before = atomicAdd(arrived, 1);
    before = __shfl_sync(FULL, before, 0);
    __syncwarp();
    if (before != (unsigned)parts - 1) return false;
    __threadfence();
    if (threadIdx.x % WARP == 0) *arrived = 0;
    const float *from = partial + threadIdx.x;
#pragma unroll
    for (int j = 0; j < Tile::SUMS; j++) all[j] = 0;
#pragma unroll 1
    for (int p = 0; p < parts; p++, from += Tile::SUMS * EACH)
#pragma unroll
        for (int j = 0; j < Tile::SUMS; j++) {
            if (j % (Tile::SUMS / 2) == 0) __syncwarp(); // no more loads than there are registers for
            all[j] += __ldcg(from + j * EACH);
        }
    return true;
}

// Adds a thread's sums to its elements of c: of half of them all are loaded, then all stored.
template <typename Tile>
static __device__ __forceinline__ void hopper_add(float *c, TilePlace at, const float *sum, int64_t M, int64_t N) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t row = at.x + Tile::x_of(2 * h), n = at.w + Tile::w_of(0);
        const int there = row < M ? (int)(N - n) : 0; // of the row's columns from n on
        float *to = c + row * N + n;
        float2 old[Tile::W / 8];
#pragma unroll
        for (int j = 0; j < Tile::W / 8; j++)
            if (j * 8 < there) old[j] = *(const float2 *)(to + j * 8);
        __syncwarp(); // before it the compiler may not place the other half
#pragma unroll
        for (int j = 0; j < Tile::W / 8; j++) {
            const float *pair = sum + 4 * j + 2 * h;
            if (j * 8 < there) *(float2 *)(to + j * 8) = make_float2(old[j].x + pair[0], old[j].y + pair[1]);
        }
    }
}
template <typename Tile>
static __device__ __forceinline__ void hopper_add(Bf16 *c, TilePlace at, const float *sum, int64_t M, int64_t N) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t row = at.x + Tile::x_of(2 * h), n = at.w + (int)threadIdx.x % 4 * 8;
        const int there = row < M ? (int)(N - n) : 0;
        Bf16 *to = c + row * N + n;
        uint4 old[Tile::W / 32];
#pragma unroll
        for (int i = 0; i < Tile::W / 32; i++)
            old[i] = i * 32 < there ? *(const uint4 *)(to + i * 32) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < Tile::W / 32; i++) {
            uint32_t v[4] = {old[i].x, old[i].y, old[i].z, old[i].w};
            quad_transpose(v); // to the elements that this thread has
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float *pair = sum + (i * 4 + j) * 4 + h * 2;
                v[j] = pack_bf16(__uint_as_float(v[j] << 16) + pair[0], __uint_as_float(v[j] & 0xffff0000u) + pair[1]);
            }
            quad_transpose(v);
            if (i * 32 < there) *(uint4 *)(to + i * 32) = make_uint4(v[0], v[1], v[2], v[3]);
        }
    }
}
template <typename Tile, typename U>
static __device__ __forceinline__ void finish(U *c, bool add, TilePlace at, const float *sum, int64_t M, int64_t N) {
    if (add) hopper_add<Tile>(c, at, sum, M, N);
    else hopper_store<Tile>(c, at, sum, M, N, N);
}

template <typename Tile, typename U>
static __global__ void __launch_bounds__(Tile::THREADS, 1)
    product_hopper_kernel(U *c, bool add, const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
                          int64_t M, int64_t N, int K, int64_t whole, int64_t units, int parts, float *partial,
                          unsigned *arrived) {
    SHARED_BOXES(shared);
    const int steps = (K + BOX_COLUMNS - 1) / BOX_COLUMNS;
    hopper_stream<Tile>(
        shared, &a, &b, units, K,
        [=](int64_t unit) {
            PartPlace at;
            at.rest = unit < whole ? -1 : (unit - whole) / parts;
            at.part = unit < whole ? 0 : (int)((unit - whole) % parts);
            (TilePlace &)at = hopper_place<Tile>(unit < whole ? unit : whole + at.rest, M, N);
            if (unit >= whole) at.begin = steps * at.part / parts, at.end = steps * (at.part + 1) / parts;
            return at;
        },
        [=](const PartPlace &at, const float *sum) {
            constexpr int WARPS = Tile::GROUPS * WARPGROUP / WARP;
            if (parts == 1 || at.rest < 0) return finish<Tile>(c, add, at, sum, M, N);
            float all[Tile::SUMS];
            if (add_parts<Tile>(all, sum, partial + at.rest * parts * (Tile::SUMS * Tile::GROUPS * WARPGROUP), at.part,
                                parts, arrived + at.rest * WARPS + threadIdx.x / WARP))
                finish<Tile>(c, add, at, all, M, N);
        });
}

// ---- the launcher ---------------------------------------------------------------------------------------------------
static int64_t tiles_of(int64_t W, int64_t M, int64_t N) { return ((M + HOPPER_X - 1) / HOPPER_X) * ((N + W - 1) / W); }

// Cuts a product into tiles of W columns in the best way.
static Cut cut_into(int W, int64_t M, int64_t N, int64_t K, int64_t sms) {
    const int64_t tiles = tiles_of(W, M, N), steps = (K + BOX_COLUMNS - 1) / BOX_COLUMNS, rest = tiles % sms;
    Cut best = {0, tiles - rest, 1, 0, (double)(M * steps) * (double)N / (double)(HOPPER_X * sms)};
    for (int parts = 1; parts <= MOST_PARTS && parts <= steps && (parts == 1 || parts * rest <= sms); parts++) {
        double last = rest ? (double)((steps + parts - 1) / parts) + (parts > 1 ? (parts + 1) * PART_COST : 0) : 0;
        double cost = START + ((double)(tiles / sms * steps) + last) * (W + 16);
        if (!best.width || cost < best.cost) best.width = W, best.parts = parts, best.cost = cost;
    }
    return best;
}

template <typename Tile, typename U>
static bool run(Device *d, Tensor c, bool add, Tensor a, Tensor b, int64_t K, Cut cut) {
    const int64_t M = c.dim[0], N = tensor_width(c), sms = cuda_sm_count(d);
    const int64_t rest = tiles_of(Tile::W, M, N) - cut.whole, units = cut.whole + rest * cut.parts;
    const size_t bytes = (size_t)(cut.parts > 1 ? rest * cut.parts : 0) * HOPPER_X * Tile::W * sizeof(float);
    TensorMap map_a, map_b;
    if (rest * (Tile::GROUPS * WARPGROUP / WARP) > BLOCK_COUNTERS ||
        bytes + ARENA_ALIGN > d->scratch.cap - d->scratch.used ||
        !hopper_map(&map_a, a, Tile::ACROSS_X ? BOX_COLUMNS : Tile::X) || !hopper_map(&map_b, b, BOX_COLUMNS))
        return false;
    size_t mark = arena_mark(&d->scratch);
    float *partial = bytes ? (float *)arena_take(&d->scratch, bytes) : NULL;
    LAUNCH(d, (product_hopper_kernel<Tile, U>), (unsigned)(units < sms ? units : sms), Tile::THREADS,
           Tile::SHARED_BYTES, data_of<U>(c), add, map_a, map_b, M, N, (int)K, cut.whole, units, cut.parts, partial,
           ((CudaDevice *)d->backend)->arrived);
    arena_rewind(&d->scratch, mark);
    return true;
}
template <typename U, bool a_t> static bool run(Device *d, Tensor c, bool add, Tensor a, Tensor b, int64_t K, Cut cut) {
    switch (cut.width) {
    case 256: return run<HopperTile<256, 4, false, a_t, true>, U>(d, c, add, a, b, K, cut);
    case 224: return run<HopperTile<224, 4, false, a_t, true>, U>(d, c, add, a, b, K, cut);
    case 128: return run<HopperTile<128, 6, false, a_t, true>, U>(d, c, add, a, b, K, cut);
    default: return false;
    }
}
static bool run(Device *d, Tensor c, bool add, Tensor a, bool a_t, Tensor b, int64_t K, Cut cut) {
    if (c.dtype == F32)
        return a_t ? run<float, true>(d, c, add, a, b, K, cut) : run<float, false>(d, c, add, a, b, K, cut);
    return a_t ? run<Bf16, true>(d, c, add, a, b, K, cut) : run<Bf16, false>(d, c, add, a, b, K, cut);
}

static const int widths[] = {256, 224, 128};

bool hopper_product(Device *d, Tensor c, bool add, Tensor a, bool a_t, Tensor b) {
    const int64_t M = c.dim[0], N = tensor_width(c), K = b.dim[0];
    if (!HOPPER_USES(d, product) || d->products == PRODUCTS_LIBRARY || d->error[0] || a.dtype != BF16 ||
        b.dtype != BF16 || !M || !N || !K || !aligned_rows(data_of<Bf16>(a), tensor_width(a)) ||
        !aligned_rows(data_of<Bf16>(b), N) || (uintptr_t)c.data % 16 || M > INT32_MAX || N > INT32_MAX ||
        K > INT32_MAX / MOST_PARTS)
        return false;
    Cut best = {};
    for (int W : widths) {
        Cut cut = cut_into(W, M, N, K, cuda_sm_count(d));
        if (!best.width || cut.cost < best.cost) best = cut;
    }
    if (d->products != PRODUCTS_OWN && best.floor < RATE * .01 * best.cost) return false;
    return run(d, c, add, a, a_t, b, K, best);
}

// ---- the check at open ----------------------------------------------------------------------------------------------
// Counts what is further from b than rounding takes it, NaN too.
template <typename U> static __global__ void far_kernel(const U *a, const U *b, int64_t n, unsigned *differ) {
    const float slack = sizeof(U) == sizeof(float) ? 0x1p-16f : 0x1p-7f;
    unsigned mine = 0;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x)
        mine += !(fabsf(to_float(a[i]) - to_float(b[i])) <= slack * fabsf(to_float(b[i])) + 0x1p-8f);
    if (mine) atomicAdd(differ, mine);
}

// Whether a tile of W columns gives another product's results but for rounding: first set, then with more added, at
// edges of every kind, some tiles whole and some in three parts.
template <typename U> static bool alike(Device *d, int W, bool a_t) {
    const int64_t M = 136, N = W + 40, K = 136, tiles = tiles_of(W, M, N);
    const DType result = sizeof(U) == sizeof(float) ? F32 : BF16;
    const Cut cut = {W, tiles / 2, 3, 0, 0};
    CudaDevice *own = (CudaDevice *)d->backend;
    size_t mark = arena_mark(&d->scratch);
    Tensor a = hopper_draw(d, a_t ? K : M, a_t ? M : K, 1, 1), b = hopper_draw(d, K, N, 1, 2);
    Tensor wanted = hopper_take(d, result, M, N), got = hopper_take(d, result, M, N);
    bool same = true;
    for (int add = 0; add < 2; add++) {
        cuda_product(d, wanted, add, a, a_t, b, false);
        same = same && run(d, got, add, a, a_t, b, K, cut);
    }
    unsigned *differ = own->arrived, count = 1; // 0 between ops, and here again in the end
    LAUNCH(d, far_kernel<U>, grid_for(d, M * N, 256), 256, 0, data_of<U>(got), data_of<U>(wanted), M * N, differ);
    d->copy(d, &count, differ, sizeof count);
    cuda_failed(d, cudaMemsetAsync(differ, 0, sizeof *differ, cuda_stream(d)), "checking Hopper's kernels");
    arena_rewind(&d->scratch, mark);
    return same && !d->error[0] && !count;
}

HopperState hopper_check_product(Device *d) {
    typedef HopperTile<256, 4, false, true, true> Largest;
    HopperState fits = hopper_fits(d, (const void *)product_hopper_kernel<Largest, float>, Largest::SHARED_BYTES);
    if (fits != HOPPER_USED) return fits;
    for (int W : widths)
        for (int a_t = 0; a_t < 2; a_t++)
            if (!alike<float>(d, W, a_t) || !alike<Bf16>(d, W, a_t)) return HOPPER_DIFFERS;
    return HOPPER_USED;
}
