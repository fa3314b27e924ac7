// Log-probs of given tokens by the streamed head (head.cuh), and their gradient.
//
// logprob: lse = log sum e^z, logp = z[target] - lse, entropy = lse - sum p z, with z = x[rows] w[V,D]^T / temperature.
//   A block owns HEAD_CHUNK tokens of the vocabulary and up to 128 rows, and stores a summary of 12 bytes for each row;
//   a second kernel has a block for each row and combines its summaries. Floor: 2 N V D FLOP; w is read once for a pass
//   of some 1,000 rows, and the products of so many rows hide that. The logits cross shared memory once and are read
//   from there twice, which is expected to add about a third of the product's time at D = 896, a tenth at 3584; on
//   Hopper many rows take head_hopper.cu, which is expected to reach 77 % of the floor.
// logprob_bwd: computes the logits again, the same bits, and turns them into their gradient on the way to scratch
//   dz_v = (1/temperature) (dlogp (1[v = target] - p_v) - dentropy p_v (log p_v + entropy))
//   as dz[tokens of the vocabulary, rows], or on Hopper its transpose; then dx += dz^T w and dw += dz x as any gradient.
//   Blocks of rows and of the vocabulary keep it within scratch. Floor: 6 N V D FLOP. 8,192 rows of 0.5B go in blocks
//   of 4,096 rows by 4,096 tokens, which move 4.4 GB of sums beside that; on Hopper, which has four times the scratch,
//   of all rows by 12,544 tokens, and 1.9 GB. Expected there: 11.4 ms where the floor is 8.5.
#include "cuda.cuh"
#include "head.cuh"

#define COMBINE_THREADS LSE_THREADS
#define SUMMARIES_ROOM  ((size_t)14 << 20) // bytes of summaries in one pass

// ---- forward -------------------------------------------------------------------------------------------------------
// What head_kernel does with a chunk's logits.
struct Summarise : Summaries {
    template <int X> __device__ __forceinline__ void run(HeadRoom<X> *room, int64_t row, int64_t token, int len) const {
        Lse l = head_summary(room);
        int64_t n_row = row + threadIdx.x;
        if (threadIdx.x >= X || n_row >= n) return;
        summary[n_row * chunks + token / HEAD_CHUNK] = l;
        int64_t y = target[n_row] - token;
        if (y >= 0 && y < len) z_target[n_row] = room->z[y][threadIdx.x];
    }
};

// Combines a row's summaries, a block for each row. logp comes in as z[target].
static __global__ void combine_kernel(float *logp, float *lse, float *entropy, const Lse *summary, int64_t chunks) {
    SHARED(double, room, [32]);
    RowLse l = head_lse(summary + blockIdx.x * chunks, chunks, room);
    if (threadIdx.x) return;
    lse[blockIdx.x] = l.lse;
    logp[blockIdx.x] -= l.lse;
    if (entropy) entropy[blockIdx.x] = l.entropy;
}

static void summarise(Device *d, Head<float> h, int64_t chunks, Summaries to) {
    head_launch(d, h, chunks, Summarise{to});
}
static void summarise(Device *d, Head<Bf16> h, int64_t chunks, Summaries to) {
    if (!hopper_summarise(d, h, to)) head_launch(d, h, chunks, Summarise{to});
}

void cuda_logprob(Device *d, Tensor logp, Tensor lse, Tensor entropy, Tensor x, Tensor rows, Tensor w, Tensor target,
                  float temperature) {
    int64_t N = rows.dim[0], V = w.dim[0], D = tensor_width(w), chunks = head_chunks(V);
    int64_t most = (int64_t)(SUMMARIES_ROOM / ((size_t)chunks * sizeof(Lse))) / 128 * 128;
    if (most < 128) most = 128;
    size_t mark = arena_mark(&d->scratch);
    Lse *summary = (Lse *)arena_take(&d->scratch, (size_t)((N < most ? N : most) * chunks) * sizeof *summary);
    for (int64_t first = 0; first < N; first += most) {
        int64_t n = N - first < most ? N - first : most;
        Summaries to = {summary, f32(logp) + first, i32(target) + first, n, chunks};
        DISPATCH(x.dtype, T, {
            Head<T> h = {data_of<T>(x), data_of<T>(w),          i32(rows) + first, NULL, n, V, 0,
                         (int)D,        head_scale(temperature)};
            summarise(d, h, chunks, to);
        });
        LAUNCH(d, combine_kernel, (unsigned)n, COMBINE_THREADS, 0, f32(logp) + first, f32(lse) + first,
               present(entropy) ? f32(entropy) + first : NULL, summary, chunks);
    }
    arena_rewind(&d->scratch, mark);
}

// ---- backward ------------------------------------------------------------------------------------------------------
// Copies back: x[rows[n]] = from[n, D].
template <typename T> static __global__ void scatter_kernel(T *x, const float *from, const int32_t *rows, int64_t D) {
    T *to = x + rows[blockIdx.x] * D;
    for (int64_t k = threadIdx.x; k < D; k += GATHER_THREADS) to[k] = from_float<T>(from[blockIdx.x * D + k]);
}

// What head_kernel does with a chunk's logits in the backward pass: dz[tokens of the vocabulary, stride].
template <typename T> struct Differentiate : Gradients<T> {
    using G = Gradients<T>;
    float scale;

    template <int X> __device__ __forceinline__ void run(HeadRoom<X> *room, int64_t row, int64_t token, int len) const {
        float *row_lse = room->max[0], *row_entropy = room->max[1], *g_logp = room->sum[0], *g_entropy = room->dot[0];
        int32_t *y = room->id[0];
        if (threadIdx.x < X) {
            int t = (int)threadIdx.x;
            HeadSlope s = this->slope_of(row + t);
            row_lse[t] = s.lse, g_logp[t] = s.dlogp, g_entropy[t] = s.dentropy, row_entropy[t] = s.entropy;
            y[t] = s.target - (int32_t)token;
        }
        __syncthreads();
        constexpr int PACK = Pack<T>::N;
        for (int i = (int)threadIdx.x; i < len * (X / PACK); i += HEAD_THREADS) {
            int v = i / (X / PACK), t = i % (X / PACK) * PACK;
            if (row + t >= G::stride) continue;
            Pack<T> g;
#pragma unroll
            for (int e = 0; e < PACK; e++) {
                HeadSlope s = {row_lse[t + e], g_logp[t + e], g_entropy[t + e], row_entropy[t + e], 0};
                g.x[e] = from_float<T>(scale * s.at(room->z[v][t + e], v == y[t + e]));
            }
            store_pack(G::dz + (token - G::first + v) * G::stride + row + t, g);
        }
    }
};

// The two ways dz is stored: [stride, len] where this gives true, else [len, stride].
static bool differentiate(Device *d, Head<float> h, int64_t len, Gradients<float> to) {
    head_launch(d, h, head_chunks(len), Differentiate<float>{to, h.scale});
    return false;
}
static bool differentiate(Device *d, Head<Bf16> h, int64_t len, Gradients<Bf16> to) {
    if (hopper_differentiate(d, h, len, to)) return true;
    head_launch(d, h, head_chunks(len), Differentiate<Bf16>{to, h.scale});
    return false;
}

// How many rows and tokens of the vocabulary go at a time. Scratch holds a row's copy and f32 sum, and a gradient for
// each of its logits; PRODUCTS_ROOM of it is the products' workspace. The sums of dx are read and written once for
// every block of tokens, those of dw for every block of rows: of the ways to cut the rows evenly, the one that moves
// the fewest bytes. The tokens are cut so that the tiles of a block nearly fill whole waves.
#define PRODUCTS_ROOM ((int64_t)8 << 20)
#define TILE_ROWS     128
#define TILE_TOKENS   256
typedef struct {
    int64_t rows, tokens;
} Blocks;

static Blocks choose_blocks(int64_t scratch, int64_t N, int64_t V, int64_t D, int64_t element, int64_t dw_element,
                            int64_t sms) {
    Blocks best = {8, HEAD_CHUNK};
    double least = INFINITY;
    for (int64_t parts = 1;; parts++) {
        const int64_t rows = ((N + parts - 1) / parts + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
        const int64_t room = scratch - PRODUCTS_ROOM - rows * D * (element + (int64_t)sizeof(float));
        int64_t tokens = room / (rows * element) / HEAD_CHUNK * HEAD_CHUNK;
        const int64_t x_tiles = rows / TILE_ROWS, waves = x_tiles * (tokens / TILE_TOKENS) / sms;
        if (waves) tokens = waves * sms / x_tiles * TILE_TOKENS;
        if (tokens > V) tokens = head_chunks(V) * HEAD_CHUNK;
        if (tokens >= HEAD_CHUNK) {
            double dx = (double)((V + tokens - 1) / tokens) * (double)N * sizeof(float);
            double bytes = 2 * (double)D * (dx + (double)(parts * V * dw_element));
            if (bytes < least) least = bytes, best = {rows, tokens};
        }
        if (rows == TILE_ROWS) return best;
    }
}

template <typename T>
static void logprob_bwd(Device *d, Tensor dx, Tensor dw, Tensor dlogp, Tensor dentropy, Tensor x, Tensor rows, Tensor w,
                        Tensor target, Tensor lse, Tensor entropy, float temperature) {
    int64_t N = rows.dim[0], V = w.dim[0], D = tensor_width(w);
    float scale = head_scale(temperature);
    Blocks block = choose_blocks((int64_t)d->scratch.cap, N, V, D, sizeof(T),
                                 present(dw) ? (int64_t)dtype_size(dw.dtype) : 0, cuda_sm_count(d));
    size_t mark = arena_mark(&d->scratch);
    T *xs = (T *)arena_take(&d->scratch, (size_t)(block.rows * D) * sizeof(T));
    float *sum = (float *)arena_take(&d->scratch, (size_t)(block.rows * D) * sizeof(float)); // dx of these rows
    T *dz = (T *)arena_take(&d->scratch, (size_t)(block.tokens * block.rows) * sizeof(T));
    cuda_fill(d, dx, 0);
    for (int64_t first = 0; first < N; first += block.rows) {
        // Rows are padded to whole packs, with dz and x 0 there.
        int64_t n = N - first < block.rows ? N - first : block.rows, stride = (n + 7) / 8 * 8;
        gather_rows(d, xs, data_of<T>(x), i32(rows) + first, n, stride, D);
        for (int64_t v = 0; v < V; v += block.tokens) {
            int64_t len = V - v < block.tokens ? V - v : block.tokens;
            Gradients<T> to = {dz,
                               stride,
                               n,
                               v,
                               f32(dlogp) + first,
                               present(dentropy) ? f32(dentropy) + first : NULL,
                               f32(lse) + first,
                               present(dentropy) ? f32(entropy) + first : NULL,
                               i32(target) + first};
            Head<T> h = {xs, data_of<T>(w), NULL, NULL, n, V, v / HEAD_CHUNK, (int)D, scale};
            bool by_row = differentiate(d, h, len, to);
            Tensor g = by_row ? tensor2(dz, x.dtype, stride, len) : tensor2(dz, x.dtype, len, stride);
            gradient_product(d, tensor2(sum, F32, stride, D), v > 0, g, !by_row, tensor_rows(w, v, len));
            if (present(dw))
                gradient_product(d, tensor_rows(dw, v, len), true, g, by_row, tensor2(xs, x.dtype, stride, D));
        }
        LAUNCH(d, scatter_kernel<T>, (unsigned)n, GATHER_THREADS, 0, data_of<T>(dx), sum, i32(rows) + first, D);
    }
    arena_rewind(&d->scratch, mark);
}

void cuda_logprob_bwd(Device *d, Tensor dx, Tensor dw, Tensor dlogp, Tensor dentropy, Tensor x, Tensor rows, Tensor w,
                      Tensor target, Tensor lse, Tensor entropy, float temperature) {
    DISPATCH(x.dtype, T, logprob_bwd<T>(d, dx, dw, dlogp, dentropy, x, rows, w, target, lse, entropy, temperature));
}
