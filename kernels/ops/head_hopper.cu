// The streamed head of many rows by Hopper's wgmma: logprob, its gradient and sample, in place of head_kernel
// (head.cuh) and with its bits; logprob.cu and sample.cu try this first.
//
// A block takes tiles of 128 rows by W tokens of the vocabulary one after another (hopper_tile.cuh). The logits stay in
// registers: a row and chunk are in four lanes of a warp, a quad of logits 16 apart in one of them, and neighbouring
// quads in one lane or in neighbouring ones. So the tree of a chunk's sums is the portable kernel's with two shuffles,
// and no logit crosses shared memory. One warpgroup does that while the other multiplies, as far as the ring of stages
// lets them come apart, which is four steps of K or 2,000 cycles of products.
//
// Floor: 2 N V D FLOP. At D = 896 (W = 256) the products of a tile take 14,336 cycles of the tensor cores. The 128
// logits of a thread cost, in machine code, 11 instructions each in logprob (scale, maximum, shift, exponential, two
// sums, shuffles), 20 in logprob_bwd, 40 in sample, 15 of them Philox's: of two warps that share a scheduler 2,800,
// 5,100 and 10,300 cycles. At 0.7 instructions a cycle, and with 2,000 cycles hidden, a tile is longer by 0, 1,600 and
// 5,300 cycles. Expected for the products of 8,192 rows, from matmul_hopper's 694 TFLOP/s for that tile: 640 in logprob
// and 600 in logprob_bwd; and 140 us for sample at B = 256, where the floor is 88. Longer rows have two sets of sums in
// registers and W = 128, so half as many products for a box, which the second-level cache may not bring in time: 500,
// 480 and 400 TFLOP/s.
#include "draw.cuh"
#include "head.cuh"
#include "hopper_check.cuh"
#include "hopper_tile.cuh"

#define LEAST_ROWS 65 // a tile has 128; with fewer, reading the weights is the limit

// A pass over rows 0 .. n - 1 and tokens first .. end - 1 of a vocabulary of V.
typedef struct {
    int64_t n, V, first, end;
    int D;
    float scale;
} Pass;

template <typename Tile, typename Done>
static __global__ void __launch_bounds__(Tile::THREADS, 1)
    head_hopper_kernel(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w, Pass p, Done done) {
    SHARED_BOXES(shared);
    wait_for_earlier();
    const int64_t x_tiles = (p.n + Tile::X - 1) / Tile::X, w_tiles = (p.end - p.first + Tile::W - 1) / Tile::W;
    hopper_stream<Tile>(
        shared, &x, &w, x_tiles * w_tiles, p.D,
        [=](int64_t id) -> TilePlace {
            return {(int)(id % x_tiles) * Tile::X, (int)(p.first + id / x_tiles * Tile::W)};
        },
        [&](TilePlace at, const float *sum) { done.template run<Tile>(p, at, sum); });
}

// ---- a row and chunk in four lanes ----------------------------------------------------------------------------------
#define EACH (HEAD_CHUNK / 4) // logits of a lane

// The token, counted from the chunk's first, of a lane's logit i; and where logit i of its quad k is, whose first token
// is quad_token(k).
static __device__ __forceinline__ int token_of(int i) { return i / 2 * 8 + (int)threadIdx.x % 4 * 2 + i % 2; }
static __device__ __forceinline__ constexpr int quad_at(int k, int i) {
    return k / 4 * 16 + i * 4 + k / 2 % 2 * 2 + k % 2;
}
static __device__ __forceinline__ int quad_token(int k) { return token_of(quad_at(k, 0)); }

// Calls f(row, token, z) for every row and chunk of a tile that this thread has logits z[EACH] of: -inf past the end of
// the vocabulary.
template <typename Tile, typename F>
static __device__ __forceinline__ void each_chunk(const Pass &p, TilePlace at, const float *sum, F f) {
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int c = 0; c < Tile::W / HEAD_CHUNK; c++) {
            const int token = at.w + c * HEAD_CHUNK, left = (int)p.V - token;
            if (left <= 0) continue;
            float z[EACH];
#pragma unroll
            for (int i = 0; i < EACH; i++) z[i] = sum[(c * EACH + i) / 2 * 4 + half * 2 + i % 2] * p.scale;
            if (left < HEAD_CHUNK)
#pragma unroll
                for (int i = 0; i < EACH; i++)
                    if (token_of(i) >= left) z[i] = -INFINITY;
            f((int64_t)at.x + Tile::x_of(2 * half), token, z);
        }
}

// The summary of a row and chunk, in all four lanes.
static __device__ __forceinline__ Lse lanes_summary(const float z[EACH]) {
    float max = z[0];
#pragma unroll
    for (int i = 1; i < EACH; i++) max = fmaxf(max, z[i]);
#pragma unroll
    for (int k = 1; k < 4; k *= 2) max = fmaxf(max, __shfl_xor_sync(FULL, max, k));
    float sum[4], dot[4];
#pragma unroll
    for (int k = 0; k < 4; k++) { // quads 2 k and 2 k + 1 are neighbours, and those of the four lanes are
        float s[2], d[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float quad[4];
#pragma unroll
            for (int i = 0; i < 4; i++) quad[i] = z[quad_at(2 * k + e, i)];
            quad_sums(quad, max, s + e, d + e);
        }
        sum[k] = s[0] + s[1], dot[k] = d[0] + d[1];
#pragma unroll
        for (int apart = 1; apart < 4; apart *= 2) {
            sum[k] += __shfl_xor_sync(FULL, sum[k], apart);
            dot[k] += __shfl_xor_sync(FULL, dot[k], apart);
        }
    }
    return {max, tree_sum<4>(sum), tree_sum<4>(dot)};
}

// ---- what becomes of the logits -------------------------------------------------------------------------------------
struct Summarise : Summaries {
    template <typename Tile> __device__ __forceinline__ void run(const Pass &p, TilePlace at, const float *sum) const {
        each_chunk<Tile>(p, at, sum, [&](int64_t row, int token, const float *z) {
            Lse l = lanes_summary(z);
            if (row >= p.n) return;
            if (threadIdx.x % 4 == 0) summary[row * chunks + token / HEAD_CHUNK] = l;
            const int y = target[row] - token;
            if (y < 0 || y >= HEAD_CHUNK) return;
#pragma unroll
            for (int i = 0; i < EACH; i++)
                if (token_of(i) == y) z_target[row] = z[i];
        });
    }
};

struct Choose : Choices {
    template <typename Tile> __device__ __forceinline__ void run(const Pass &p, TilePlace at, const float *sum) const {
        each_chunk<Tile>(p, at, sum, [&](int64_t row, int token, const float *z) {
            Lse l = lanes_summary(z);
            const bool active = row < p.n && draw.key[row] >= 0;
            Candidate c = {-INFINITY, z[0], 0};
            auto logit = [&](int k, int i) { // registers have no index: all are gone through where k is not constant
                float v = z[quad_at(0, i)];
#pragma unroll
                for (int j = 1; j < EACH / 4; j++)
                    if (j == k) v = z[quad_at(j, i)];
                return v;
            };
            if (active) c = draw_best<EACH / 4, EACH / 4>(draw, draw.key[row], draw.pos[row], token, quad_token, logit);
#pragma unroll
            for (int k = 1; k < 4; k *= 2)
                take_better(&c, {__shfl_xor_sync(FULL, c.score, k), __shfl_xor_sync(FULL, c.z, k),
                                 __shfl_xor_sync(FULL, c.id, k)});
            if (!active || threadIdx.x % 4) return;
            const int64_t to = row * chunks + token / HEAD_CHUNK;
            summary[to] = l;
            best[to] = {c.score, c.z, token + c.id};
        });
    }
};

// dz[stride, end - first]: a row of x along each of its rows, as wgmma leaves the logits. Like hopper_store, but every
// 32 tokens are on their way before the next are computed, or registers would not do.
struct Differentiate : Gradients<Bf16> {
    template <typename Tile> __device__ __forceinline__ void run(const Pass &p, TilePlace at, const float *sum) const {
        const int64_t width = p.end - p.first, column = at.w - p.first;
        const int q = (int)threadIdx.x % 4;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int64_t row = at.x + Tile::x_of(2 * half);
            const HeadSlope slope = slope_of(row);
            const int y = slope.target - at.w - 2 * q;
#pragma unroll
            for (int c = 0; c < Tile::W; c += 32) {
                uint32_t v[4];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float *z = sum + (c / 8 + j) * 4 + half * 2;
                    float g[2];
#pragma unroll
                    for (int e = 0; e < 2; e++) g[e] = p.scale * slope.at(z[e] * p.scale, y == c + j * 8 + e);
                    v[j] = pack_bf16(g[0], g[1]);
                }
                quad_transpose(v);
                const int64_t n = column + c + q * 8;
                if (row < stride && n < width) *(uint4 *)(dz + row * width + n) = make_uint4(v[0], v[1], v[2], v[3]);
            }
        }
    }
};

// ---- launchers ------------------------------------------------------------------------------------------------------
typedef HopperTile<2 * HEAD_CHUNK, 4, false> OneChunk; // of K
typedef HopperTile<HEAD_CHUNK, 6, true> Chunks;

template <typename Tile, typename Done> static bool run(Device *d, Tensor x, Tensor w, Pass p, Done done) {
    const int64_t x_tiles = (p.n + Tile::X - 1) / Tile::X,
                  tiles = x_tiles * ((p.end - p.first + Tile::W - 1) / Tile::W);
    const int64_t sms = cuda_sm_count(d);
    TensorMap map_x, map_w;
    if (!hopper_map(&map_x, x, Tile::X) || !hopper_map(&map_w, w, Tile::W)) return false;
    LAUNCH_EARLY(d, (head_hopper_kernel<Tile, Done>), (unsigned)(tiles < sms ? tiles : sms), Tile::THREADS,
                 Tile::SHARED_BYTES, map_x, map_w, p, done);
    return true;
}
// Over tokens h.first HEAD_CHUNK .. end - 1. False, and nothing done, where this is not for such a head.
template <typename Done> static bool run(Device *d, Head<Bf16> h, int64_t end, Done done) {
    if (!HOPPER_USES(d, head) || h.n < LEAST_ROWS || !h.D || !aligned_rows(h.x, h.D) || !aligned_rows(h.w, h.D) ||
        h.n > INT32_MAX || h.V > INT32_MAX - 2 * HEAD_CHUNK)
        return false;
    size_t mark = arena_mark(&d->scratch);
    Tensor x = tensor2((void *)h.x, BF16, h.n, h.D), w = tensor2((void *)h.w, BF16, h.V, h.D);
    if (h.rows) { // boxes are of neighbouring rows
        if (d->scratch.used + tensor_bytes(x) + 2 * ARENA_ALIGN > d->scratch.cap) return false;
        x = hopper_take(d, BF16, h.n, h.D);
        gather_rows(d, data_of<Bf16>(x), h.x, h.rows, h.n, h.n, h.D);
    }
    Pass p = {h.n, h.V, h.first * HEAD_CHUNK, end, h.D, h.scale};
    bool done_so = k_chunks<Bf16>(h.D) == 1 ? run<OneChunk>(d, x, w, p, done) : run<Chunks>(d, x, w, p, done);
    arena_rewind(&d->scratch, mark);
    return done_so;
}

bool hopper_summarise(Device *d, Head<Bf16> h, Summaries to) { return run(d, h, h.V, Summarise{to}); }
bool hopper_choose(Device *d, Head<Bf16> h, Choices to) { return run(d, h, h.V, Choose{to}); }
bool hopper_differentiate(Device *d, Head<Bf16> h, int64_t len, Gradients<Bf16> to) {
    return len % Pack<Bf16>::N == 0 && run(d, h, h.first * HEAD_CHUNK + len, Differentiate{to});
}

// ---- the check at open ----------------------------------------------------------------------------------------------
#define CHECK_ROWS   72
#define CHECK_TOKENS 264

// The results of both ops on the same numbers, as the device chooses its kernels now.
typedef struct {
    Tensor logp, lse, entropy, token, drawn_logp; // [CHECK_ROWS]
} Results;
static Results results(Device *d, Tensor x, Tensor w, Tensor rows, Tensor key, float temperature) {
    auto column = [&](DType t) {
        Tensor c = hopper_take(d, t, CHECK_ROWS, 1);
        return tensor1(c.data, t, CHECK_ROWS);
    };
    Results r = {column(F32), column(F32), column(F32), column(I32), column(F32)};
    cuda_logprob(d, r.logp, r.lse, r.entropy, x, rows, w, rows, temperature);
    cuda_sample(d, {r.token, r.drawn_logp, NONE, NONE}, x, w, key, rows, NONE, NONE,
                {.temperature = temperature, .top_p = 1, .repetition_penalty = 1, .seed = 1});
    return r;
}
// Whether the portable kernel and these agree, for rows of D and a vocabulary that has the tiles' edges. Of the sizes
// 2^-spread to 2^spread, many show how the products are added, few how the sums over the vocabulary are.
static bool alike(Device *d, int64_t D, int spread, float temperature) {
    CudaDevice *own = (CudaDevice *)d->backend;
    size_t mark = arena_mark(&d->scratch);
    Tensor x = hopper_draw(d, CHECK_ROWS, D, spread, 1), w = hopper_draw(d, CHECK_TOKENS, D, spread, 2);
    int32_t row[CHECK_ROWS]; // also its target and its position
    int64_t number[CHECK_ROWS];
    for (int i = 0; i < CHECK_ROWS; i++) row[i] = i * 7 % CHECK_ROWS, number[i] = i;
    Tensor rows = tensor1(hopper_take(d, I32, CHECK_ROWS, 1).data, I32, CHECK_ROWS);
    Tensor key = tensor1(hopper_take(d, I64, CHECK_ROWS, 1).data, I64, CHECK_ROWS);
    d->copy(d, rows.data, row, sizeof row);
    d->copy(d, key.data, number, sizeof number);
    Results wanted = results(d, x, w, rows, key, temperature);
    own->hopper[HOPPER_head] = HOPPER_USED;
    Results got = results(d, x, w, rows, key, temperature);
    own->hopper[HOPPER_head] = HOPPER_OTHER_CARD;
    bool same = hopper_equal(d, wanted.logp, got.logp) && hopper_equal(d, wanted.lse, got.lse) &&
                hopper_equal(d, wanted.entropy, got.entropy) && hopper_equal(d, wanted.token, got.token) &&
                hopper_equal(d, wanted.drawn_logp, got.drawn_logp);
    arena_rewind(&d->scratch, mark);
    return same;
}

// Gradients have no bits of their own to compare: they are made of the same logits.
HopperState hopper_check_head(Device *d) {
    static_assert(OneChunk::SHARED_BYTES <= Chunks::SHARED_BYTES, "");
    HopperState fits = hopper_fits(d, (const void *)head_hopper_kernel<OneChunk, Choose>, Chunks::SHARED_BYTES);
    if (fits != HOPPER_USED) return fits;
    bool same = alike(d, 1000, 20, 1) && alike(d, 1096, 20, 1) && alike(d, 40, 1, 8);
    return same ? HOPPER_USED : HOPPER_DIFFERS;
}
